"""The likeliest answer as a whole (beam search), scored and ended as in transformers."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from operator import index
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_guard import failing, refuse
from lepton_compile.runtime.loader_sampling import Sampling, largest

__all__ = ["Search", "search"]

MOST_PENALTY = 50  # Of more the lengths of answers have powers that no number holds.


class Search:
    """Answers to one text; ``tokens`` of those under way, ``ended`` are those that are whole."""

    def __init__(self, beams: int, row: Any, penalty: float) -> None:
        self.ends, self.limit, self.begun = row.ends, row.limit, len(row.ids) - 1
        self.sums, self.open, self.penalty = np.full(beams, -1e9), True, penalty
        self.sums[0] = 0.0  # all are alike before their first token
        self.tokens: list[list[int]] = [[] for _ in range(beams)]
        self.ended: list[tuple[float, list[int]]] = []

    def step(self, chances: np.ndarray) -> list[int]:
        """Go on by the (beams, vocabulary) logarithms; which ones are gone on with, in order."""
        beams, words = chances.shape
        sums = (chances + self.sums[:, None]).ravel()
        best = largest(sums, max(2, 1 + len(self.ends)) * beams)
        made = [(int(at) // words, int(at) % words, float(sums[at])) for at in best]
        full, length = len(self.tokens[0]) + 1 == self.limit, self.begun + len(self.tokens[0]) + 1
        whole = [one for one in made[:beams] if full or one[1] in self.ends]
        self.ended += [(s / length**self.penalty, [*self.tokens[n], t]) for n, t, s in whole]
        self.ended = sorted(self.ended, key=lambda one: -one[0])[:beams]
        going = [one for one in made if one[1] not in self.ends][:beams]
        refuse(not going, "each token ends an answer")
        self.tokens = [[*self.tokens[n], t] for n, t, _ in going]
        self.sums = np.array([s for *_, s in going])
        worst = self.ended[-1][0] if len(self.ended) == beams else -1e9
        self.open = not full and self.sums[0] / length**self.penalty > worst
        return [n for n, *_ in going]


def search(
    model: Any, rows: Sequence[Any], asked: Any, how: Sampling, more: Any, plain: Any = ()
) -> Iterator[str | int]:
    """Put the best answer that is found into each row; there are no pieces of it before.

    ``asked`` are beams and length_penalty, ``more`` is what they do not go with. One beam is none:
    the answer comes as ``plain`` pieces.
    """
    (beams, penalty), (least, most) = asked, model.manifest["ranges"]["batch"]
    wrong = f"beams are 1 or more, and length_penalty -50 to 50: {beams!r:.60}, {penalty!r:.60}"
    with failing(wrong):
        beams, penalty = index(beams), float(penalty)
    refuse(bool in map(type, asked) or beams < 1 or not abs(penalty) <= MOST_PENALTY, wrong)
    if beams == 1:
        return iter(plain)
    refuse(more, "beams go with neither stream nor stop")
    greedy = Sampling(seed=how.seed, max_new_tokens=how.max_new_tokens)
    refuse(how != greedy, "beams go with none of temperature, top_k, top_p, min_p and penalties")
    refuse(beams > most, f"{beams} beams are {beams} rows, and the engine takes {most}")
    for at in range(0, len(rows), together := most // beams):
        group = [*rows[at : at + together]]
        group += group[-1:] * (-(-least // beams) - len(group))  # an engine may take no fewer
        cache = model._buffers(len(group) * beams, len(group[0].ids), group[0].limit)
        try:
            _searched(model, cache, group, beams, penalty)
        finally:
            cache.close()
    return iter(())


def _searched(model: Any, cache: Any, rows: Sequence[Any], beams: int, penalty: float) -> None:
    cache.session = model.session.reading([row.ids.source for row in rows])
    cache.session.repeat(beams)
    told, found = model.manifest["generation"], [Search(beams, row, penalty) for row in rows]
    logits = cache.start([row.ids for row in rows for _ in range(beams)])
    while True:
        chances = logits.reshape(len(rows), beams, -1)
        chances = chances - chances.max(-1, keepdims=True)
        chances -= np.log(np.exp(chances).sum(-1, keepdims=True))
        chances[..., told["never"] + told["first"] * (not found[0].tokens[0])] = -np.inf
        if told["rules"]:
            from lepton_compile.runtime.loader_rules import logarithms, rule_out

            for row, one, scores in zip(rows, found, chances, strict=True):
                one.open &= not told["rules"]["early"] or len(one.ended) < beams
                for each, tokens in zip(scores, one.tokens, strict=True):
                    rule_out(told, each, row, tokens)
            chances = logarithms(chances) if told["rules"]["renormalize"] else chances
        order = np.arange(len(rows) * beams).reshape(len(rows), beams)
        for number, one in enumerate(found):
            if one.open:
                order[number] = [number * beams + n for n in one.step(chances[number])]
        if not any(one.open for one in found):
            break
        _reorder(cache, order.ravel())
        last = [tokens[-1] for one in found for tokens in one.tokens]
        logits = cache.step(last, [one.open for one in found for _ in range(beams)])
    for row, one in zip(rows, found, strict=True):
        tokens = one.ended[0][1]
        row.finish = "eos" if tokens[-1] in one.ends else "length"
        row.tokens = tokens[:-1] if row.finish == "eos" else tokens


def _reorder(cache: Any, order: np.ndarray) -> None:
    """Put rows of a cache where their beams are."""
    from onnxruntime import OrtValue

    if hasattr(cache, "buffers"):
        for *_, buffer in cache.buffers:
            if buffer.device_name() != "cpu":
                from lepton_compile.runtime.loader_cuda_pair import reorder

                reorder(buffer, order)
                continue
            held = (ctypes.c_uint8 * buffer.tensor_size_in_bytes()).from_address(buffer.data_ptr())
            numbers = np.ctypeslib.as_array(held).reshape(*buffer.shape()[:3], -1)
            rows = numbers[:, :, : cache.lengths.max()]
            rows[: len(order)] = rows[order]
        return
    ((numbers, length, past),) = cache.groups
    taken = [(np.ascontiguousarray(v.numpy()[order]), v.device_name()) for v in past]
    moved = [OrtValue.ortvalue_from_numpy(array, device, 0) for array, device in taken]
    cache.groups = [(numbers, length, moved)]
