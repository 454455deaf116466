"""A checkpoint with a LoRA adapter merged into it, row by row.

LoRA (Hu et al., arXiv:2106.09685) adds a product of two thin matrices to a weight, ``W + s B A``.
In the layout of PEFT:

    base_model.model.X.lora_A.weight    (r, columns)
    base_model.model.X.lora_B.weight    (rows, r)
    base_model.model.X.lora_embedding_A (r, tokens), lora_embedding_B (width, r), of a table
    base_model.model.X.weight           what was trained as a whole, in place of the model's own;
                                        X.base_layer.weight is what a product is added to

with ``s = alpha / r``, or ``alpha / sqrt(r)`` where it is rank-stabilized (arXiv:2312.03732). What
else an adapter may say changes more than this sum, and is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir

from lepton_compile.errors import CheckpointError
from lepton_passes.grouped import without_grid
from lepton_passes.tensors import StreamedTensor, rows_of

from .adapter_settings import read_settings
from .base import Checkpoint, TensorInfo
from .integers import EIGHT_BITS
from .names import summarize
from .safetensors import SafetensorsCheckpoint

__all__ = ["ADAPTER_WEIGHTS", "AdaptedCheckpoint", "Parameters", "parted_by"]

ADAPTER_WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
PAIRS = {".lora_A.weight": ".lora_B.weight", ".lora_embedding_A": ".lora_embedding_B"}


@dataclass(frozen=True)
class _Product:
    """What is added to a weight: ``scale * up[rows] @ down``, of matrices as fp32."""

    down: str
    up: str
    scale: float
    turned: bool  # a table, or a weight that is stored (inputs, outputs)


@dataclass(frozen=True)
class Parameters:
    """What a model calls its weights.

    Attributes:
        shapes: by parameter.
        stored: name in the checkpoint, by parameter that it has.
        tied: parameter -> the one that it shares its weight with.
        turned: parameters that are (inputs, outputs).
        named: gives the parameter that an adapter calls so; None for names of none.
    """

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    stored: Mapping[str, str] = field(default_factory=dict)
    tied: Mapping[str, str] = field(default_factory=dict)
    turned: frozenset[str] = frozenset()
    named: Callable[[str], str | None] = lambda _: None


def _weight(name: str) -> tuple[str, bool]:
    """What a tensor of an adapter changes, and whether it is what a product is added to."""
    own = name.removeprefix(PREFIX)
    for suffix in (part for pair in PAIRS.items() for part in pair):
        if own.endswith(suffix):
            return f"{own.removesuffix(suffix)}.weight", False
    return own.replace(".base_layer.", "."), ".base_layer." in own


def _pair(name: str) -> tuple[str, str] | None:
    """Both matrices of the product that a tensor is one of; None of what is a weight itself."""
    for down, up in PAIRS.items():
        for suffix in (down, up):
            if name.endswith(suffix):
                layer = name.removesuffix(suffix)
                return layer + down, layer + up
    return None


def _half(name: str) -> str:
    """What PEFT calls a matrix of a product: lora_A, lora_B and so on."""
    return name.removesuffix(".weight").rpartition(".")[2]


def _is_in(name: str, module: str) -> bool:
    """Whether a weight is that of a module, which is named by the end of its path."""
    return f".{module}." in f".{name}"


def parted_by(folder: Path) -> set[str]:
    """Weights that an adapter changes without what they are tied to, by its names alone; none where
    its weights are not there.

    Raises:
        SourceError: as of ``read_settings``.
        CheckpointError: the adapter is damaged.
    """
    if read_settings(folder).keeps_ties or not (folder / ADAPTER_WEIGHTS).is_file():
        return set()
    names = SafetensorsCheckpoint(folder, single=ADAPTER_WEIGHTS).names()
    return {said for said, below in map(_weight, names) if not below}


class AdaptedCheckpoint:
    """A checkpoint with the weights of an adapter in it.

    PEFT takes tied weights for two, unless it is told to keep them tied: what an adapter adds to
    one, the other goes without. Where the checkpoint has one of them, the other is among the names
    here, too. So is a head that it has not and the adapter brings.

    Args:
        base: the model's own weights.
        folder: of the adapter.
        parameters: of the model; left out, an adapter has the names of the checkpoint.

    Raises:
        SourceError: as of ``read_settings``.
        CheckpointError: the adapter is damaged, or of another model.
    """

    def __init__(
        self, base: Checkpoint, folder: Path, parameters: Parameters | None = None
    ) -> None:
        self._base, self._settings = base, read_settings(folder)
        self._adapter = SafetensorsCheckpoint(folder, single=ADAPTER_WEIGHTS)
        self._model = parameters or Parameters()
        tied = self._tied()
        keeps = self._settings.keeps_ties  # what it brings of both is alike
        self._stored = {**self._model.stored, **(tied if keeps else {})}
        self._shared = {} if keeps else self._changed(tied)
        self._products: dict[str, _Product] = {}
        self._whole: dict[str, str] = {}
        self._below: dict[str, str] = {}  # by stored name: what products are added to
        strangers = [name for name in self._adapter.names() if not self._place(name)]
        if strangers:
            raise self._misfit(folder, strangers)
        self._check_whole()
        self._names = {name: self._info(name) for name in self._all()}

    def names(self) -> Mapping[str, TensorInfo]:
        """As of ``Checkpoint``."""
        return self._names

    def files(self) -> tuple[Path, ...]:
        """As of ``Checkpoint``."""
        return (*self._base.files(), *self._adapter.files())

    def tensor(self, name: str) -> StreamedTensor:
        """As of ``Checkpoint``."""
        stored = self._shared.get(name, name)
        brought = self._whole.get(name) or self._below.get(stored)
        weight = self._base.tensor(stored) if brought is None else self._adapter.tensor(brought)
        product = self._products.get(name)
        return weight if product is None else self._sum(weight, product)

    def _all(self) -> dict[str, None]:
        return dict.fromkeys((*self._base.names(), *self._shared, *self._whole))

    def _info(self, name: str) -> TensorInfo:
        stored = self._shared.get(name, name)
        brought = self._whole.get(name) or self._below.get(stored)
        info = self._base.names()[stored] if brought is None else self._adapter.names()[brought]
        if name not in self._products:
            return info
        # Between the levels of what was quantized.
        held = EIGHT_BITS if info.integers is not None else None
        return TensorInfo(ir.DataType.FLOAT, info.shape, integers=held)

    def _misfit(self, folder: Path, strangers: list[str]) -> CheckpointError:
        """What does not fit, and the sizes of what would but for them."""
        why = {name: self._why(name) for name in strangers}
        of_none = summarize(name for name in strangers if not why[name])
        told = summarize(dict.fromkeys(text for text in why.values() if text))
        if of_none:
            count = sum(not text for text in why.values())
            told = [f"{count} of no weight: {', '.join(of_none)}", *told]
        given = self._adapter.names().keys()
        halves = not of_none and all((pair := _pair(n)) and not {*pair} <= given for n in strangers)
        return CheckpointError(
            "The adapter does not fit the model.",
            where=str(folder),
            found="; ".join(told),
            available=summarize(self._base.names())[:8] if of_none else (),
            hint="Save it again, or fetch the whole of it."
            if halves
            else "Name the model, and the task, that it was trained on.",
        )

    def _why(self, name: str) -> str:
        """Why a tensor that is for a weight does not fit it; empty of one that is for none."""
        said, below = _weight(name)
        target, pair, infos = self._name(said), _pair(name), self._adapter.names()
        if target is None and pair is None and not below:
            target = self._model.named(said)
        wanted = None if target is None else self._shape(target)
        if wanted is None:
            return ""
        if pair is None:
            return f"{said} is {list(infos[name].shape)}, the model's {list(wanted)}"
        if lacks := [_half(each) for each in pair if each not in infos]:
            return f"{name} without its {lacks[0]}"
        down, up = (f"{_half(each)} {list(infos[each].shape)}" for each in pair)
        return f"{said} is {list(wanted)}, the adapter's {down} and {up}"

    def _check_whole(self) -> None:
        """Modules that the settings name as trained whole, and the model has, are in the file.

        Raises:
            CheckpointError: one is not: the model's own weights would stand in for it.
        """
        brought = [_weight(name)[0] for name in self._adapter.names()]
        tied = {*self._model.tied, *self._model.tied.values()} if self._settings.keeps_ties else ()
        for module in self._settings.whole:
            names = [n for n in self._model.shapes or self._base.names() if _is_in(n, module)]
            if {*names} - {*tied} and not any(_is_in(name, module) for name in brought):
                raise CheckpointError(
                    "The adapter has no weights of a module that was trained as a whole.",
                    where=f"{self._settings.path}: modules_to_save",
                    found=f"{module}; {ADAPTER_WEIGHTS} has no {', '.join(summarize(names))}",
                    hint="Save it again with PEFT; take the name out if the model's own are meant.",
                )

    def _tied(self) -> dict[str, str]:
        """Parameters that are stored under the name of another -> that name."""
        found = {}
        for pair in self._model.tied.items():
            here = [name for name in pair if name in self._model.stored]
            if len(here) == 1:
                (other,) = {*pair} - {*here}
                found[other] = self._model.stored[here[0]]
        return found

    def _changed(self, tied: Mapping[str, str]) -> dict[str, str]:
        """Those of ``tied`` that the adapter changes, or what they are stored under."""
        model = self._model
        names = [model.named(_weight(name)[0]) for name in self._adapter.names()]
        changed = {name for name in names if name is not None}
        stored = {model.stored[name] for name in changed if name in model.stored}
        return {name: at for name, at in tied.items() if name in changed or at in stored}

    def _name(self, said: str) -> str | None:
        """Name of the tensor that an adapter calls so; None where there is none."""
        if said in self._base.names():
            return said
        parameter = self._model.named(said)
        if parameter is None or parameter in self._shared:
            return parameter
        return self._stored.get(parameter)

    def _shape(self, name: str) -> tuple[int, ...] | None:
        info = self._base.names().get(self._shared.get(name, name))
        return self._model.shapes.get(name) if info is None else info.shape

    def _place(self, name: str) -> bool:
        """Note what a tensor of the adapter is for; False where the model has no use for it."""
        if (pair := _pair(name)) is not None:
            whole = all(each in self._adapter.names() for each in pair)
            return whole and (name != pair[0] or self._add(*pair))
        said, below = _weight(name)
        stored = self._name(said)
        if stored is None and not below:
            stored = self._model.named(said)  # a head
        if stored is None or self._adapter.names()[name].shape != self._shape(stored):
            return False
        if below:
            self._below[self._shared.get(stored, stored)] = name
        else:
            self._whole[stored] = name
        return True

    def _add(self, down: str, up: str) -> bool:
        said, _ = _weight(down)
        target = self._name(said)
        shapes = [self._adapter.names()[name].shape for name in (down, up)]
        if target is None or any(len(shape) != 2 for shape in shapes):
            return False
        (rank, inner), (outer, other) = shapes
        turned = "lora_embedding" in _half(down) or self._turned(said)
        wanted = (inner, outer) if turned else (outer, inner)
        if not rank or rank != other or self._shape(target) != wanted:
            return False
        layer = said.removesuffix(".weight")
        self._settings.check_rank(layer, rank)
        self._products[target] = _Product(down, up, self._settings.scale(layer, rank), turned)
        return True

    def _turned(self, said: str) -> bool:
        """Whether a weight is (inputs, outputs): the settings say it of the last one that was made,
        in a model that has both."""
        parameter = self._model.named(said)
        if parameter is not None:
            return parameter in self._model.turned
        return self._settings.turned

    def _sum(self, weight: StreamedTensor, product: _Product) -> StreamedTensor:
        down, up = self._adapter.tensor(product.down), self._adapter.tensor(product.up)
        scale = np.float32(product.scale)

        def read(start: int, stop: int) -> np.ndarray:
            rows = rows_of(weight, start, stop).astype(np.float32)
            if product.turned:
                left, right = down.numpy()[:, start:stop].T, up.numpy().T
            else:
                left, right = up.rows(start, stop), down.numpy()
            rows += scale * (left.astype(np.float32) @ right.astype(np.float32))
            return rows

        made = StreamedTensor(weight.name or "", ir.DataType.FLOAT, weight.shape.numpy(), read)
        return without_grid(made, "an adapter is merged into it", weight)
