"""Whether products of bytes overflow on this machine."""

from __future__ import annotations

from pathlib import Path

__all__ = ["saturates"]


def saturates() -> bool:
    """Whether products of bytes overflow 16 bits here: without VNNI, where this is an x86."""
    file = Path("/proc/cpuinfo")
    flags = file.read_text(encoding="ascii", errors="replace") if file.exists() else ""
    return not {"avx512_vnni", "avx_vnni"} & {*flags.split()}
