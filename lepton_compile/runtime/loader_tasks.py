"""What texts are run for: embeddings, labels, answers to questions, words for blanks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_guard import LoaderError, refuse

__all__ = ["Tasks"]

TOGETHER = 32  # Texts that are run at a time.


class Tasks:
    """Runs texts through ``model`` and reads its outputs."""

    def __init__(self, model: Any) -> None:
        self.model, self.text = model, model.text

    def outputs(self, texts: Sequence[Any], name: str) -> list[np.ndarray]:
        """Output ``name`` of each text or pair of texts, without padding."""
        if isinstance(texts, str) or not len(texts):
            raise LoaderError("no texts are given" if len(texts) == 0 else "give a list of texts")
        encoded = self.text.tokenizer.encode_batch(list(texts))
        return [found[name] for found in self.run(encoded, [name])]

    def run(self, encoded: Sequence[Any], names: Sequence[str]) -> list[dict[str, np.ndarray]]:
        """The outputs of each encoding, without padding; those of like length run together."""
        order = sorted(range(len(encoded)), key=lambda number: len(encoded[number]))
        together = min(TOGETHER, self.model.manifest["ranges"]["batch"][1])
        along = {n for n, spec in self.model.outputs.items() if "sequence" in spec["shape"]}
        found: dict[int, dict[str, np.ndarray]] = {}
        for at in range(0, len(order), together):
            part = order[at : at + together]
            results = self.model.run(self._feeds([encoded[n] for n in part]), names)
            for row, number in enumerate(part):
                size = len(encoded[number])
                found[number] = {
                    name: array[row, :size] if name in along else array[row]
                    for name, array in results.items()
                }
        return [found[number] for number in range(len(encoded))]

    def _feeds(self, encoded: Sequence[Any]) -> dict[str, np.ndarray]:
        shape = len(encoded), max(map(len, encoded))
        pad = self.text.pad
        feeds = {"input_ids": np.full(shape, pad), "attention_mask": np.zeros(shape, np.int64)}
        if "token_type_ids" in self.model.inputs:
            feeds["token_type_ids"] = np.zeros(shape, np.int64)
        for number, text in enumerate(encoded):
            columns = {"input_ids": text.ids, "attention_mask": 1, "token_type_ids": text.type_ids}
            for name, array in feeds.items():
                array[number, : len(text)] = columns[name]
        return feeds

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """One vector per text, (texts, hidden) float32: the model's own pooling, or the mean."""
        output = (self.model.manifest["embedding"] or {}).get("output", "last_hidden_state")
        rows = self.outputs(texts, output)
        return np.stack([row.mean(axis=0) if row.ndim == 2 else row for row in rows])

    def classify(self, texts: Sequence[Any]) -> list[Any]:
        """Chance by label of each text or pair, likeliest first; of each token for token labels."""
        labels = self.model.manifest["labels"] or {}
        rows = self.outputs(texts, "logits")
        if rows and rows[0].ndim == 2:
            return [[_chances(token, labels) for token in row] for row in rows]
        return [_chances(row, labels) for row in rows]

    def answer(self, question: str, context: str, longest: int) -> dict[str, Any]:
        """See ``Model.answer``."""
        needed = {"start_logits", "end_logits"}
        refuse(
            needed - self.model.outputs.keys(), f"a model for {self.model.task} finds no answers"
        )
        windows = self._windows(question, context)
        best = (-np.inf, 0.0, (0, 0))
        for window, found in zip(windows, self.run(windows, sorted(needed)), strict=True):
            inside = np.flatnonzero([number == 1 for number in window.sequence_ids])
            if not len(inside):
                continue
            starts, ends = (found[f"{side}_logits"][inside] for side in ("start", "end"))
            ahead = np.arange(len(inside)) - np.arange(len(inside))[:, None]
            scores = np.where((ahead >= 0) & (ahead < longest), starts[:, None] + ends, -np.inf)
            first, last = np.unravel_index(scores.argmax(), scores.shape)
            chance = _softmax(starts)[first] * _softmax(ends)[last]
            span = window.offsets[inside[first]][0], window.offsets[inside[last]][1]
            best = max(best, (float(scores[first, last]), float(chance), span))
        _, chance, (start, end) = best
        return {"answer": context[start:end], "score": chance, "start": start, "end": end}

    def _windows(self, question: str, context: str) -> list[Any]:
        """The question with each part of the context that fits; parts overlap by a quarter."""
        copy = type(self.text.tokenizer).from_str(self.text.tokenizer.to_str())
        most = self.model.manifest["ranges"]["sequence"][1]
        copy.no_truncation()
        room = most - len(copy.encode(question, "").ids)
        refuse(room < 1, f"the question leaves no room for a context in {most} tokens")
        copy.enable_truncation(most, stride=room // 4, strategy="only_second")
        whole = copy.encode(question, context)
        return [whole, *whole.overflowing]

    def fill(self, text: str, top_k: int) -> list[list[dict[str, Any]]]:
        """See ``Model.fill``."""
        refuse(self.model.task != "fill-mask", f"a model for {self.model.task} fills no blanks")
        mask = self.text.special().get("mask_token")
        number = self.text.tokenizer.token_to_id(mask) if mask else None
        refuse(number is None, "this artifact's tokenizer has no mask token")
        encoded = self.text.tokenizer.encode(text)
        blanks = [at for at, token in enumerate(encoded.ids) if token == number]
        refuse(not blanks, f"there is no {mask} in the text")
        (found,) = self.run([encoded], ["logits"])
        return [self._words(text, encoded.offsets[at], found["logits"][at], top_k) for at in blanks]

    def _words(
        self, text: str, where: tuple[int, int], logits: np.ndarray, top_k: int
    ) -> list[dict[str, Any]]:
        chances, made = _softmax(logits), []
        for token in np.argsort(-chances, kind="stable")[:top_k].tolist():
            word = self.text.tokenizer.decode([token]).strip()
            whole = text[: where[0]] + word + text[where[1] :]
            made.append(
                {"word": word, "token": token, "score": float(chances[token]), "text": whole}
            )
        return made


def _softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum())


def _chances(logits: np.ndarray, labels: Mapping[str, str]) -> dict[str, float]:
    chances = _softmax(logits) if len(logits) > 1 else 1 / (1 + np.exp(-logits))
    return {labels.get(str(n), str(n)): float(chances[n]) for n in np.argsort(-chances)}
