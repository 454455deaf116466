"""GPUs an engine is built for, checked before anything is written."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import onnx_ir as ir

from lepton_compile.engines.gpu import gpus
from lepton_compile.engines.tensorrt.flavour import Flavour
from lepton_compile.errors import EngineError, RecipeError

__all__ = [
    "built_for",
    "check_capabilities",
    "check_dtype",
    "check_dtypes",
    "check_plugin",
    "hardware_level",
    "number",
]

WHERE = "compute_capabilities"
PORTABLE = "portable"
OLDEST_PORTABLE = "8.0"
"""What a portable engine reaches back to, by the header of its plan."""


def check_capabilities(asked: Sequence[str], flavour: Flavour, where: str = WHERE) -> list[str]:
    """``asked``, sorted and without repetition.

    Args:
        where: the key that asks for them.

    Raises:
        RecipeError: one is not written as a capability, or the library does not build for it.
    """
    for each in asked:
        if not _is_number(each):
            raise RecipeError(
                f"{each!r} is no compute capability",
                where=where,
                found=", ".join(asked),
                available=flavour.capabilities or ["8.0", "9.0"],
                hint=_hint(each),
            )
    known = flavour.capabilities
    unknown = [each for each in asked if known and each not in known]
    if unknown:
        raise RecipeError(
            f"{flavour.title} builds no engine for compute capability {unknown[0]}",
            where=where,
            found=", ".join(asked),
            available=[*known, "or leave it out for a portable engine"],
            hint="build for 9.0 and other data-centre GPUs with target: trt",
        )
    return sorted(set(asked), key=number)


def check_plugin(kind: str, flavour: Flavour, where: str = "plugin") -> None:
    """``plugin`` of a recipe: only TensorRT 11 takes compiled kernels into a plan.

    Raises:
        RecipeError: the library takes none.
    """
    if kind == "aot" and flavour.capabilities:
        raise RecipeError(
            f"{flavour.title} takes no compiled plugin into a plan",
            where=where,
            found=kind,
            available=["v3, beside the plan"],
            hint="beside target trt: per_target: {trt: {plugin: aot}}",
        )


def check_dtypes(model: ir.Model, capabilities: Sequence[str], flavour: Flavour) -> None:
    """A GPU that is named must take every data type of the graph; nameless ones are not checked.

    Raises:
        EngineError: naming the types, where the first of them is, and the GPUs that take it.
    """
    for dtype, where in _first_of_each(model, flavour.dtypes).items():
        check_dtype(dtype, where, capabilities, flavour)


def check_dtype(
    dtype: str | None, where: str, capabilities: Sequence[str], flavour: Flavour
) -> None:
    """As ``check_dtypes``, of one type, which is asked for at ``where``; of none, nothing."""
    least = flavour.dtypes.get(dtype or "")
    for capability in capabilities if least else ():
        if number(capability) < number(str(least)):
            raise EngineError(
                f"compute capability {capability} has no arithmetic for {dtype}",
                where=where,
                found=f"{WHERE}: {', '.join(capabilities)}",
                available=[c for c in flavour.capabilities if number(c) >= number(str(least))]
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


def built_for(model: ir.Model, capabilities: Sequence[str], flavour: Flavour) -> list[str]:
    """GPUs on which the engine will run, as the manifest names them.

    What was named; else, of a library that builds across GPUs, ``portable``, or ``8.9+`` where a
    data type of the graph begins there; else the GPU of this machine.
    """
    if capabilities:
        return list(capabilities)
    if not flavour.capabilities:
        return [gpu.compute_capability for gpu in gpus()[:1]] or [PORTABLE]
    found = [flavour.dtypes[dtype] for dtype in _first_of_each(model, flavour.dtypes)]
    least = max([OLDEST_PORTABLE, *found], key=number)
    return [PORTABLE] if least == OLDEST_PORTABLE else [f"{least}+"]


def number(capability: str) -> tuple[int, int]:
    """``"8.9"`` -> (8, 9)."""
    major, minor = capability.split(".")
    return int(major), int(minor)


def _is_number(text: str) -> bool:
    parts = text.split(".")
    return len(parts) == 2 and all(part.isdecimal() for part in parts)


def _hint(text: str) -> str:
    """``sm_89``, ``sm89`` and ``89`` in the form that is wanted."""
    match = re.fullmatch(r"(?:sm_?)?(\d{1,2})(\d)a?", text, re.IGNORECASE)
    return f"write {match[1]}.{match[2]}" if match else "two numbers with a point between them"


def _first_of_each(model: ir.Model, names: Collection[str]) -> dict[str, str]:
    """Data type -> the first value that has it, of those in ``names``."""
    found: dict[str, str] = {}
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    values += [output for node in model.graph.all_nodes() for output in node.outputs]
    for value in values:
        if value.dtype is not None and value.dtype.name in names:
            found.setdefault(value.dtype.name, value.name or "")
    return found
