"""What ``adapter_config.json`` of a LoRA adapter says, in the terms of PEFT."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, sqrt
from pathlib import Path
from typing import Any

from lepton_compile.errors import CheckpointError, SourceError
from lepton_compile.export.json_file import read_json

__all__ = ["ADAPTER_CONFIG", "Settings", "read_settings"]

ADAPTER_CONFIG = "adapter_config.json"
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


@dataclass(frozen=True)
class Settings:
    """The settings of an adapter that can be merged.

    Attributes:
        path: of the file.
        said: what is in it.
    """

    path: Path
    said: Mapping[str, Any]

    @property
    def keeps_ties(self) -> bool:
        """Whether weights that the model ties stay tied."""
        return bool(self.said.get("ensure_weight_tying"))

    @property
    def turned(self) -> bool:
        """Whether a weight is (inputs, outputs)."""
        return bool(self.said.get("fan_in_fan_out"))

    @property
    def whole(self) -> list[str]:
        """Modules that were trained as a whole, by the ends of their names."""
        named = self.said.get("modules_to_save") or []
        return [each for each in named if isinstance(each, str)] if isinstance(named, list) else []

    def scale(self, layer: str, rank: int) -> float:
        """What the product of a layer is multiplied by. Raises CheckpointError."""
        common = self.said.get("lora_alpha")
        try:
            alpha = float(self._of(layer, "alpha_pattern", common))
            if not isfinite(alpha):
                raise ValueError(f"{alpha} is no scale")
        except (re.error, AttributeError, TypeError, ValueError, OverflowError) as error:
            raise CheckpointError(
                "The adapter has no scale.",
                where=layer,
                found=f"lora_alpha: {common!s:.80}; {error}",
            ) from error
        return alpha / (sqrt(rank) if self.said.get("use_rslora") else rank)

    def check_rank(self, layer: str, rank: int) -> None:
        """The matrices of a layer have the rank that is said of it: a scale is made of it, too.

        Raises:
            CheckpointError: they have another; it was made with other settings.
        """
        try:
            own = self._of(layer, "rank_pattern", None)
        except (re.error, AttributeError) as error:
            own = error
        key, said = ("r", self.said.get("r")) if own is None else ("rank_pattern", own)
        if said not in (None, rank):
            raise CheckpointError(
                "The adapter's settings are not those of its weights.",
                where=f"{self.path}: {key}",
                found=f"{said!s:.80}; the matrices of {layer} have rank {rank}",
                hint="Take both files from one run of PEFT's save_pretrained.",
            )

    def _of(self, layer: str, patterns: str, common: Any) -> Any:
        """A layer's own value, by the first pattern that its name ends with, else that of all."""
        own = (self.said.get(patterns) or {}).items()
        matching = (value for name, value in own if re.fullmatch(rf"(.*\.)?({name})", layer))
        return next(matching, common)


def read_settings(folder: Path) -> Settings:
    """The settings of the adapter in a folder.

    Raises:
        SourceError: they are missing or damaged, or the adapter is more than a sum of products.
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
    rank, number = found.get("r"), isinstance(found.get("r"), int | float)
    if rank is not None and (isinstance(rank, bool) or not number or rank < 1 or rank % 1):
        raise SourceError(
            "The adapter has no rank.",
            where=f"{path}: r",
            found=f"{rank!r:.80}",
            available=["a whole number from 1 on"],
            hint="Name a folder that PEFT's save_pretrained wrote.",
        )
    return Settings(path, found)
