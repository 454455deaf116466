"""What the first bytes of a plan say: observed, not documented. A check, no reason to trust it."""

from __future__ import annotations

from dataclasses import dataclass

from lepton_compile.engines.tensorrt.capabilities import number
from lepton_compile.errors import EngineError

__all__ = ["LENGTH", "PlanHeader", "check_header", "read_header"]

LENGTH = 40
MAGIC = b"vtrt"
_VERSION, _CAPABILITIES = 24, 32

# Bit of each compute capability in the word at byte 32 of a TensorRT-RTX plan.
_BITS = {"7.5": 0x01, "8.0": 0x02, "8.6": 0x04, "8.9": 0x08, "12.0": 0x10, "12.1": 0x20}
_PORTABLE = 0x40


@dataclass(frozen=True)
class PlanHeader:
    """Version of the builder, and the GPUs built for; ``portable`` reaches beyond those."""

    version: str
    capabilities: tuple[str, ...]
    portable: bool


def read_header(data: bytes) -> PlanHeader | None:
    """The header of a TensorRT-RTX plan; None for what is not one."""
    if len(data) < LENGTH or data[:4] != MAGIC:
        return None
    version = ".".join(str(part) for part in data[_VERSION : _VERSION + 4])
    word = int.from_bytes(data[_CAPABILITIES : _CAPABILITIES + 4], "little")
    found = tuple(sorted((c for c, bit in _BITS.items() if word & bit), key=number))
    return PlanHeader(version, found, bool(word & _PORTABLE))


def check_header(data: bytes, version: str, capabilities: list[str]) -> None:
    """A finished plan is of the version that built it and for the GPUs that were asked for.

    Raises:
        EngineError: it is not.
    """
    header = read_header(data)
    if header is None:
        raise EngineError("what was built is no plan", found=data[:LENGTH].hex(" "))
    if header.version != version:
        raise EngineError(
            "the plan was made by another version",
            found=header.version,
            available=[version],
            hint="two versions of the library are mixed up: install one of them anew",
        )
    if capabilities and header.capabilities != tuple(capabilities):
        raise EngineError(
            "the plan is for other GPUs than asked for",
            found=", ".join(header.capabilities) or "none",
            available=capabilities,
        )
