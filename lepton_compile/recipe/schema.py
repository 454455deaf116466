"""Every key of a recipe. The schema is closed: an unknown key is an error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    PrivateAttr,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from lepton_compile.recipe.quantize import Quantize
from lepton_compile.recipe.values import Bytes, Closed, Fraction, Location, Range

__all__ = [
    "TARGETS",
    "TASKS",
    "TENSORRT",
    "Gates",
    "Passes",
    "Recipe",
    "Shapes",
    "TargetOptions",
    "Verify",
]

Target = Literal["ort-cpu", "ort-cuda", "trt-rtx", "trt"]
Task = Literal[
    "feature-extraction",
    "fill-mask",
    "image-classification",
    "image-feature-extraction",
    "image-text-to-text",
    "multi-vector-embedding",
    "question-answering",
    "sparse-embedding",
    "text2text-generation",
    "text-classification",
    "text-generation",
    "token-classification",
    "automatic-speech-recognition",
]

TARGETS: tuple[str, ...] = Target.__args__  # type: ignore[attr-defined]
TENSORRT = ("trt-rtx", "trt")
TASKS: tuple[str, ...] = Task.__args__  # type: ignore[attr-defined]


LATEST = 49
"""Above the first number of any GPU's capability; whole numbers from 50 on (5.0) lack a point."""


class Shapes(Closed):
    """Ranges of the dimensions that stay open."""

    batch: Range = Field(default=(1, 64), description="Rows.")
    sequence: Range | None = Field(
        default=None, description="Tokens; for decoders the whole cache, past and new, from 1 on."
    )
    source: Range | None = Field(
        default=None,
        description="Tokens that an encoder-decoder reads.",
    )
    cache: tuple[int, ...] = Field(
        default=(),
        description="Room of the caches of a TensorRT decoder, the last the end of `sequence`.",
    )

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, value: Any) -> Any:
        """The last room says how long a sequence is, where nothing else does."""
        if not isinstance(value, dict) or not isinstance(value.get("cache"), list | tuple):
            return value
        rooms = tuple(value["cache"])
        whole = {"sequence": (1, rooms[-1])} if rooms and type(rooms[-1]) is int else {}
        return {**whole, **value, "cache": rooms}

    @model_validator(mode="after")
    def _check(self) -> Shapes:
        rooms = self.cache
        if rooms and (rooms[0] < 2 or list(rooms) != sorted(set(rooms))):
            raise ValueError("cache lists numbers of tokens from 2 on, each larger than the last")
        if rooms and self.sequence is not None and rooms[-1] != self.sequence[1]:
            raise ValueError(
                f"the last of cache is {rooms[-1]}, sequence ends at {self.sequence[1]}"
            )
        return self


class Verify(Closed):
    """Comparison of the engine with the fp32 PyTorch model; one word says whether to."""

    enabled: bool = Field(default=True, description="Compare after the build.")
    text: Location | None = Field(
        default=None, description="Text file to compare on; relative to the recipe."
    )
    tokens: int = Field(default=512, ge=2, le=1 << 20, description="How many tokens of it.")

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, value: Any) -> Any:
        if isinstance(value, bool):
            return {"enabled": value}
        if isinstance(value, dict | cls):
            return value
        raise ValueError("write true, false, or a mapping of enabled, text and tokens")


