"""Bind the parameters of a model to the tensors of a checkpoint.

Names rarely agree letter for letter. The conventions of transformers are followed: the base model's
prefix may be on one side only, old files say ``gamma`` and ``beta``, tied weights are stored once,
and a pre-training checkpoint carries heads that the task does not have. Whatever is left is an
error that lists everything at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches

from lepton_compile.errors import CheckpointError
from lepton_compile.export.checkpoint import Checkpoint, Integers
from lepton_compile.export.checkpoint.names import summarize
from lepton_passes.tensors import StreamedTensor

__all__ = ["Binding", "bind", "prefixed", "stored_names"]

LEGACY = ((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias"))
# Buffers that old checkpoints store and models compute.
COMPUTED = (r"(^|\.)position_ids$", r"rotary_emb\.inv_freq$", r"\.masked_bias$", r"\.attn\.bias$")
NEAREST_LIMIT = 8


class Binding(dict[str, StreamedTensor]):
    """Tensors by parameter name.

    Attributes:
        unused: names of checkpoint tensors that belong to heads the task does not have.
        stored: the checkpoint's own name for each parameter (the source of a tied one).
        integers: that hold a parameter, where the checkpoint has it quantized.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unused: tuple[str, ...] = ()
        self.stored: dict[str, str] = {}
        self.integers: dict[str, Integers] = {}


def bind(
    parameters: Mapping[str, tuple[int, ...]],
    checkpoint: Checkpoint,
    *,
    tied: Mapping[str, str] | None = None,
    prefix: str = "",
    ignore: Iterable[str] = (),
    rename: Callable[[str], str] | None = None,
) -> Binding:
    """A tensor for each parameter, or one error with everything that does not fit.

    Args:
        parameters: names and shapes of the model built on the meta device (its state_dict).
        checkpoint: where the weights are.
        tied: parameter -> the parameter it shares its weight with, as transformers'
            ``all_tied_weights_keys``; used where the checkpoint stores one of the two.
        prefix: the model's ``base_model_prefix``.
        ignore: regular expressions. A parameter that matches may be missing (it is left out), a
            checkpoint tensor that matches may be unused.
        rename: checkpoint name -> current name, applied before the legacy renames.

    Raises:
        CheckpointError: parameters without a tensor, tensors without a parameter, other shapes.
    """
    names = _Names(checkpoint, prefix, rename)
    binding = Binding()
    optional, computed = _matcher(ignore), _matcher([*ignore, *COMPUTED])
    missing, shapes = [], []
    for parameter, shape in parameters.items():
        stored = names.find(parameter) or _tied(parameter, tied or {}, names)
        if stored is None:
            if not optional(parameter):
                missing.append(parameter)
            continue
        binding.stored[parameter] = stored
        info = checkpoint.names()[stored]
        if info.integers is not None:
            binding.integers[parameter] = info.integers
        found = info.shape
        if found != tuple(shape):
            shapes.append(f"{parameter}: the model has {_text(shape)}, the file {_text(found)}")
            continue
        binding[parameter] = checkpoint.tensor(stored)
    left = [name for name in names.unused(binding.stored.values()) if not computed(name)]
    # What belongs to a part the model does not have is another task's head.
    parts = {names.part(parameter) for parameter in parameters}
    extra = [name for name in left if names.part(name) in parts]
    if missing or extra or shapes:
        others = [name for name in left if name not in set(extra)]
        raise _mismatch(checkpoint, missing, extra, shapes, others)
    binding.unused = tuple(left)
    return binding


def stored_names(
    parameters: Iterable[str],
    checkpoint: Checkpoint,
    network: object,
    rename: Callable[[str], str] | None,
) -> dict[str, str]:
    """The checkpoint's own names of those parameters that it has."""
    names = _Names(checkpoint, getattr(network, "base_model_prefix", ""), rename)
    found = {parameter: names.find(parameter) for parameter in parameters}
    return {parameter: stored for parameter, stored in found.items() if stored is not None}


def prefixed(name: str, prefix: str) -> list[str]:
    """A name with the base model's prefix as it is, added and removed."""
    return [name, f"{prefix}.{name}", name.removeprefix(f"{prefix}.")] if prefix else [name]


class _Names:
    """The checkpoint's names under the conventions of the current model class."""

    def __init__(
        self, checkpoint: Checkpoint, prefix: str, rename: Callable[[str], str] | None
    ) -> None:
        self.prefix = prefix
        self.current: dict[str, str] = {}
        for stored in checkpoint.names():
            name = rename(stored) if rename else stored
            for old, new in LEGACY:
                name = re.sub(old, new, name)
            self.current[name] = stored

    def find(self, parameter: str) -> str | None:
        """The stored name, with the base model's prefix as it is, added or removed."""
        candidates = prefixed(parameter, self.prefix)
        return next((self.current[name] for name in candidates if name in self.current), None)

    def unused(self, used: Iterable[str]) -> list[str]:
        taken = set(used)
        return [name for name, stored in self.current.items() if stored not in taken]

    def part(self, name: str) -> str:
        """The module directly under the base model, or beside it, that a tensor is of."""
        return prefixed(name, self.prefix)[-1].partition(".")[0]


def _matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    compiled = [re.compile(pattern) for pattern in patterns]
    return lambda name: any(pattern.search(name) for pattern in compiled)


def _tied(parameter: str, tied: Mapping[str, str], names: _Names) -> str | None:
    """The stored name of a parameter that shares this one's weight."""
    partners = [b for a, b in tied.items() if a == parameter]
    partners += [a for a, b in tied.items() if b == parameter]
    return next((stored for p in partners if (stored := names.find(p)) is not None), None)


def _mismatch(
    checkpoint: Checkpoint,
    missing: list[str],
    extra: list[str],
    shapes: list[str],
    others: list[str],
) -> CheckpointError:
    """``others`` are of parts that the model does not have, or of a part that is misspelt."""
    lines = []
    if missing:
        lines.append(f"{len(missing)} missing: {', '.join(summarize(missing))}")
    if extra:
        lines.append(f"{len(extra)} unexpected: {', '.join(summarize(extra))}")
    lines += [f"shape of {line}" for line in shapes]
    if missing and others:
        lines.append(f"{len(others)} not used: {', '.join(summarize(others))}")
    nearest = [_nearest(name, [*extra, *others]) for name in missing[:NEAREST_LIMIT]]
    hint = "The configuration and the weights are of different models or versions."
    if missing and not extra and not shapes:
        hint = "The checkpoint may be of the same model for another task; check `task`."
    return CheckpointError(
        "The checkpoint does not fit the model.",
        where=", ".join(str(file) for file in checkpoint.files()[:3]),
        found="; ".join(lines),
        available=[text for text in nearest if text],
        hint=hint,
    )


def _nearest(name: str, choices: list[str]) -> str | None:
    matches = get_close_matches(name, choices, n=1, cutoff=0.7)
    return f"{matches[0]} (for {name})" if matches else None


def _text(shape: Iterable[int]) -> str:
    return "x".join(str(extent) for extent in shape) or "a scalar"
