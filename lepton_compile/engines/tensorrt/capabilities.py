"""GPUs an engine is built for, checked before anything is written."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import onnx_ir as ir

from lepton_compile.engines.tensorrt.flavour import Flavour
from lepton_compile.errors import EngineError

__all__ = ["check_capabilities", "check_dtypes", "hardware_level", "number"]

WHERE = "compute_capabilities"


def check_capabilities(asked: Sequence[str], flavour: Flavour) -> list[str]:
    """``asked``, sorted and without repetition.

    Raises:
        EngineError: the library does not build for one of them.
    """
    known = flavour.capabilities
    unknown = [each for each in asked if (known and each not in known) or not _is_number(each)]
    if unknown:
        raise EngineError(
            f"{flavour.title} builds no engine for compute capability {unknown[0]}",
            where=WHERE,
            found=", ".join(asked),
            available=[*known, "or leave it out for a portable engine"]
            if known
            else ["8.0", "9.0"],
            hint="build for 9.0 and other data-centre GPUs with target: trt"
            if known and _is_number(unknown[0])
            else "two numbers with a point between them",
        )
    return sorted(set(asked), key=number)


def check_dtypes(model: ir.Model, capabilities: Sequence[str], flavour: Flavour) -> None:
    """A GPU that is named must take every data type of the graph; nameless ones are not checked.

    Raises:
        EngineError: naming the types, where the first of them is, and the GPUs that take it.
    """
    found = _first_of_each(model, flavour.dtypes)
    for capability in capabilities:
        for dtype, where in found.items():
            least = flavour.dtypes[dtype]
            if number(capability) < number(least):
                raise EngineError(
                    f"compute capability {capability} has no arithmetic for {dtype}",
                    where=where,
                    found=f"{WHERE}: {', '.join(capabilities)}",
                    available=[c for c in flavour.capabilities if number(c) >= number(least)]
                    or [f"{least} and newer"],
                    hint=f"leave {capability} out, or choose another precision with quantize",
                )


def hardware_level(capabilities: Sequence[str]) -> str:
    """How far an engine of a library without cross-building reaches beyond the GPU that builds it.

    None named: this very GPU model. One named: every GPU of that capability. Several: the kernels
    common to all GPUs since 8.0.
    """
    if not capabilities:
        return "NONE"
    return "SAME_COMPUTE_CAPABILITY" if len(capabilities) == 1 else "AMPERE_PLUS"


def number(capability: str) -> tuple[int, int]:
    """``"8.9"`` -> (8, 9)."""
    major, minor = capability.split(".")
    return int(major), int(minor)


def _is_number(text: str) -> bool:
    parts = text.split(".")
    return len(parts) == 2 and all(part.isdecimal() for part in parts)


def _first_of_each(model: ir.Model, names: Collection[str]) -> dict[str, str]:
    """Data type -> the first value that has it, of those in ``names``."""
    found: dict[str, str] = {}
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    values += [output for node in model.graph.all_nodes() for output in node.outputs]
    for value in values:
        if value.dtype is not None and value.dtype.name in names:
            found.setdefault(value.dtype.name, value.name or "")
    return found
