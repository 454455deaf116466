"""What each task takes and gives: the traced module, the names at its edges.

A traced module takes one tuple of tensors, as ``trace.trace`` calls it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lepton_compile.errors import ExportError
from lepton_passes.tensors import StreamedTensor

from . import ops  # noqa: F401  # defines torch.ops.lepton
from .capture import LeptonCache
from .capture.picked import last_row
from .dense import EMBEDDING, TOKENS, Dense
from .meta import modules_of
from .task_names import AUTO_CLASSES
from .text_tower import own_vector, reads_padding, tower_of

__all__ = [
    "CacheUse",
    "DecoderModule",
    "EncoderModule",
    "Pooling",
    "TaskModule",
    "cache_name",
    "keeping",
    "task_module",
    "unit",
]

CacheUse = Literal["captured", "own", "none"]

_CACHES = ("cache", "cache_params", "past_key_values")

_OUTPUTS = {
    "feature-extraction": ("last_hidden_state",),
    "fill-mask": ("logits",),
    "multi-vector-embedding": ("last_hidden_state",),
    "question-answering": ("start_logits", "end_logits"),
    "sparse-embedding": (),
    "text-classification": ("logits",),
    "token-classification": ("logits",),
}


@dataclass(frozen=True)
class Pooling:
    """Sentence embedding inside the graph: ``kind`` is mean, cls, max or lasttoken, or ``own``,
    what the model makes of a text itself (CLIP); then come ``dense`` layers, and the length becomes
    1 where ``normalize`` says so.

    That of kind ``tokens`` keeps all of them: late interaction (ColBERT).

    A sparse one (SPLADE) is the max or sum, over the tokens of a text, of scores of words: those
    above 0, of which log(1 + x) is taken as often as ``logarithms`` says."""

    kind: str
    normalize: bool
    dense: tuple[Dense, ...] = ()
    logarithms: int = 0

    @property
    def output(self) -> str:
        """Its name in the graph."""
        return TOKENS if self.kind == "tokens" else EMBEDDING

    def weights(self) -> dict[str, StreamedTensor]:
        """Those of the dense layers, by their names in an ``EncoderModule``."""
        found: dict[str, StreamedTensor] = {}
        for index, each in enumerate(self.dense):
            for name, tensor in each.tensors().items():
                # In its file each has the same; equal names are equal bytes to whoever writes them.
                tensor.name = f"sentence_dense.{index}.{name}"
                found[tensor.name] = tensor
        return found


class TaskModule(nn.Module):
    """A model with the inputs and outputs of its task.

    ``input_names``, ``input_dims`` and ``output_names`` describe the tuple that ``forward`` takes
    and the list it returns; a dimension is named where it is open, and its number where it is not.
    ``input_dtypes`` has the inputs that are no int64, ``looked_at`` those that must be looked at.
    The model itself is ``network``.
    """

    input_names: list[str]
    input_dims: list[tuple[str | int, ...]]
    output_names: list[str]
    looked_at: tuple[str, ...] = ()

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.input_dtypes: dict[str, torch.dtype] = {}

    def dtype_of(self, name: str) -> torch.dtype:
        """The type of an input."""
        return self.input_dtypes.get(name, torch.int64)

    def open_dims(self) -> list[tuple[str | None, ...]]:
        """For each input the name of each open dimension, None where its size is fixed."""
        return [tuple(d if isinstance(d, str) else None for d in dims) for dims in self.input_dims]

    def example(self, sizes: dict[str, int]) -> list[Tensor]:
        """Meta tensors of the right rank and type for tracing."""
        return [
            torch.zeros(
                [sizes[d] if isinstance(d, str) else d for d in dims],
                dtype=self.dtype_of(name),
                device="meta",
            )
            for name, dims in zip(self.input_names, self.input_dims, strict=True)
        ]


class EncoderModule(TaskModule):
    """Every position at once, no cache."""

    def __init__(self, network: nn.Module, task: str, pooling: Pooling | None) -> None:
        super().__init__(network)
        self.pooling = pooling
        with torch.device("meta"):
            self.sentence_dense = nn.Sequential(
                *(each.module() for each in (pooling.dense if pooling is not None else ()))
            )
        accepted = inspect.signature(network.forward).parameters
        # A decoder would make a cache of its own for each call; some heads pass the word on.
        self.options = {"use_cache": False} if _may_cache(network) else {}
        self.input_names = ["input_ids"]
        if not reads_padding(network.config):
            self.input_names.append("attention_mask")
        if "token_type_ids" in accepted and _has_types(network):
            self.input_names.append("token_type_ids")
        self.input_dims = [("batch", "sequence")] * len(self.input_names)
        self.output_names = list(_OUTPUTS[task])
        if pooling is not None:
            self.output_names.append(pooling.output)

    def forward(self, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        named = dict(zip(self.input_names, inputs, strict=True))
        found = self.network(**named, **self.options)
        pooled = self.pooling.output if self.pooling is not None else None
        outputs = [found[name] for name in self.output_names if name != pooled]
        if self.pooling is not None and self.pooling.kind == "own":
            vectors = own_vector(found)
            outputs.append(unit(vectors) if self.pooling.normalize else vectors)
        elif self.pooling is not None and self.pooling.logarithms:
            outputs.append(_words(found["logits"], named["attention_mask"], self.pooling))
        elif self.pooling is not None:
            outputs.append(self._embedding(outputs[0], named["attention_mask"], self.pooling))
        return outputs

    def _embedding(self, hidden: Tensor, attention_mask: Tensor, pooling: Pooling) -> Tensor:
        pooled: Tensor = self.sentence_dense(_POOLINGS[pooling.kind](hidden, attention_mask))
        return unit(pooled) if pooling.normalize else pooled


class DecoderModule(TaskModule):
    """Text generation, with a cache where ``cache`` says who reads it: captured attention, or the
    model's own. Positions come from the mask, or are an input where ``positions`` says so."""

    def __init__(self, network: nn.Module, cache: CacheUse, positions: bool) -> None:
        super().__init__(network)
        self.cache, self.positions = cache, positions
        total = "sequence" if cache == "none" else "total_sequence"
        self.input_names = ["input_ids", "attention_mask", "logits_to_keep"]
        self.input_dims = [("batch", "sequence"), ("batch", total), ()]
        self.output_names = ["logits"]
        self.takes_positions = "position_ids" in inspect.signature(network.forward).parameters
        self.takes_cache = cache_name(network)
        self.first_position = _first_position(network)
        if positions:
            self._check_positions()
            self.input_names.append("position_ids")
            self.input_dims.append(("batch", "sequence"))

    def _check_positions(self) -> None:
        if not self.takes_positions:
            raise ExportError(
                "the model takes no positions",
                where="position_ids",
                found=type(self.network).__name__,
                hint="leave position_ids out: the model knows its positions from the mask",
            )
        if self.first_position:
            raise ExportError(
                "the model counts its positions from behind that of padding",
                where="position_ids",
                found=f"{type(self.network).__name__}, from {self.first_position} on",
                hint="leave position_ids out: the model knows its positions from the mask",
            )

    def forward(self, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        input_ids, attention_mask, keep, *given = inputs
        arguments: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        if given:
            arguments["position_ids"] = given[0]
        elif self.takes_positions:
            places = torch.ops.lepton.positions(attention_mask, input_ids)
            first = self.first_position
            arguments["position_ids"] = places + first if first else places
        if self.cache != "none":
            arguments[self.takes_cache] = LeptonCache(
                attention_mask.shape[1], input_ids.shape[1], own=self.cache == "own"
            )
        with keeping(self.network, keep):
            found = self.network(**arguments, use_cache=self.cache != "none")
        return [found["logits"].to(torch.float32)]


def cache_name(network: nn.Module) -> str:
    """What a model calls the cache that it takes and gives: ``cache`` from transformers 5.24 on,
    ``past_key_values`` before, ``cache_params`` where it had no attention."""
    takes = inspect.signature(network.forward).parameters
    return next((name for name in _CACHES if name in takes), _CACHES[-1])


@contextmanager
def keeping(network: nn.Module, keep: Tensor) -> Iterator[None]:
    """Have the head of a decoder score the last ``keep`` positions alone."""
    head = network.get_output_embeddings()  # type: ignore[operator]
    hook = head.register_forward_pre_hook(
        lambda _, args: (torch.ops.lepton.keep_last(args[0], keep), *args[1:])
    )
    try:
        yield
    finally:
        hook.remove()


def task_module(
    network: nn.Module,
    task: str,
    *,
    pooling: Pooling | None,
    cache: CacheUse,
    positions: bool,
) -> TaskModule:
    """The module to trace for a task; ``cache`` and ``positions`` are for decoders.

    Raises:
        ExportError: the task or the pooling is not one this version compiles.
    """
    kinds = _KINDS.get(task, ("none", *_POOLINGS))
    if tower_of(network.config) is not None:
        kinds = ("none", "own") if reads_padding(network.config) else (*kinds, "own")
    if (pooling.kind if pooling is not None else "none") not in kinds:
        raise ExportError(
            "this pooling is not supported",
            where="pooling",
            found=pooling.kind if pooling is not None else "none",
            available=["auto" if kind == "own" else kind for kind in kinds],
        )
    if task == "text-generation":
        return DecoderModule(network, cache, positions)
    if task in ("text2text-generation", "automatic-speech-recognition") and not positions:
        from .encoder_decoder import EncoderDecoderModule

        return EncoderDecoderModule(network, cache, task)
    if positions:
        raise ExportError(
            "positions are an input of decoders alone",
            where="position_ids",
            found=task,
            available=["text-generation"],
        )
    if task not in _OUTPUTS:
        raise ExportError("this task is not supported", found=task, available=sorted(AUTO_CLASSES))
    return EncoderModule(network, task, pooling)


def unit(vectors: Tensor) -> Tensor:
    """Vectors of length 1."""
    return vectors / (vectors * vectors).sum(-1, keepdim=True).sqrt().clamp(min=1e-12)


def _first_position(network: nn.Module) -> int:
    """Where a model's own positions begin: RoBERTa and its kin count from behind padding's."""
    places = (
        getattr(module, "padding_idx", None)
        for _, module in modules_of(network)
        if hasattr(module, "create_position_ids_from_input_ids")
    )
    return next((int(place) + 1 for place in places if isinstance(place, int)), 0)


def _may_cache(network: nn.Module) -> bool:
    own = inspect.signature(network.forward).parameters
    base = getattr(network, "base_model", network)
    passes_on = any(each.kind is each.VAR_KEYWORD for each in own.values())
    return "use_cache" in own or (
        passes_on and "use_cache" in inspect.signature(base.forward).parameters
    )


def _has_types(network: nn.Module) -> bool:
    """RoBERTa accepts token types and has a table of one: nothing to choose."""
    return int(getattr(network.config, "type_vocab_size", 0) or 0) > 1


def _mean(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)


def _max(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    return hidden.masked_fill(attention_mask.unsqueeze(-1) == 0, -1e9).amax(1)


def _words(scores: Tensor, attention_mask: Tensor, pooling: Pooling) -> Tensor:
    """(batch, vocabulary) of (batch, sequence, vocabulary). Padding scores 0, which is nothing."""
    seen = scores * attention_mask.unsqueeze(-1).to(scores.dtype)
    if pooling.kind == "max":  # Logarithms do not change which is the largest.
        return _logarithms(seen.amax(1).relu(), pooling.logarithms)
    return _logarithms(seen.relu(), pooling.logarithms).sum(1)


def _logarithms(x: Tensor, times: int) -> Tensor:
    for _ in range(times):
        x = torch.log(1 + x)
    return x


_KINDS = {"sparse-embedding": ("max", "sum"), "multi-vector-embedding": ("tokens",)}

_POOLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": _mean,
    "cls": lambda hidden, _: hidden[:, 0],
    "max": _max,
    "lasttoken": last_row,  # on whichever side the row is padded
    "tokens": lambda hidden, _: hidden,  # dense layers and lengths are of their last axis
}
