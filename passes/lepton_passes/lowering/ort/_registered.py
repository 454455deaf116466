"""The opsets that a kernel of onnxruntime was registered for, a range that may be open."""

from __future__ import annotations

__all__ = ["serves"]


def serves(since: int, first: int, last: int | None) -> bool:
    """Whether the kernel takes a node whose op came with opset ``since``: an open range serves
    those of its first opset alone, which is onnxruntime's rule."""
    return since == first or (last is not None and first < since <= last)
