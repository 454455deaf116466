"""Texts through an encoder, several at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_guard import failing, refuse
from lepton_compile.runtime.loader_text import Texts

__all__ = ["Batches"]


class Batches(Texts):
    """An encoder."""

    def outputs_of(self, texts: Any, name: str, lead: str | None = None) -> list[np.ndarray]:
        """Output ``name`` of each text, as ``_encoded`` takes them, without padding."""
        return [found[name] for found in self.run_encoded(self._encoded(texts, lead), [name])]

    def _encoded(self, texts: Any, lead: str | None = None, by: Any = None) -> list[Any]:
        """Texts as encodings, each behind ``lead``; with None there may be pairs among them."""
        given: list[Any] = []
        with failing(f"give a list of texts, not {texts!r:.60}"):
            for n, text in enumerate(texts):
                with failing(f"number {n} of them is {text!r:.60}"):
                    given.append(text if lead is None else lead + text)
                    "".join(text if lead is None else given[n:]).encode()
            refuse(isinstance(texts, str) or not given, "it is a text" if given else "it is empty")
            return list((by or self.tokenizer).encode_batch(given))

    def run_encoded(self, encoded: Sequence[Any], names: list[str]) -> list[dict[str, np.ndarray]]:
        """The outputs of each encoding, without padding; those of like length run together."""
        refuse({*names} - self.outputs.keys(), f"there is no {names}, but {[*self.outputs]}")
        sizes, found = [*map(len, encoded)], [dict[str, np.ndarray]() for _ in encoded]
        order = sorted(range(len(encoded)), key=sizes.__getitem__)
        refuse(0 in sizes, f"the text at {order[:1]} is empty")
        (rows, most), (width, _) = (self.manifest["ranges"][d] for d in ("batch", "sequence"))
        own = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
        columns = {name: column for name, column in own.items() if name in self.inputs}
        for at in range(0, len(order), together := max(rows, min(32, most), 1)):
            part = order[at : at + together]
            for n in part:
                encoded[n].pad(max(width, sizes[part[-1]]), pad_id=self.pad)
            part += part[-1:] * (rows - len(part))  # an engine may take no fewer
            feeds = {name: [getattr(encoded[n], c) for n in part] for name, c in columns.items()}
            for name, array in self.run(feeds, names).items():
                along = "sequence" in self.outputs[name]["shape"]
                bad = along and array.shape[1:2] != (len(encoded[part[0]]),)
                refuse(bad, f"{name} is {array.shape}, which is not what manifest.json says")
                for row, n in enumerate(part):
                    found[n][name] = array[row, : sizes[n]] if along else array[row]
        return found
