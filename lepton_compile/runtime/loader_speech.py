"""What is said in a sound, written down.

Sound is cut into windows, each of which the model hears by itself: where one would be too long,
at the quietest place of its last seconds. What it hears of a window are the powers of bands of
frequencies, on a logarithmic scale (Radford et al., 2022, arXiv:2212.04356, section 2.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, overload

import numpy as np

from lepton_compile.runtime.loader_continue import Continues, Generation
from lepton_compile.runtime.loader_guard import check_digests, check_form, failing, refuse
from lepton_compile.runtime.loader_ruled import NO_TOKENS
from lepton_compile.runtime.loader_sampling import Sampling
from lepton_compile.runtime.loader_source import SOUND, Begun

__all__ = ["Transcribes", "Transcript", "Window", "check_sound", "tell_languages"]

TOGETHER = 8  # Windows that are heard at a time.
SEARCHED, QUIET = 5.0, 0.1  # Seconds in which a cut is looked for, and in which it is quiet.


HEARD = {"rate": int, "window": int, "hop": int, "samples": int, "filters": str}
TIMES = {"first": int, "step": int, "latest?": int}
NAMES = {"languages?": {"*": int}, "tasks?": {"*": int}}
SPEECH = {"sound": HEARD, "plain?": [int], "times?": TIMES, **NAMES}


def check_sound(manifest: dict[str, Any]) -> None:
    """Refuse a manifest that does not say what is heard, and what is written of it."""
    check_form(manifest, {"generation": SPEECH}, "manifest")
    told, most = manifest["generation"], manifest["generation"]["vocabulary"]
    sound, languages, tasks = told["sound"], told["languages"] or {}, told["tasks"] or {}
    bad = sound["filters"] not in manifest["files"]
    refuse(bad, f"manifest.json uses {sound['filters']} without giving its digest")
    times = [told["times"]["first"]] if told["times"] else []
    tokens = [*(told["plain"] or ()), *languages.values(), *tasks.values(), *times]
    refuse(max(tokens, default=0) >= most, NO_TOKENS)
    takes = {value["name"]: value["shape"] for value in manifest["inputs"]}
    bad = sound["hop"] < 1 or not 1 < sound["window"] < sound["samples"]
    bad = bad or [sound["samples"] // sound["hop"]] != takes.get(SOUND, [])[-1:]
    bad = bad or (bool(languages) and not {"transcribe", "translate"} <= {*tasks})
    refuse(bad, "manifest.json is damaged: manifest.generation does not say what is heard")


class Window(Generation):
    """What is said in a window of sound; ``first`` is the one that its language is taken from."""

    ids: Begun
    begins = 0
    samples: np.ndarray | None = None
    first: Window | None = None
    asked = False


class Transcript:
    """What was said: ``text``, its ``tokens``, the ``language`` (None of a model of one), and the
    ``segments`` (start and end in seconds, text) where times are asked for."""

    def __init__(self, windows: list[Window], language: str | None, segments: Any = None) -> None:
        self.tokens = [token for window in windows for token in window.tokens]
        self.segments = segments
        said = [one.text for one in (windows if segments is None else segments)]
        self.text = None if None in said else " ".join(filter(None, map(str.strip, map(str, said))))
        self.language = language


if TYPE_CHECKING:  # so that it knows what a call gives; an artifact's own file does without

    class Asked(TypedDict, total=False):
        """What ``transcribe`` takes by name alone."""

        translate: bool
        timestamps: bool
        max_new_tokens: int | None
        temperature: float
        seed: int | None


class Transcribes(Continues):
    """A model that writes down what it hears."""

    if TYPE_CHECKING:

        @overload
        def transcribe(
            self,
            audio: str | PathLike[str] | np.ndarray,
            language: str | None = None,
            **asked: Unpack[Asked],
        ) -> Transcript: ...

        @overload
        def transcribe(
            self,
            audio: list[Any] | tuple[Any, ...],
            language: str | None = None,
            **asked: Unpack[Asked],
        ) -> list[Transcript]: ...

    def transcribe(
        self,
        audio: Any,
        language: str | None = None,
        *,
        translate: bool = False,
        timestamps: bool = False,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Any:
        """Write down what is said in a sound, or in each of a list of them.

        A sound is the path of a .wav file (PCM of 16 bits), or an array of samples from -1 to 1 at
        the rate that the model hears. ``language`` is a code such as "en"; left out, the model
        tells it from the first window. With ``translate`` it writes English, with ``timestamps`` it
        says when: the transcript has ``segments`` of (start, end, text), in seconds.

        Returns a Transcript (.text, .tokens, .language), for a list of sounds a list of them.
        """
        how = Sampling(temperature, seed=seed, max_new_tokens=max_new_tokens).checked()
        many = isinstance(audio, list | tuple)
        sounds = [self._samples(one) for one in (audio if many else [audio])]
        refuse(not sounds, "there is no sound")
        told, start = self.manifest["generation"], self.begun(language, translate, timestamps)
        asked = language is None and bool(told["languages"])
        parts = [(number, part) for number, one in enumerate(sounds) for part in self._cut(one)]
        rows = self._rows(len(parts), start, how)
        of_sound: list[list[Window]] = [[] for _ in sounds]
        ends = [0] * len(sounds)
        for row, (number, part) in zip(rows, parts, strict=True):
            row.samples = part
            row.begins, ends[number] = ends[number], ends[number] + len(part)
            row.first, row.asked = next(iter(of_sound[number]), None), asked
            of_sound[number].append(row)
        self._heard(rows, how)
        names, at = {t: name for name, t in (told["languages"] or {}).items()}, len(told["start"])
        spoken = [names[each[0].ids[at]] if names else None for each in of_sound]
        pieces: list[Any] = [None] * len(sounds)
        if timestamps:
            from lepton_compile.runtime.loader_times import segments

            pieces = [[*segments(self, each)] for each in of_sound]
        made = [Transcript(*each) for each in zip(of_sound, spoken, pieces, strict=True)]
        return made if many else made[0]

    def write(self, heard: Sequence[Any], *, max_new_tokens: int | None = None) -> list[Window]:
        """What is said in windows, of which the ``features`` are given."""
        how = Sampling(max_new_tokens=max_new_tokens).checked()
        rows = self._rows(len(heard), self.begun(), how)
        for row, features in zip(rows, heard, strict=True):
            row.ids.source = features
        self._heard(rows, how)
        return rows

    def _rows(self, count: int, start: list[int], how: Sampling) -> list[Window]:
        limit = self._limit([start], how.max_new_tokens or self._room() - len(start))
        ends = {*(self.manifest["generation"]["eos"] or ())}
        return [Window(self, Begun(start), limit, ends, [], False) for _ in range(count)]

    def features(self, window: np.ndarray) -> np.ndarray:
        """What the model hears of a window of samples: (bands, frames) float32."""
        sound = self.manifest["generation"]["sound"]
        size, hop, samples = sound["window"], sound["hop"], sound["samples"]
        padded = np.zeros(samples, np.float32)
        padded[: len(window)] = window
        padded = np.pad(padded, size // 2, mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop][: samples // hop]
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
        powers = np.abs(np.fft.rfft(frames * hann, axis=1)) ** 2
        logs = np.log10(np.maximum(self.filters.T @ powers.T, 1e-10))
        return np.asarray((np.maximum(logs, logs.max() - 8) + 4) / 4, np.float32)

    @cached_property
    def filters(self) -> np.ndarray:
        """Shares of frequencies in bands: (frequencies, bands)."""
        name = self.manifest["generation"]["sound"]["filters"]
        check_digests(self.path, self.manifest, [name])
        with failing(f"{name} is no array"):
            return np.asarray(np.load(self.path / name, allow_pickle=False))

    def begun(
        self, language: str | None = None, translate: bool = False, timestamps: bool = False
    ) -> list[int]:
        """The tokens that an answer begins with."""
        told = self.manifest["generation"]
        refuse(timestamps and not told["times"], "this model has no timestamps")
        languages, tasks = told["languages"], told["tasks"]
        plain = () if timestamps else told["plain"] or ()
        if not languages:
            refuse(language or translate, "this model knows one language, and does not translate")
            return [*told["start"], *plain]
        bad = language is not None and language not in [*languages]
        refuse(bad, f"no language is called {language!r:.60}; there are {[*languages]}")
        spoken = languages[language or next(iter(languages))]
        task = tasks["translate" if translate else "transcribe"]
        return [*told["start"], spoken, task, *plain]

    def _samples(self, audio: Any) -> np.ndarray:
        sound = self.manifest["generation"]["sound"]
        if isinstance(audio, str) or hasattr(audio, "__fspath__"):
            return _read(audio, sound["rate"])
        wrong = f"a sound is a path of a .wav file, or an array of floats: {audio!r:.60}"
        with failing(wrong):
            samples = np.asarray(audio)
        refuse(samples.ndim != 1 or samples.dtype.kind != "f" or not samples.size, wrong)
        refuse(not np.isfinite(samples).all(), "the samples are no numbers")
        return samples.astype(np.float32)

    def _cut(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        sound = self.manifest["generation"]["sound"]
        most, at = sound["samples"], 0
        while len(samples) - at > most:
            step = max(1, int(QUIET * sound["rate"]))
            low = at + max(most // 2, most - int(SEARCHED * sound["rate"]))
            tail = np.square(samples[low : at + most])
            sums = np.add.reduceat(tail, np.arange(0, len(tail), step))
            cut = low + int(sums.argmin()) * step + step // 2
            yield samples[at:cut]
            at = cut
        yield samples[at:]

    def _heard(self, rows: list[Window], how: Sampling) -> None:
        """Write, window by window in batches; those that follow in a sound's language."""
        (least, most), limit = self.manifest["ranges"]["batch"], rows[0].limit
        at_language = len(self.manifest["generation"]["start"])
        firsts = [row for row in rows if not row.first]
        for part in (firsts, [row for row in rows if row.first]):
            for at in range(0, len(part), together := max(least, min(TOGETHER, most))):
                batch = part[at : at + together]
                for row in batch:
                    if row.first and row.asked:
                        row.ids[at_language], row.asked = row.first.ids[at_language], False
                    if row.samples is not None:
                        row.ids.source = self.features(row.samples)
                    row.ids.source = self.fit(SOUND, [row.ids.source])[0]
                while len(batch) < least:  # an engine may take no fewer
                    batch.append(Window(self, batch[0].ids, limit, set(), [], False))
                    batch[-1].finish = "filling"
                list(self._pieces([*batch], how))
                for row in batch:
                    row.ids.source = None  # of an hour it is a tenth of a gigabyte


