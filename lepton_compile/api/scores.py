"""Scores of words: how many a model gives, and how many are held while it is compared."""

from __future__ import annotations

from math import prod

from lepton_compile.export import ExportedModel, Source
from lepton_compile.export.encoder_decoder import PAIRS
from lepton_compile.export.image_text import IMAGE_TEXT
from lepton_compile.numerics.pictured_sample import sample_grid
from lepton_compile.numerics.sample_text import BATCH, SEGMENT
from lepton_compile.numerics.verify_pair import ANSWER

__all__ = ["behind_layers", "vocabulary", "words"]


def vocabulary(source: Source, task: str) -> int:
    """Scores that a decoder gives for each position; 0 for an encoder."""
    return _table(source) if task == "text-generation" else 0


def behind_layers(source: Source, task: str) -> int:
    """Numbers that are held beside a decoder's engine while it is compared: the weights that make
    scores, and the scores of both for a segment; 0 for an encoder."""
    width = int(getattr(source.config().get_text_config(), "hidden_size", 0))
    return vocabulary(source, task) * (width + 2 * SEGMENT)


def _table(source: Source) -> int:
    """Words of the model's table."""
    return int(source.config().get_text_config().vocab_size)


def words(source: Source, exported: ExportedModel) -> int:
    """Scores of words that are held while an encoder's batch is compared: those of PyTorch, of
    the engine and of the comparison; or, where they are pooled, those of one model at a time."""
    if exported.task in PAIRS:
        return 4 * ANSWER * _table(source)
    if exported.task == IMAGE_TEXT:
        seen = exported.picture_tokens or prod(sample_grid(exported.length))
        return 4 * min(SEGMENT + seen, exported.length) * _table(source)
    times = {"fill-mask": 4, "sparse-embedding": 2}.get(exported.task, 0)
    if not times:
        return 0
    tokens = BATCH * min(SEGMENT, exported.length)
    return times * tokens * _table(source)
