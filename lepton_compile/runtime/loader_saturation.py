"""Whether products of bytes overflow on this machine."""

from __future__ import annotations

from pathlib import Path

__all__ = ["saturates"]


def saturates() -> bool:
    """Whether products of unsigned and signed bytes overflow 16 bits here.

    They do on x86 without VNNI, where onnxruntime offers exact, slower kernels instead
    (kOrtSessionOptionsAvx2PrecisionMode); it would take those on a machine with VNNI as well.
    """
    import platform

    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return True
    return not {"avx512_vnni", "avx_vnni"} & set(flags.split())