class Gates(Closed):
    """Numbers the build must reach. What is left out takes the default of the precision."""

    perplexity: Fraction | None = Field(
        default=None, description="Rise over the reference, at most."
    )
    cosine: float | None = Field(default=None, ge=-1, le=1, description="Similarity, at least.")
    max_error: Fraction | None = Field(
        default=None, description="Error by the output's range, at most."
    )
    argmax: Annotated[Fraction, Field(le=1)] | None = Field(
        default=None, description="Share of equal best entries, at least."
    )

    @field_validator("cosine", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        """A whole number as a float; those out of range, of any length, are refused as they are."""
        return float(value) if type(value) is int and -1 <= value <= 1 else value


class Passes(Closed):
    """What the passes may and must do."""

    disable: tuple[str, ...] = Field(default=(), description="Names of passes to leave out.")
    expect: dict[str, Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict, description="Pass name: how often it has to fire."
    )

    @field_validator("disable", mode="before")
    @classmethod
    def _tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


Compute = Literal["auto", "fp32", "fp16", "bf16"]
Plugin = Literal["v3", "aot"]
Profiles = Literal["split", "joint"]
Form = Literal["auto", "native", "mask", "slice", "plugin", "matmul"]


class TargetOptions(Closed):
    """What one target of several has for itself, in place of the recipe's."""

    quantize: Quantize | None = Field(default=None, description="Precision of weights.")
    compute: Compute | None = Field(default=None, description="Arithmetic of a GPU engine.")
    attention: Form | None = Field(default=None, description="Form of cached attention.")
    plugin: Plugin | None = Field(default=None, description="Where the attention plugin is.")
    profiles: Profiles | None = Field(default=None, description="Profiles of a decoder.")
    compute_capabilities: tuple[str, ...] | None = Field(default=None, description="GPUs.")
    gates: Gates | None = Field(default=None, description="Numbers the engine must reach.")

    @field_validator("compute_capabilities", mode="before")
    @classmethod
    def _capabilities(cls, value: Any) -> Any:
        return _numbers_as_text(value)


class Recipe(Closed):
    """A whole recipe; ``lepton_compile.recipe.load_recipe`` makes one of a file or a mapping.

    ``build`` takes any of the three. ``recipes/README.md`` describes the keys.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())

    model: Location = Field(min_length=1, description="Where the model is.")
    adapter: Location | None = Field(
        default=None, description="LoRA adapter that is merged into the weights."
    )
    task: Task | None = Field(
        default=None, description="optimum's task name; inferred when left out."
    )
    target: tuple[Target, ...] = Field(default=("ort-cpu",), description="Engines to build.")
    quantize: Quantize = Field(
        default_factory=lambda: Quantize(algorithm="none"), description="Precision of weights."
    )
    shapes: Shapes = Field(default_factory=Shapes, description="Ranges of open dimensions.")
    verify: Verify = Field(
        default_factory=Verify, description="Comparison with PyTorch, or whether to."
    )
    gates: Gates = Field(default_factory=Gates, description="Numbers the build must reach.")
    passes: Passes = Field(default_factory=Passes, description="Graph passes.")
    compute: Compute = Field(
        default="auto",
        description="Arithmetic of GPU engines; auto follows `quantize`, else the model's dtype.",
    )
    attention: Form = Field(
        default="auto", description="Form of cached attention in TensorRT engines."
    )
    plugin: Plugin = Field(
        default="v3",
        description="Attention plugin of TensorRT engines: beside the plan, or compiled into it.",
    )
    profiles: Profiles = Field(
        default="split",
        description="TensorRT decoders: a profile for prompts and one for steps, or one for both.",
    )
    compute_capabilities: tuple[str, ...] = Field(
        default=(), description="GPUs of a trt-rtx engine, such as `8.9`; empty is portable."
    )
    check: bool = Field(default=True, description="Compare after each pass that changes numbers.")
    pooling: Literal["auto", "none", "mean", "cls", "max", "lasttoken", "sum"] = Field(
        default="auto", description="Sentence embedding inside the graph; auto follows the model."
    )
    normalize: bool | None = Field(
        default=None, description="Unit length; left out, follows the model."
    )
    kernels: Literal["auto", "native", "builtin"] = Field(
        default="auto",
        description="Linear layers of ort-cpu: kernels of our own where they can be compiled.",
    )
    position_ids: bool = Field(default=False, description="Take positions as an input.")
    trust_remote_code: bool = Field(default=False, description="Run Python files of the model.")
    output: Location | None = Field(default=None, description="Folder of the artifact.")
    objective: Literal["latency", "throughput", "memory"] = Field(
        default="latency", description="What tactics are chosen for."
    )
    tactics: Literal["measure", "default"] = Field(
        default="measure",
        description="Kernels of quantized linear layers on ort-cpu: timed here, or a fixed rule.",
    )
    max_memory: Bytes | None = Field(default=None, description="Ceiling of the build's memory.")
    description: str = Field(default="", description="One line for `lepton-compile recipes`.")

    per_target: dict[Target, TargetOptions] = Field(
        default_factory=dict, description="Target: what it has in place of the recipe's."
    )

    _base: Path = PrivateAttr(default_factory=Path.cwd)
    _places: Mapping[tuple[str | int, ...], str] = PrivateAttr(default_factory=dict)
    _before: Recipe | None = PrivateAttr(default=None)

    def for_target(self, name: str) -> Recipe:
        """The recipe as one of its targets sees it."""
        own = self.per_target.get(name)  # type: ignore[call-overload]  # a name of the literal
        if own is None:
            return self
        return self.model_copy(update={k: getattr(own, k) for k in own.model_fields_set})

    @property
    def base(self) -> Path:
        """The folder that relative paths of the recipe start from."""
        return self._base

    @property
    def before(self) -> Recipe | None:
        """The recipe as it was without the overrides; None where there are none."""
        return self._before

    def written_in(
        self, base: Path, places: Mapping[tuple[str | int, ...], str], before: Recipe | None
    ) -> Recipe:
        """The recipe, and where it was read.

        Args:
            base: the folder that its relative paths start from.
            places: where each key was written: file and line.
            before: the same without overrides; None where there are none.
        """
        self._base, self._places, self._before = base, places, before
        return self

    def place(self, key: str) -> str:
        """Where a dotted key, such as ``quantize.rules[0].match``, was written: file and line; the
        key itself where no file has it."""
        path = _path_of(key)
        around = (path[:end] for end in range(len(path), 0, -1))
        return next((self._places[each] for each in around if each in self._places), key)

    def writes(self, key: str) -> bool:
        """Whether a place of this very key is known, and not only of something around it."""
        return _path_of(key) in self._places

    def key_of(self, key: str, target: str) -> str:
        """The dotted key by which one of the targets has its value: its own, or that of all."""
        own = self.per_target.get(target)  # type: ignore[call-overload]  # a name of the literal
        head = key.partition(".")[0]
        return f"per_target.{target}.{key}" if own and head in own.model_fields_set else key

    @field_validator("compute_capabilities", mode="before")
    @classmethod
    def _capabilities(cls, value: Any) -> Any:
        return _numbers_as_text(value)

    @field_validator("target", mode="before")
    @classmethod
    def _targets(cls, value: Any) -> Any:
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list | tuple):
            raise PydanticCustomError("names_type", "no names")
        if not names or len(set(map(str, names))) != len(names):
            raise ValueError("name at least one target, and each once")
        return tuple(names)


def _path_of(key: str) -> tuple[str | int, ...]:
    """``a.b[0].c`` as its parts."""
    parts = re.findall(r"\[(\d+)\]|([^.\[\]]+)", key)
    return tuple(int(index) if index else name for index, name in parts)


def _numbers_as_text(value: Any) -> Any:
    """``[8.6, 12]`` as YAML reads it, as ``("8.6", "12.0")``."""
    return tuple(map(_number_as_text, value)) if isinstance(value, list | tuple) else value


def _number_as_text(value: Any) -> Any:
    if type(value) is int:  # 89 is no generation of GPUs, but sm_89
        return f"{value}.0" if value <= LATEST else str(value)
    return str(value) if isinstance(value, float) else value
