"""ONNX Runtime on a GPU: its driver, its libraries, and numbers that numpy does not have."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from itertools import count
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_guard import UnfitError, failing, refuse

__all__ = [
    "BITS",
    "DEVICE",
    "PROVIDERS",
    "CudaSession",
    "bfloat16_zeros",
    "check_driver",
    "start_cuda",
]

PROVIDERS = ["CUDAExecutionProvider", "CPUExecutionProvider"]
DEVICE = "cuda"
BFLOAT16 = 16  # onnx.TensorProto.BFLOAT16
BITS = "uint16"  # numpy has no bfloat16: an array holds the bits.
EAGER = -1  # Number of runs that are not captured.


def check_driver() -> None:
    """Refuse where there is no driver, before any file is read."""
    import ctypes

    with failing("there is no NVIDIA driver here", UnfitError):
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")


def start_cuda(ort: Any, graphs: bool) -> Callable[..., CudaSession]:
    """Load CUDA and cuDNN from pip packages, where there are such; what then opens a session.

    With ``graphs`` it captures decode steps, where that is possible.
    """
    missing = "CUDAExecutionProvider" not in ort.get_available_providers()
    wrong = "this onnxruntime has no CUDA: pip install onnxruntime-gpu instead"
    refuse(missing, wrong, UnfitError)
    with redirect_stdout(sys.stderr):
        ort.preload_dlls()
    return partial(_open, ort, graphs)


def _open(ort: Any, graphs: bool, path: str, options: Any, providers: list[str]) -> CudaSession:
    (device, *others), session = providers, None
    if graphs:
        capturing = [(device, {"enable_cuda_graph": "1"}), *others]
        try:
            session = ort.InferenceSession(path, options, providers=capturing)
        except Exception as error:  # of onnxruntime, which has several
            warnings.warn(f"decode steps run kernel by kernel: {error}", stacklevel=2)
    captures = session is not None
    session = session or ort.InferenceSession(path, options, providers=providers)
    # A provider that does not start is left out with no more than a line on stderr.
    idle = device not in session.get_providers()
    refuse(idle, f"onnxruntime could not start {device}: see what it wrote above", UnfitError)
    return CudaSession(session, captures=captures)


class CudaSession:
    """A session on a GPU: captures what it is asked to, and takes numbers that numpy lacks."""

    def __init__(self, session: Any, *, captures: bool = False) -> None:
        self._session, self.captures, self.graphs = session, captures, count(1)
        wide = "tensor(bfloat16)"
        self._halves = {value.name for value in session.get_inputs() if value.type == wide}
        self.hidden = [value.name for value in session.get_outputs() if value.type == wide]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Outputs by numbers on the host; bfloat16 comes as the 16 bits that it is."""
        from onnxruntime import OrtValue

        plain, typed = OrtValue.ortvalue_from_numpy, OrtValue.ortvalue_from_numpy_with_onnx_type
        given = {
            name: typed(array, BFLOAT16) if name in self._halves else plain(array)
            for name, array in feeds.items()
        }
        found = self._session.run_with_ort_values(names, given, _numbered(EAGER))
        return [value.numpy() for value in found]

    def run_with_iobinding(self, binding: Any, graph: int = EAGER) -> None:
        """Run once; a graph is captured in its first run, and replayed with the same addresses."""
        self._session.run_with_iobinding(binding, _numbered(graph))


def _numbered(graph: int) -> Any:
    from onnxruntime import RunOptions

    options = RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(graph))
    return options


def bfloat16_zeros(shape: tuple[int, ...]) -> Any:
    """An OrtValue of zeros in bfloat16."""
    from onnxruntime import OrtValue

    value = OrtValue.ortvalue_from_shape_and_type(list(shape), BFLOAT16, DEVICE, 0)
    value.update_inplace(np.zeros(shape, BITS))
    return value
