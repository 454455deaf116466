"""The tiny decoder and the sampling rules, written in numpy as plainly as they can be."""

from __future__ import annotations

import numpy as np

from tests.runtime.tiny import HEAD_DIM, HEADS, KV_HEADS, Weights

__all__ = ["chances", "greedy", "logits", "penalized"]


def logits(given: Weights, ids: list[int]) -> np.ndarray:
    """Logits (sequence, vocabulary) of one row, computed as a whole, without any cache."""
    hidden = given.embedding[ids]
    for layer in given.layers:
        query = _rotated(given, _heads(hidden @ layer["query"], HEADS))
        key = _rotated(given, _heads(hidden @ layer["key"], KV_HEADS))
        key, value = (
            np.repeat(part, HEADS // KV_HEADS, axis=0)
            for part in (key, _heads(hidden @ layer["value"], KV_HEADS))
        )
        scores = query @ key.transpose(0, 2, 1) / np.sqrt(HEAD_DIM)
        scores += np.triu(np.full(scores.shape[1:], -np.inf), 1)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = weights / weights.sum(axis=-1, keepdims=True) @ value
        hidden = hidden + mixed.transpose(1, 0, 2).reshape(len(ids), -1) @ layer["output"]
    return np.asarray(hidden @ given.embedding.T)


def _heads(flat: np.ndarray, count: int) -> np.ndarray:
    return flat.reshape(len(flat), count, HEAD_DIM).transpose(1, 0, 2)


def _rotated(given: Weights, heads: np.ndarray) -> np.ndarray:
    first, second = np.split(heads, 2, axis=-1)
    cos, sin = given.cos[: heads.shape[1]], given.sin[: heads.shape[1]]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def greedy(given: Weights, ids: list[int], count: int, penalty: float = 1.0) -> list[int]:
    """The ``count`` likeliest next tokens, each computed from all tokens before it."""
    found = list(ids)
    for _ in range(count):
        row = penalized(logits(given, found)[-1], found, penalty)
        found.append(int(row.argmax()))
    return found[len(ids) :]


def penalized(row: np.ndarray, seen: list[int], penalty: float) -> np.ndarray:
    """Logits of tokens that came before, divided by the penalty, or multiplied below zero."""
    return np.array(
        [
            (value / penalty if value > 0 else value * penalty) if token in set(seen) else value
            for token, value in enumerate(row)
        ]
    )


def chances(
    row: np.ndarray, *, temperature: float, top_k: int, top_p: float, min_p: float
) -> dict[int, float]:
    """Probability of each token that may be drawn, filters applied one after the other."""
    kept = sorted(range(len(row)), key=lambda token: -row[token])
    kept = kept[:top_k] if top_k else kept
    found = _softmax({token: float(row[token]) / temperature for token in kept})
    whole, nucleus = 0.0, {}
    for token, chance in found.items():
        if whole < top_p or top_p == 1 or not nucleus:  # a part may round to 1
            nucleus[token] = chance
        whole += chance
    best = max(nucleus.values())
    nucleus = {token: chance for token, chance in nucleus.items() if chance >= min_p * best}
    total = sum(nucleus.values())
    return {token: chance / total for token, chance in nucleus.items()}


def _softmax(scores: dict[int, float]) -> dict[int, float]:
    peak = max(scores.values())
    weights = {token: np.exp(score - peak) for token, score in scores.items()}
    total = sum(weights.values())
    return {token: float(weight / total) for token, weight in weights.items()}
