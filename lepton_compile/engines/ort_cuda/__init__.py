"""ONNX Runtime on an NVIDIA GPU, through its CUDA provider."""
