"""Which tokens a model begins, ends and fills texts with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lepton_compile.errors import SourceError
from lepton_compile.export.encoder_decoder import sound_shape
from lepton_compile.export.source import Source
from lepton_compile.export.source.objects import read_object

__all__ = ["FILTERS", "answers", "generation", "speech", "write_filters"]

FILTERS = "mel_filters.npy"
RULES = {"apart": "no_repeat_ngram_size", "least": "min_length"}
LARGEST = 1 << 16
"""Of a number of samples or bands: more is no sound of speech."""


def generation(source: Source) -> dict[str, Any]:
    """``eos`` (list), ``bos`` and ``pad`` (ids or None) and ``vocabulary`` (count) of a decoder.

    Where the model was released with any: ``never`` and ``rules``, as in ``answers``; what a
    decoder has before it ends counts its prompt.

    Raises:
        SourceError: an id, or a number of tokens, is something else than a whole number.
    """
    said = _Said(source)
    bos, pad = (said.one(f"{name}_token_id") for name in ("bos", "pad"))
    never = said.never()
    return {
        "eos": said.ids("eos_token_id"),
        "bos": bos,
        "pad": pad,
        "vocabulary": said.vocabulary,
        **({"never": never} if never else {}),
        **said.rules(),
    }


def answers(source: Source) -> dict[str, Any]:
    """What an encoder-decoder writes, in the same terms.

    ``start`` are the tokens that every answer begins with: one that stands for the beginning, then
    what the model was released to go on with, such as a language. ``never`` are those that no
    answer has: what scores they get means nothing (padding, of Marian). ``rules``, where the model
    was released with any: ``apart``, that no so many tokens follow each other twice, and ``least``,
    how many an answer has before it ends, its beginning included.

    Raises:
        SourceError: an id is something else than a whole number, or there is none to begin with.
    """
    said = _Said(source)
    names = ("decoder_start_token_id", "bos_token_id")
    first = next((found for name in names if (found := said.one(name)) is not None), None)
    if first is None:
        raise SourceError(
            "Nothing says which token an answer begins with.",
            where=str(source.path),
            found="no decoder_start_token_id, and no bos_token_id",
            hint="Write decoder_start_token_id into config.json, as the model was released with.",
        )
    forced = said.one("forced_bos_token_id")
    start = [first] if forced is None else [first, forced]
    return {"start": start, "never": said.never(), **said.rules()}


def speech(source: Source) -> dict[str, Any]:
    """What a model that hears takes and writes, beside ``answers``.

    ``first`` are tokens that nothing begins with, ``languages`` and ``tasks`` those by name that
    stand behind ``start``, ``plain`` what follows them: that there are no times, or else those of
    ``times``: ``first`` is the token of none, each further one is ``step`` samples later, and an
    answer begins with one up to ``latest`` (None for any). ``sound`` says what it hears: ``rate``
    samples a second, ``samples`` of a window, powers of frequencies of ``window`` samples each
    ``hop`` samples, in the bands of the file ``filters``.

    Raises:
        SourceError: preprocessor_config.json asks for something else, or is not there.
    """
    said, maker = _Said(source), _extractor(source)
    names = {name.strip("<|>"): token for name, token in said.named("lang_to_id").items()}
    plain, hop = said.one("no_timestamps_token_id"), maker.hop_length
    return {
        "first": said.ids("begin_suppress_tokens"),
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


def _times(said: _Said, plain: int | None, hop: int) -> dict[str, int | None] | None:
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


class _Said:
    """What the model's files say of tokens.

    generation_config.json goes before config.json: it is what the model was released to use. Ids
    that the model has no token for are left out: no loader takes a manifest that has them.
    """

    def __init__(self, source: Source) -> None:
        self._source, self._config = source, source.config().get_text_config()
        self._file = source.path / "generation_config.json"
        self.vocabulary = int(self._config.vocab_size)

    @cached_property
    def _given(self) -> dict[str, Any]:
        return read_object(self._file) if self._source.kind == "folder" else {}

    def one(self, name: str) -> int | None:
        """The id of that name."""
        found = self._ids(name, many=False)
        return found[0] if found else None

    def ids(self, name: str) -> list[int]:
        """All ids of that name."""
        return self._ids(name, many=True)

    def count(self, name: str) -> int:
        """The number of that name; 0 where there is none."""
        value, here = self._value(name)
        if value is not None and (type(value) is not int or not 0 <= value <= LARGEST):
            raise SourceError(
                f"{name} is no number of tokens.",
                where=str(self._file if here else self._source.path),
                found=f"{value!r:.60}",
                available=[f"a whole number from 0 to {LARGEST:,}, or null"],
            )
        return value or 0

    def named(self, name: str) -> dict[str, int]:
        """Ids by name."""
        found, _ = self._value(name)
        items = found.items() if isinstance(found, dict) else ()
        return {str(k): v for k, v in items if type(v) is int and self._known([v])}

    def never(self) -> list[int]:
        """Tokens that are never written. A bad word that ends texts may: so transformers has it."""
        bad = {*self._bad_words()} - {*self.ids("eos_token_id")}
        return sorted({*self.ids("suppress_tokens"), *bad})

    def rules(self) -> dict[str, dict[str, int]]:
        """``rules``, where there are any."""
        found = {name: count for name, key in RULES.items() if (count := self.count(key))}
        return {"rules": found} if found else {}

    def _bad_words(self) -> Iterator[int]:
        words, _ = self._value("bad_words_ids")
        for word in words if isinstance(words, list) else ():
            if isinstance(word, list) and len(word) == 1 and type(word[0]) is int:
                yield from self._known(word)

    def _value(self, name: str) -> tuple[Any, bool]:
        """The value, and whether generation_config.json has it."""
        here = self._given.get(name) is not None
        return self._given[name] if here else getattr(self._config, name, None), here

    def _ids(self, name: str, *, many: bool) -> list[int]:
        value, here = self._value(name)
        ids = [] if value is None else value if isinstance(value, list | tuple) else [value]
        if any(type(each) is not int for each in ids) or (len(ids) > 1 and not many):
            raise SourceError(
                f"{name} is no number of a token.",
                where=str(self._file if here else self._source.path),
                found=f"{value!r:.60}",
                available=["a whole number, or null", *["a list of them"] * many],
            )
        return self._known(ids)

    def _known(self, ids: Sequence[int]) -> list[int]:
        return [each for each in ids if 0 <= each < self.vocabulary]  # -1 is how some say none
