"""What a measurement holds for: a processor, the runtime and our library."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Machine", "last_level_bytes", "this_machine"]

_CPUINFO = Path("/proc/cpuinfo")
_CPUS = Path("/sys/devices/system/cpu")
# What kernels are chosen by at run time.
_FEATURES = ("avx", "amx", "fma", "f16c")


@dataclass(frozen=True)
class Machine:
    """Everything that a time depends on, beside the layer.

    Attributes:
        processor: its name.
        features: of its instructions, those that kernels ask for.
        onnxruntime: its version.
        kernels: SHA-256 of our library; empty where it is not known yet.
    """

    processor: str
    features: tuple[str, ...]
    onnxruntime: str
    kernels: str = ""

    def as_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return {**asdict(self), "features": list(self.features)}


def this_machine(library: Path | None) -> Machine:
    """The machine that this process runs on, with our library where there is one."""
    import onnxruntime

    said = _said()
    return Machine(
        processor=said.get("model name") or platform.processor() or platform.machine(),
        features=tuple(sorted(f for f in said.get("flags", "").split() if f.startswith(_FEATURES))),
        onnxruntime=onnxruntime.__version__,
        kernels=hashlib.sha256(library.read_bytes()).hexdigest() if library is not None else "",
    )


def last_level_bytes() -> int:
    """Size of the largest cache; 32 MB where nobody says."""
    sizes = [_size(path.read_text()) for path in _CPUS.glob("cpu0/cache/index*/size")]
    return max(sizes, default=0) or 32 << 20


def _size(text: str) -> int:
    unit = {"K": 1 << 10, "M": 1 << 20}.get(text.strip()[-1:], 0)
    digits = text.strip()[:-1]
    return int(digits) * unit if digits.isdigit() else 0


def _said() -> dict[str, str]:
    """What Linux says of the first processor."""
    first = _CPUINFO.read_text("utf-8").split("\n\n")[0] if _CPUINFO.is_file() else ""
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