def tell_languages(model: Any, cache: Any, rows: Sequence[Window]) -> None:
    """Put the likeliest language into what is written of windows that are asked for it."""
    if not any(row.asked for row in rows):
        return
    told = model.manifest["generation"]
    spoken = [*told["languages"].values()]
    scores = cache.start([told["start"] for _ in rows])
    for row, of_row in zip(rows, scores, strict=True):
        if row.asked:
            row.ids[len(told["start"])] = spoken[int(of_row[spoken].argmax())]


def _read(path: Any, rate: int) -> np.ndarray:
    """The samples of a .wav file, its channels mixed."""
    import wave

    with failing(f"{path} is no .wav file of PCM"), wave.open(str(path), "rb") as file:
        width, channels, found = file.getsampwidth(), file.getnchannels(), file.getframerate()
        data = file.readframes(file.getnframes())
    refuse(width != 2, f"{path} has samples of {8 * width} bits; give 16")
    heard = f"{path} has {found} samples a second, and the model hears {rate}: resample it first"
    refuse(found != rate, heard)
    whole = len(data) // (width * channels) * width * channels  # a file may end within a sample
    samples = np.frombuffer(data[:whole], "<i2").reshape(-1, channels).mean(axis=1) / 32768
    refuse(not samples.size, f"{path} has no samples")
    return np.asarray(samples, np.float32)
