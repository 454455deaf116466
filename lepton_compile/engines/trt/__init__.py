"""TensorRT 11: engines for data-centre GPUs, built on the GPU they are for."""
