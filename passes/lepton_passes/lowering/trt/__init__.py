"""Lowering to TensorRT 11 and TensorRT-RTX: strongly typed, static caches, explicit QDQ."""
