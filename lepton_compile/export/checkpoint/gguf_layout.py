"""What tensors of a GGUF file are called in the model.

Hugging Face name = the table's text for the GGUF name, with ``blk.N`` as ``model.layers.N``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from lepton_compile.errors import CheckpointError
from lepton_compile.export.checkpoint.gguf_architectures import ARCHITECTURES, Layout
from lepton_compile.export.checkpoint.names import summarize

__all__ = ["hugging_face_names", "kind_of"]

# Rotary frequencies: part of the configuration in Hugging Face's convention, not weights.
CONFIGURATION = re.compile(r"^(rope_freqs|rope_factors_(long|short))\.weight$")


def hugging_face_names(
    architecture: str, names: Iterable[str], path: Path
) -> dict[str, tuple[str, ...]]:
    """Hugging Face name -> the GGUF names of what it is stored as: one, or two that are a pair.

    What is configuration is left out.

    Raises:
        CheckpointError: the architecture is not known here, or tensors are not: all of them.
    """
    layout = ARCHITECTURES.get(architecture)
    if layout is None:
        raise CheckpointError(
            "This GGUF architecture cannot be compiled.",
            where=str(path),
            found=architecture or "none",
            available=sorted(ARCHITECTURES),
            hint="Give the Hugging Face folder of the model instead.",
        )
    weights = [name for name in names if not CONFIGURATION.match(name)]
    whole: dict[str, dict[int | None, str]] = {}
    odd = set()
    for name in weights:
        known, half = _known(layout, name)
        if known is None or half in whole.get(known, {}):
            odd.add(name)
        else:
            whole.setdefault(known, {})[half] = name
    for parts in whole.values():
        if set(parts) not in ({None}, {0, 1}):  # half of a pair
            odd.update(parts.values())
    unknown = [name for name in weights if name in odd]
    if unknown:
        raise CheckpointError(
            f"The GGUF file holds tensors that {architecture} does not have.",
            where=str(path),
            found=f"{len(unknown)} unknown: {', '.join(summarize(unknown))}",
            hint="Give the Hugging Face folder of the model instead.",
        )
    return {
        known: tuple(parts[half] for half in sorted(parts, key=bool))
        for known, parts in whole.items()
    }


def kind_of(name: str) -> str:
    """``blk.3.attn_q.weight`` as attn_q."""
    return _split(name)[1]


def _known(layout: Layout, name: str) -> tuple[str | None, int | None]:
    """The model's name of a tensor; and which half of it this is, where it is one of a pair."""
    block, kind, suffix = _split(name)
    table = layout.outer if block is None else layout.layer
    known, half = table.get(f"{kind}.{suffix}"), None
    for paired, parts in layout.pairs.items():
        if block is not None and f"{kind}.{suffix}" in parts:
            known, half = paired, parts.index(f"{kind}.{suffix}")
    if known is None and kind in table and suffix in ("weight", "bias"):
        known = f"{table[kind]}.{suffix}"
    if known is not None and block is not None:
        known = f"{layout.layers}.{block}.{known}"
    return known, half


def _split(name: str) -> tuple[int | None, str, str]:
    """``blk.3.attn_q.weight`` as 3, attn_q, weight."""
    stem, _, suffix = name.rpartition(".")
    match = re.fullmatch(r"blk\.(\d+)\.([\w.]+)", stem)
    if match is None:
        return None, stem, suffix
    return int(match[1]), match[2], suffix
