"""Models that see: pictures of one size in, scores or vectors out.

Height and width are fixed to what the model is fed with, so that what it makes of them (positions,
windows) is settled when it is traced; the number of pictures is open.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from lepton_compile.errors import ExportError

from .tasks import Pooling, TaskModule, unit

__all__ = [
    "IMAGE_EMBEDDING",
    "VisionModule",
    "image_output",
    "interpolation",
]

IMAGE_EMBEDDING = "image_embedding"
# What transformers calls a picture's one vector, the best first: in the space that texts share, and
# what the model's own pooling gives.
OWN = ("image_embeds", "pooler_output")
POOLED: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda hidden: hidden.mean(1),
    "cls": lambda hidden: hidden[:, 0],
    "max": lambda hidden: hidden.amax(1),
}


def image_output(found: Any, name: str) -> Tensor:
    """An output of a model of transformers; what it pools is one row for each picture."""
    value: Tensor = found[name]
    return value.flatten(1) if name in OWN else value


class VisionModule(TaskModule):
    """Pictures of one size; no mask, no cache.

    Args:
        shape: channels, height and width of a picture.
    """

    def __init__(
        self, network: nn.Module, task: str, pooling: Pooling | None, shape: tuple[int, int, int]
    ) -> None:
        super().__init__(network)
        self.input_names = ["pixel_values"]
        self.input_dims = [("batch", *shape)]
        self.input_dtypes = {"pixel_values": torch.float32}
        self.pooling = pooling
        self.options = interpolation(network, shape)
        self.output_names = ["logits"]
        if task == "image-feature-extraction":
            self.output_names = self._features()

    def _features(self) -> list[str]:
        """Names of what the model gives, by a run on tensors without data, of a copy: some models
        keep what they compute once."""
        pixels, network = self.example({"batch": 2})[0], deepcopy(self.network)
        with torch.no_grad():
            try:
                found = network(pixel_values=pixels, **self.options)
            except Exception:  # whatever it is, the trace comes upon it and says so
                return ["last_hidden_state"]
        if "last_hidden_state" not in found:
            raise ExportError(
                "the model gives no features under a name that is known",
                found=", ".join(found),
                available=["last_hidden_state"],
            )
        self.own = next((name for name in OWN if found.get(name) is not None), "")
        pooling, axes = self.pooling, found["last_hidden_state"].ndim - 1
        if pooling is None or not (self.own or pooling.normalize or pooling.kind != "own"):
            return ["last_hidden_state"]
        if pooling.kind == "own" and not self.own:
            raise ExportError(
                "the model has no image embedding that could be normalized",
                where="normalize",
                found=type(self.network).__name__,
                available=[f"pooling: {kind}" for kind in POOLED],
            )
        if pooling.kind != "own" and axes != 2:
            raise ExportError(
                "the model gives a map of features, not tokens to be pooled",
                where="pooling",
                found=f"{pooling.kind}, and {axes} axes of an image",
                available=["auto", "none"],
            )
        as_it_is = pooling.kind == "own" and not pooling.normalize
        return ["last_hidden_state", self.own if as_it_is else IMAGE_EMBEDDING]

    def forward(self, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        found = self.network(pixel_values=inputs[0], **self.options)
        return [
            self._embedding(found) if name == IMAGE_EMBEDDING else image_output(found, name)
            for name in self.output_names
        ]

    def _embedding(self, found: Any) -> Tensor:
        assert self.pooling is not None
        if self.pooling.kind == "own":
            pooled = image_output(found, self.own)
        else:
            pooled = POOLED[self.pooling.kind](found["last_hidden_state"])
        return unit(pooled) if self.pooling.normalize else pooled


def interpolation(network: nn.Module, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Positions are interpolated where pictures have another size than the model was made for."""
    size = getattr(network.config, "image_size", None)
    sizes = tuple(size) if isinstance(size, list | tuple) else (size, size)
    takes = "interpolate_pos_encoding" in inspect.signature(network.forward).parameters
    return {"interpolate_pos_encoding": True} if takes and sizes != shape[1:] else {}
