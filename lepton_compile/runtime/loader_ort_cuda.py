"""ONNX Runtime on a GPU: its driver, its libraries, and numbers that numpy does not have."""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stdout
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_guard import UnfitError, refuse

__all__ = ["bfloat16_zeros", "check_driver", "start_cuda"]

BFLOAT16 = 16  # onnx.TensorProto.BFLOAT16


def check_driver() -> None:
    """Refuse where there is no driver, before any file is read."""
    import ctypes

    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError as error:
        raise UnfitError(f"there is no NVIDIA driver here: {error}") from None


def start_cuda(ort: Any) -> None:
    """Load CUDA and cuDNN from pip packages, where there are such."""
    missing = "CUDAExecutionProvider" not in ort.get_available_providers()
    wrong = "this onnxruntime has no CUDA: pip install onnxruntime-gpu instead"
    refuse(missing, wrong, UnfitError)
    with redirect_stdout(sys.stderr):
        ort.preload_dlls()


def bfloat16_zeros(shape: tuple[int, ...], device: str) -> Any:
    """An OrtValue of zeros in bfloat16."""
    from onnxruntime import OrtValue

    value = OrtValue.ortvalue_from_shape_and_type(list(shape), BFLOAT16, device, 0)
    value.update_inplace(np.zeros(shape, np.uint16))
    return value
