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

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from lepton_compile.errors import CheckpointError, SourceError
from lepton_compile.export.json_file import read_json
from lepton_passes.grouped import without_grid
from lepton_passes.tensors import StreamedTensor, rows_of

from .base import Checkpoint, TensorInfo
from .integers import EIGHT_BITS
from .names import summarize
from .safetensors import SafetensorsCheckpoint

__all__ = [
    "ADAPTER_CONFIG",
    "ADAPTER_WEIGHTS",
    "AdaptedCheckpoint",
    "Parameters",
    "parted_by",
    "read_settings",
]

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
PAIRS = {".lora_A.weight": ".lora_B.weight", ".lora_embedding_A": ".lora_embedding_B"}
# Where a value other than these asks for more than a sum, or for weights that are not the model's.
PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal"),
    **dict.fromkeys(
        ("use_dora", "use_qalora", "lora_bias", "layer_replication", "megatron_config"),
        (None, False),
    ),
    **dict.fromkeys(
        ("alora_invocation_tokens", "target_parameters", "trainable_token_indices"),
        (None, [], {}),
    ),
}


def read_settings(folder: Path) -> dict[str, Any]:
    """``adapter_config.json``.

    Raises:
        SourceError: it is missing or damaged, or the adapter is more than a sum of products.
    """
    path = folder / ADAPTER_CONFIG
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise SourceError(
            "The adapter cannot be read.",
            where=str(path),
            found=str(error),
            hint="Name a folder that PEFT's save_pretrained wrote.",
        ) from error
    if not isinstance(found, dict):
        raise SourceError(f"{ADAPTER_CONFIG} is not an object.", where=str(path))
    for key, plain in PLAIN.items():
        if (value := found.get(key)) not in plain and (value is not None or key == "peft_type"):
            raise SourceError(
                "The adapter cannot be merged as it is read.",
                where=f"{path}: {key}",
                found=str(value),
                available=[str(each) for each in plain if each is not None],
                hint="Merge it with PEFT (merge_and_unload, then save_pretrained); compile that.",
            )
    return found


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


def parted_by(folder: Path) -> set[str]:
    """Weights that an adapter changes without what they are tied to, by its names alone; none where
    its weights are not there.

    Raises:
        SourceError: as of ``read_settings``.
        CheckpointError: the adapter is damaged.
    """
    keeps = bool(read_settings(folder).get("ensure_weight_tying"))
    if keeps or not (folder / ADAPTER_WEIGHTS).is_file():
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
        keeps = bool(self._settings.get("ensure_weight_tying"))  # what it brings of both is alike
        self._stored = {**self._model.stored, **(tied if keeps else {})}
        self._shared = {} if keeps else self._changed(tied)
        self._products: dict[str, _Product] = {}
        self._whole: dict[str, str] = {}
        self._below: dict[str, str] = {}  # by stored name: what products are added to
        strangers = [name for name in self._adapter.names() if not self._place(name)]
        if strangers:
            raise CheckpointError(
                "The adapter does not fit the model.",
                where=str(folder),
                found=self._told(strangers),
                available=summarize(self._base.names())[:8],
                hint="Name the model, and the task, that it was trained on.",
            )
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

    def _told(self, strangers: list[str]) -> str:
        """What does not fit, and the sizes of what would but for them."""
        found = f"{len(strangers)} of no weight: {', '.join(summarize(strangers))}"
        for name in strangers:
            said = self._model.named(_weight(name)[0])
            if said is not None and name.endswith(_weight(name)[0]):
                has, wanted = self._adapter.names()[name].shape, self._model.shapes[said]
                return f"{found}; {said} is {list(has)}, the model's {list(wanted)}"
        return found

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
        for down, up in PAIRS.items():
            if name.endswith(down) and (other := name.removesuffix(down) + up):
                return other in self._adapter.names() and self._add(name, other, down)
            if name.endswith(up):
                return name.removesuffix(up) + down in self._adapter.names()
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

    def _add(self, down: str, up: str, suffix: str) -> bool:
        said, _ = _weight(down)
        target = self._name(said)
        shapes = [self._adapter.names()[name].shape for name in (down, up)]
        if target is None or any(len(shape) != 2 for shape in shapes):
            return False
        (rank, inner), (outer, other) = shapes
        turned = "embedding" in suffix or self._turned(said)
        wanted = (inner, outer) if turned else (outer, inner)
        if not rank or rank != other or self._shape(target) != wanted:
            return False
        scale = self._scale(said.removesuffix(".weight"), rank)
        self._products[target] = _Product(down, up, scale, turned)
        return True

    def _turned(self, said: str) -> bool:
        """Whether a weight is (inputs, outputs): the settings say it of the last one that was made,
        in a model that has both."""
        parameter = self._model.named(said)
        if parameter is not None:
            return parameter in self._model.turned
        return bool(self._settings.get("fan_in_fan_out"))

    def _scale(self, layer: str, rank: int) -> float:
        common, own = self._settings.get("lora_alpha"), self._settings.get("alpha_pattern") or {}
        try:
            matching = [value for n, value in own.items() if re.fullmatch(rf"(.*\.)?({n})", layer)]
            alpha = float([*matching, common][0])
            if not isfinite(alpha):
                raise ValueError(f"{alpha} is no scale")
        except (re.error, AttributeError, TypeError, ValueError, OverflowError) as error:
            raise CheckpointError(
                "The adapter has no scale.",
                where=layer,
                found=f"lora_alpha: {common!s:.80}; {error}",
            ) from error
        return alpha / (sqrt(rank) if self._settings.get("use_rslora") else rank)

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
