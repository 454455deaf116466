"""Normalization of rows, for onnxruntime on the CPU."""
