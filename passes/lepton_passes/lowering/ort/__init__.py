"""Lowering to ONNX Runtime: its contrib ops, on CPU and on CUDA."""
