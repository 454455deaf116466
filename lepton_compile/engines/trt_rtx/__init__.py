"""TensorRT-RTX: engines for RTX-class GPUs, built ahead of time on any machine."""
