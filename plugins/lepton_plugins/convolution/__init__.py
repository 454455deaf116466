"""Causal convolution of short reach, for onnxruntime on the CPU."""
