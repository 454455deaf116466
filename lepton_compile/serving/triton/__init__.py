"""A model repository for NVIDIA Triton Inference Server.

Encoders are opened by Triton's own backends for ONNX Runtime and TensorRT. A decoder keeps its KV
cache in place, in buffers that are input and output at once, and no request of Triton's carries
such a buffer from one step to the next; so a decoder is served by the loader of its artifact,
behind Triton's Python backend.
"""

from __future__ import annotations

from .repository import export_triton

__all__ = ["export_triton"]
