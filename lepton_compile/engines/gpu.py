"""The NVIDIA GPUs and the driver of this machine, asked of the driver itself.

``libcuda`` comes with the driver and is called through ctypes: no package is needed, and a machine
without a driver is told so in a millisecond. ``/proc/driver/nvidia`` knows the driver's release.
"""

from __future__ import annotations

import ctypes
import re
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Driver", "Gpu", "driver", "gpu_text", "gpus"]

VERSION_FILE = Path("/proc/driver/nvidia/version")

# CUdevice_attribute of cuda.h.
_MAJOR, _MINOR = 75, 76


@dataclass(frozen=True)
class Gpu:
    """One GPU: its name, compute capability such as ``"9.0"``, and bytes of memory."""

    name: str
    compute_capability: str
    memory: int


@dataclass(frozen=True)
class Driver:
    """The NVIDIA driver.

    Attributes:
        release: such as ``"580.65.06"``; None where ``/proc`` does not say.
        cuda: the newest CUDA that it runs, such as ``"13.0"``; None without ``libcuda``.
    """

    release: str | None
    cuda: str | None


def driver() -> Driver | None:
    """The driver; None on a machine without one."""
    library, release = _libcuda(), _release()
    if library is None:
        return Driver(release, None) if release else None
    number = ctypes.c_int()
    if library.cuDriverGetVersion(ctypes.byref(number)) != 0:
        return Driver(release, None)
    return Driver(release, f"{number.value // 1000}.{number.value % 1000 // 10}")


def gpus() -> tuple[Gpu, ...]:
    """The GPUs that the driver lets this process use; none where there is no working driver."""
    library, count = _libcuda(), ctypes.c_int()
    if library is None or library.cuInit(0) != 0:
        return ()
    if library.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    return tuple(_gpu(library, index) for index in range(count.value))


def gpu_text() -> str | None:
    """The first GPU and the driver in a line, such as ``NVIDIA L4 (8.9), driver 580.65``."""
    found = gpus()
    if not found:
        return None
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    known = driver()
    release = f", driver {known.release or 'CUDA ' + str(known.cuda)}" if known else ""
    return f"{found[0].name} ({found[0].compute_capability}){more}{release}"


def _gpu(library: ctypes.CDLL, index: int) -> Gpu:
    device, size = ctypes.c_int(), ctypes.c_size_t()
    library.cuDeviceGet(ctypes.byref(device), index)
    name = ctypes.create_string_buffer(256)
    library.cuDeviceGetName(name, len(name), device)
    library.cuDeviceTotalMem_v2(ctypes.byref(size), device)
    version = f"{_attribute(library, _MAJOR, device)}.{_attribute(library, _MINOR, device)}"
    return Gpu(name.value.decode(errors="replace"), version, size.value)


def _attribute(library: ctypes.CDLL, number: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int()
    library.cuDeviceGetAttribute(ctypes.byref(value), number, device)
    return value.value


def _libcuda() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None


def _release() -> str | None:
    try:
        text = VERSION_FILE.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    match = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", text)
    return match[1] if match else None
