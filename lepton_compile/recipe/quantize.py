"""Precision of weights in a recipe: ``quantize``, and its rules for single parameters."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from lepton_compile.recipe.values import Closed

__all__ = ["FORMATS", "Quantize", "Rule"]

Group = Literal[32, 64, 128]
Algorithm = Literal[
    "none", "rtn", "weighted", "awq", "gptq", "fp16", "bf16", "fp8", "auto", "stored"
]

# The one-word forms of `quantize`, and the mapping each stands for.
FORMATS: dict[str, dict[str, Any]] = {
    "none": {"algorithm": "none"},
    "fp16": {"algorithm": "fp16"},
    "bf16": {"algorithm": "bf16"},
    "int8": {"algorithm": "rtn", "bits": 8},
    "int4": {"algorithm": "rtn", "bits": 4},
    "fp8": {"algorithm": "fp8"},
    "auto": {"algorithm": "auto"},
    "stored": {"algorithm": "stored"},
}

OF_FOUR = "group is for bits: 4"

FITTED = ("awq", "gptq", "weighted")
"""Algorithms that are asked for by name as if they were precisions."""


def _unknown(word: str | float) -> PydanticCustomError:
    """What is told of a word or number that is no precision, with what is known in its place."""
    meant = [name for name in FITTED if name in str(word).lower()]
    hint = f"quantize: {{algorithm: {meant[0]}, bits: 4}}" if meant else ""
    if word is False:  # as YAML reads `off` and `no`
        hint = "quantize: none"
    said = {"word": repr(word), "known": list(FORMATS), "hint": hint}
    return PydanticCustomError("unknown_word", "unknown precision {word}", said)


def _ungrouped(what: int | str) -> str:
    """Why weights of these bits, or of an algorithm that is given none, have no groups."""
    if what == 8:
        return "int8 has one scale for each output row"
    if what in ("auto", "stored"):
        return f"algorithm: {what} has groups of its own"
    return f"weights in {'floating point' if what == 'none' else what} have no groups"


class Rule(Closed):
    """An exception to the quantization, for the parameters whose names match."""

    match: str = Field(min_length=1, description="Pattern on parameter names, `*` and `?`.")
    bits: Literal[4, 8, "none"] = Field(description="Bits of these weights; none keeps them.")
    group: Group | None = Field(default=None, description="Weights per scale, for 4 bits.")

    @model_validator(mode="after")
    def _check(self) -> Rule:
        if self.group is not None and self.bits != 4:
            raise ValueError(f"{OF_FOUR}; {_ungrouped(self.bits)}")
        return self


class Quantize(Closed):
    """How weights are stored, and what else is rounded."""

    algorithm: Algorithm = Field(
        default="rtn",
        description="Round to nearest, minding a sample (weighted; awq: inputs scaled, too) or "
        "not; GPTQ (4 bits, fitted to it); a cast; none; bits as the gates allow (auto), or as few "
        "as hold what a quantized checkpoint has (stored).",
    )
    bits: Literal[4, 8] | None = Field(
        default=None,
        description="Bits of a weight, for `rtn`, `weighted`, `awq`, `gptq`; for `stored` of those "
        "that the checkpoint has in floating point, which stay so without it.",
    )
    group: Group | None = Field(
        default=None, description="Weights per scale, for 4 bits (default 32)."
    )
    embedding: Literal["same", "int4", "int8", "none"] = Field(
        default="same", description="Format of embedding tables; with fp8, same is none."
    )
    activations: Literal["auto", "none", "static"] = Field(
        default="auto",
        description="Activations of 8-bit layers in TensorRT: static scales, or none.",
    )
    cache: Literal["same", "int8", "fp8"] = Field(
        default="same",
        description="KV cache, in TensorRT and (int8) ort-cpu; same: the target's own.",
    )
    rules: tuple[Rule, ...] = Field(
        default=(), description="Exceptions; the first that matches holds."
    )

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, value: Any) -> Any:
        if value is None:
            return FORMATS["none"]
        if isinstance(value, str | int | float):
            if not isinstance(value, str) or value not in FORMATS:
                raise _unknown(value)
            return FORMATS[value]
        if isinstance(value, dict) and value.keys() == {"cache"}:
            return {**FORMATS["none"], **value}  # weights are left as they are
        if isinstance(value, dict) and isinstance(value.get("rules"), list):
            return {**value, "rules": tuple(value["rules"])}
        return value

    @model_validator(mode="after")
    def _check(self) -> Quantize:
        if self.algorithm in ("rtn", "weighted") and self.bits is None:
            raise ValueError(f"algorithm: {self.algorithm} needs bits: 4 or bits: 8")
        if self.algorithm in ("awq", "gptq") and self.bits != 4:
            raise ValueError(
                f"algorithm: {self.algorithm} needs bits: 4; 8 bits lose too little to be fitted"
            )
        takes = ("rtn", "weighted", "awq", "gptq", "stored")
        if self.algorithm not in takes and self.bits is not None:
            raise ValueError(
                f"bits is for algorithm: {', '.join(takes[:-1])} or {takes[-1]}, not "
                f"{self.algorithm}"
            )
        if self.group is not None and self.bits != 4:
            raise ValueError(f"{OF_FOUR}; {_ungrouped(self.bits or self.algorithm)}")
        if self.activations == "static" and self.format not in ("int8", "fp8"):
            raise ValueError("activations: static is for weights of 8 bits: int8 or fp8")
        if self.algorithm == "fp8" and self.embedding == "int8":
            raise ValueError("with fp8, 8 bits are fp8; embedding tables take int4 or none")
        return self

    @property
    def format(self) -> str:
        """The one-word form: none, fp16, bf16, int8, int4, fp8, auto or stored."""
        if self.bits is None or self.algorithm == "stored":
            return self.algorithm
        return f"int{self.bits}"

    @property
    def may_have_integers(self) -> bool:
        """Whether any weight may come in integers."""
        chosen = self.bits is not None or self.algorithm in ("auto", "stored")
        return chosen or bool(self.rules) or self.embedding != "same"

    def weight(self, name: str, *, embedding: bool = False) -> tuple[int, int | None] | None:
        """Bits and group of the parameter ``name``; None keeps it in floating point.

        Until ``auto`` has chosen, or ``stored`` has looked, it says 8 bits, the most that either
        usually comes to.
        """
        for rule in self.rules:
            if fnmatchcase(name, rule.match):
                return self.asked_by(rule)
        if embedding and self.embedding != "same":
            return None if self.embedding == "none" else self._pair(int(self.embedding[3:]), None)
        if self.algorithm == "fp8":
            return None if embedding else self._pair(8, None)
        if self.algorithm in ("auto", "stored"):
            return self._pair(8, None)
        return None if self.bits is None else self._pair(self.bits, self.group)

    def asked_by(self, rule: Rule) -> tuple[int, int | None] | None:
        """Bits and group of the parameters that a rule holds for, as ``weight`` has them."""
        return None if rule.bits == "none" else self._pair(rule.bits, rule.group)

    def says(self, name: str, *, embedding: bool = False) -> bool:
        """Whether the recipe has a word for this parameter, beside the one for all."""
        ruled = any(fnmatchcase(name, rule.match) for rule in self.rules)
        return ruled or (embedding and self.embedding != "same")

    def _pair(self, bits: int, group: int | None) -> tuple[int, int | None]:
        return bits, (group or self.group or 32) if bits == 4 else None
