"""Prompts, continued."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, overload

import numpy as np

from lepton_compile.runtime.loader_continue import Continues, Generation
from lepton_compile.runtime.loader_guard import failing, refuse
from lepton_compile.runtime.loader_prompts import Prompts
from lepton_compile.runtime.loader_sampling import Sampling

__all__ = ["Generates"]

if TYPE_CHECKING:  # so that it knows what a call gives; an artifact's own file does without
    Ids = Sequence[int | np.integer[Any]] | np.ndarray
    One = str | Ids | Sequence[Mapping[str, Any]]
    Several = list[str] | tuple[str, ...] | Sequence[list[Any] | tuple[Any, ...] | np.ndarray]

    class Asked(TypedDict, total=False):
        """What ``generate`` takes by name beside ``stream``."""

        temperature: float
        top_k: int
        top_p: float
        min_p: float
        repetition_penalty: float
        seed: int | None
        stop: str | Sequence[str]
        stop_tokens: Iterable[int]
        chat: bool | Sequence[Mapping[str, Any]] | Mapping[str, Any] | None
        images: Any
        start: str | int | Sequence[str | int] | None
        beams: int
        length_penalty: float


class Generates(Continues, Prompts):
    """A decoder."""

    if TYPE_CHECKING:

        @overload
        def generate(
            self,
            prompt: One = "",
            max_new_tokens: int | None = None,
            *,
            stream: Literal[False] = False,
            **asked: Unpack[Asked],
        ) -> Generation: ...

        @overload
        def generate(
            self,
            prompt: Several,
            max_new_tokens: int | None = None,
            *,
            stream: Literal[False] = False,
            **asked: Unpack[Asked],
        ) -> list[Generation]: ...

        @overload
        def generate(
            self,
            prompt: One = "",
            max_new_tokens: int | None = None,
            *,
            stream: Literal[True],
            **asked: Unpack[Asked],
        ) -> Iterator[str | int]: ...

        @overload
        def generate(
            self,
            prompt: One = "",
            max_new_tokens: int | None = None,
            *,
            stream: bool,
            **asked: Unpack[Asked],
        ) -> Generation | Iterator[str | int]: ...

    def generate(
        self,
        prompt: Any = "",
        max_new_tokens: int | None = None,
        *,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        stop_tokens: Iterable[int] = (),
        stream: bool = False,
        chat: Any = False,
        images: Any = None,  # for image-text-to-text
        start: Any = None,  # for text2text-generation
        beams: int = 1,  # for text2text-generation
        length_penalty: float = 1.0,  # for text2text-generation
    ) -> Any:
        """Continue a prompt (text, token ids or chat messages), or a list of them.

        ``max_new_tokens`` is 128 unless given, or what the cache has room for if that is less.
        ``images``: paths, arrays, Pillow images; of prompts a list each.  # for image-text-to-text
        Temperature 0 takes the likeliest token; ``seed`` repeats a draw. A prompt ends at one of
        the model's ending tokens or of ``stop_tokens``, or before a text of ``stop``. ``chat`` is
        True, the messages that came before, or a dict of what a template asks for, such as tools.

        Returns a Generation (.tokens, .text, .finish, .timings), for a list of prompts a list of
        them; with ``stream`` the pieces of text as they come (ids without a tokenizer).
        """
        how = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, seed, max_new_tokens)
        how = how.checked()
        listed = isinstance(prompt, list | tuple) or getattr(prompt, "ndim", 0) > 0
        many = listed and isinstance(next(iter(prompt), None), str | list | tuple | np.ndarray)
        refuse(stream and many, "stream=True takes one prompt")
        if self.task != "image-text-to-text":
            prompts = [self.encode(one, chat) for one in (prompt if many else [prompt])]
        if self.task == "image-text-to-text" or images is not None:
            from lepton_compile.runtime.loader_pictured import pictured

            prompts = pictured(self, prompt, many, images, chat)
        filled = prompts + prompts[-1:] * (self.manifest["ranges"]["batch"][0] - len(prompts))
        if self.task == "text2text-generation" or start is not None or repr(beams) != "1":
            from lepton_compile.runtime.loader_reads import starts

            filled[:] = starts(self, filled, start)
        limit = self._limit(filled, how.max_new_tokens)
        ends, stops = self._ends(stop, stop_tokens)
        rows = [Generation(self, ids, limit, ends, stops, stream) for ids in filled]
        for row in rows[len(prompts) :]:
            row.finish = "filling"  # an engine may take no fewer: the last over again, unheard
        pieces = self._pieces(rows, how)
        if repr(beams) != "1":
            from lepton_compile.runtime.loader_beams import search

            pieces = search(self, rows, (beams, length_penalty), how, stream or stops, pieces)
        if not stream:
            list(pieces)  # to the end
        return pieces if stream else rows[: len(prompts)] if many else rows[0]

    def _ends(self, stop: Any, stop_tokens: Any) -> tuple[set[int], list[str]]:
        """Tokens and texts that end an answer; a special token is none of the texts."""
        numbers = _all_of("stop_tokens", stop_tokens, (int, np.integer), "token ids")
        numbers += (self.manifest.get("generation") or {}).get("eos") or ()
        texts = [stop] if isinstance(stop, str) else stop
        stops = [*filter(None, _all_of("stop", texts, (str,), "texts"))]
        added = self.tokenizer.get_added_tokens_decoder() if stops else {}
        numbers += [n for n, token in added.items() if token.special and token.content in stops]
        return {*numbers}, stops


def _all_of(name: str, given: Any, kinds: tuple[type, ...], what: str) -> list[Any]:
    """The values of an option that takes several of one kind."""
    wrong = f"{name} takes {what}, found {given!r:.60}"
    with failing(wrong):
        values = [*given]
    refuse(not all(isinstance(v, kinds) and not isinstance(v, bool) for v in values), wrong)
    return values
