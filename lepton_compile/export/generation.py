"""Which tokens a model begins, ends and fills texts with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lepton_compile.errors import SourceError
from lepton_compile.export.encoder_decoder import sound_shape
from lepton_compile.export.generation_rules import never, rules
from lepton_compile.export.generation_said import LARGEST, Said
from lepton_compile.export.source import Source
from lepton_compile.export.source.objects import read_object

__all__ = ["FILTERS", "answers", "generation", "speech", "write_filters"]

FILTERS = "mel_filters.npy"


def generation(source: Source, task: str = "text-generation") -> dict[str, Any]:
    """``eos`` (list), ``bos`` and ``pad`` (ids or None) and ``vocabulary`` (count) of a decoder.

    Where the model was released with any: ``never``, ``first`` (tokens that nothing new begins
    with) and ``rules``.

    Raises:
        SourceError: an id, or a number of tokens, is something else than a whole number.
    """
    said = Said(source)
    bos, pad = (said.one(f"{name}_token_id") for name in ("bos", "pad"))
    return {
        "eos": said.ids("eos_token_id"),
        "bos": bos,
        "pad": pad,
        "vocabulary": said.vocabulary,
        **({"never": found} if (found := never(said)) else {}),
        **({"first": found} if (found := said.rule_ids("begin_suppress_tokens")) else {}),
        **rules(said, task),
    }


def answers(source: Source) -> dict[str, Any]:
    """What an encoder-decoder writes, in the same terms.

    ``start`` are the tokens that every answer begins with: one that stands for the beginning, then
    what the model was released to go on with, such as a language. ``never`` are those that no
    answer has: what scores they get means nothing (padding, of Marian).

    Raises:
        SourceError: an id is something else than a whole number, there is none to begin with, or
            what answers begin with ends them.
    """
    said = Said(source)
    names = ("decoder_start_token_id", "bos_token_id")
    first = next((found for name in names if (found := said.one(name)) is not None), None)
    if first is None:
        raise SourceError(
            "Nothing says which token an answer begins with.",
            where=str(source.path),
            found="no decoder_start_token_id, and no bos_token_id",
            hint="Write decoder_start_token_id into config.json, as the model was released with.",
        )
    forced = said.rule_ids("forced_bos_token_id", many=False)
    if {*forced} & {*said.ids("eos_token_id")}:
        raise SourceError(
            "Each answer ends with the token that it is forced to begin with: transformers writes "
            "nothing.",
            where=str(source.path),
            found=f"forced_bos_token_id {forced[0]}, which is an eos_token_id, too",
            hint="Write null, or the token that is meant, as forced_bos_token_id into "
            "generation_config.json.",
        )
    return {"start": [first, *forced], "never": never(said)}


def speech(source: Source) -> dict[str, Any]:
    """What a model that hears takes and writes, beside ``answers``.

    ``languages`` and ``tasks`` are tokens by name that stand behind ``start``, ``plain`` what
    follows them: that there are no times, or else those of ``times``: ``first`` is the token of
    none, each further one is ``step`` samples later, and an answer begins with one up to ``latest``
    (None for any). ``sound`` says what it hears: ``rate`` samples a second, ``samples`` of a
    window, powers of frequencies of ``window`` samples each ``hop`` samples, in the bands of the
    file ``filters``.

    Raises:
        SourceError: preprocessor_config.json asks for something else, or is not there.
    """
    said, maker = Said(source), _extractor(source)
    names = {name.strip("<|>"): token for name, token in said.named("lang_to_id").items()}
    plain, hop = said.one("no_timestamps_token_id"), maker.hop_length
    return {
        "languages": names,
        "tasks": said.named("task_to_id"),
        "plain": [] if plain is None else [plain],
        "times": _times(said, plain, hop),
        "sound": {
            "rate": maker.sampling_rate,
            "window": maker.n_fft,
            "hop": hop,
            "samples": maker.n_samples,
            "filters": FILTERS,
        },
    }


def _times(said: Said, plain: int | None, hop: int) -> dict[str, int | None] | None:
    """The tokens for times, which follow that for none."""
    if plain is None or plain + 1 >= said.vocabulary:
        return None
    latest = said.count("max_initial_timestamp_index") or None
    # The encoder halves how many frames there are.
    return {"first": plain + 1, "step": 2 * hop, "latest": latest}


def write_filters(source: Source, folder: Path) -> None:
    """The shares of frequencies in the bands that a model hears, (frequencies, bands) float32."""
    np.save(folder / FILTERS, _extractor(source).mel_filters.astype(np.float32))


def _extractor(source: Source) -> Any:
    """transformers' own, of the model's file."""
    from transformers import WhisperFeatureExtractor

    file, config = source.path / "preprocessor_config.json", source.config()
    told = read_object(file) if source.kind == "folder" else {}
    wrong = f"The sound that the model hears is not told by {file.name}."
    if not told:
        hint = "Copy the file from where the model was released."
        raise SourceError(wrong, where=str(file), found="no such file", hint=hint)
    for name in ("feature_size", "sampling_rate", "hop_length", "chunk_length", "n_fft"):
        value = told.get(name, 1)
        if type(value) is not int or not 1 <= value <= LARGEST:
            raise SourceError(
                wrong,
                where=str(file),
                found=f"{name}: {value!r:.60}",
                available=[f"a whole number from 1 to {LARGEST:,}"],
            )
    try:
        made = WhisperFeatureExtractor(**told)
    except Exception as error:  # whatever the library makes of odd values
        raise SourceError(
            wrong, where=str(file), found=f"{type(error).__name__}: {error}"
        ) from error
    found = (made.feature_size, made.n_samples // made.hop_length)
    if found != sound_shape(config) or made.dither or told.get("do_normalize"):
        bands, frames = sound_shape(config)
        raise SourceError(
            wrong,
            where=str(file),
            found=f"{found[0]} bands and {found[1]} frames, dither {made.dither}",
            available=[f"{bands} bands and {frames} frames, as config.json has it"],
            hint="Compare both files with those that the model was released with.",
        )
    return made
