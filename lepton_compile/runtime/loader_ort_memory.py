"""Where ONNX Runtime keeps a decoder's keys and values."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["DEVICES", "zeros"]

DEVICES = {"ort-cpu": "cpu", "ort-cuda": "cuda"}


def zeros(shape: tuple[int, ...], dtype: str, device: str) -> Any:
    """An OrtValue of zeros: what lies beyond a row's end may be multiplied by zero, so no NaN."""
    from onnxruntime import OrtValue

    if dtype == "bfloat16":
        from lepton_compile.runtime.loader_ort_cuda import bfloat16_zeros

        return bfloat16_zeros(shape, device)
    return OrtValue.ortvalue_from_numpy(np.zeros(shape, dtype), device, 0)
