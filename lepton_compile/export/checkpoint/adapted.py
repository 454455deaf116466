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
from collections.abc import Mapping
from dataclasses import dataclass
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

__all__ = ["ADAPTER_CONFIG", "ADAPTER_WEIGHTS", "AdaptedCheckpoint", "read_settings"]

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


class AdaptedCheckpoint:
    """A checkpoint with the weights of an adapter in it.

    Args:
        base: the model's own weights.
        folder: of the adapter.

    Raises:
        SourceError: as of ``read_settings``.
        CheckpointError: the adapter is damaged, or of another model.
    """

    def __init__(self, base: Checkpoint, folder: Path) -> None:
        self._base, self._settings = base, read_settings(folder)
        self._adapter = SafetensorsCheckpoint(folder, single=ADAPTER_WEIGHTS)
        self._products: dict[str, _Product] = {}
        self._whole: dict[str, str] = {}
        self._names = dict(base.names())
        strangers = [name for name in self._adapter.names() if not self._place(name)]
        if strangers:
            raise CheckpointError(
                "The adapter does not fit the model.",
                where=str(folder),
                found=f"{len(strangers)} of no weight: {', '.join(summarize(strangers))}",
                available=summarize(self._names)[:8],
                hint="Name the model that it was trained on.",
            )

    def names(self) -> Mapping[str, TensorInfo]:
        """As of ``Checkpoint``."""
        return self._names

    def files(self) -> tuple[Path, ...]:
        """As of ``Checkpoint``."""
        return (*self._base.files(), *self._adapter.files())

    def tensor(self, name: str) -> StreamedTensor:
        """As of ``Checkpoint``."""
        whole, product = self._whole.get(name), self._products.get(name)
        weight = self._base.tensor(name) if whole is None else self._adapter.tensor(whole)
        return weight if product is None else self._sum(weight, product)

    def _place(self, name: str) -> bool:
        """Note what a tensor of the adapter is for; False where the model has no use for it."""
        for down, up in PAIRS.items():
            if name.endswith(down) and (other := name.removesuffix(down) + up):
                return other in self._adapter.names() and self._add(name, other, down)
            if name.endswith(up):
                return name.removesuffix(up) + down in self._adapter.names()
        stored = name.removeprefix(PREFIX).replace(".base_layer.", ".")
        info = self._adapter.names()[name]
        if stored not in self._names or info.shape != self._names[stored].shape:
            return False
        self._whole[stored] = name
        if stored not in self._products:  # whose sum is in fp32
            self._names[stored] = info
        return True

    def _add(self, down: str, up: str, suffix: str) -> bool:
        layer = down.removeprefix(PREFIX).removesuffix(suffix)
        target = f"{layer}.weight"
        known = self._adapter.names()
        (rank, *inner), (*outer, other) = known[down].shape, known[up].shape
        info = self._names.get(target)
        shape = info.shape if info is not None else None
        turned = "embedding" in suffix or bool(self._settings.get("fan_in_fan_out"))
        if not rank or rank != other or shape != ((*inner, *outer) if turned else (*outer, *inner)):
            return False
        self._products[target] = _Product(down, up, self._scale(layer, rank), turned)
        # Between the levels of what was quantized.
        held = EIGHT_BITS if info is not None and info.integers is not None else None
        self._names[target] = TensorInfo(ir.DataType.FLOAT, shape, integers=held)
        return True

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
