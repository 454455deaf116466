"""A vector for each token of a text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_batches import Batches
from lepton_compile.runtime.loader_guard import refuse

__all__ = ["ROLES", "Vectors"]


GROWS = {"token": str, "length": int, "attend": bool}
ROLE = {"prompt": str, "max_tokens?": int, "skipped": [str], "expansion?": GROWS}
ROLES = {"embedding": {"roles": {"*": ROLE}}}


class Vectors(Batches):
    """An encoder for late interaction."""

    def vectors(self, texts: Sequence[str], role: str = "document") -> list[np.ndarray]:
        """Of each text, read as a ``query`` or ``document``, vectors (tokens, width) float32.

        A document scores ``(query @ document.T).max(axis=1).sum()`` for a query.
        """
        own = self.manifest["embedding"]
        refuse(role not in own["roles"], f"there is no role {role!r}, but {[*own['roles']]}")
        how, tokenizer = own["roles"][role], self._tokenizers[role]
        encoded = self._encoded(texts, how["prompt"], tokenizer)
        refuse(not all(map(len, encoded)), "a text is empty")
        if grows := how["expansion"]:
            most, token = (
                self.manifest["ranges"]["sequence"][1],
                tokenizer.token_to_id(grows["token"]),
            )
            refuse(token is None, f"the tokenizer has no {grows['token']!r} to expand queries with")
            refuse(grows["length"] > most, f"queries are {grows['length']} tokens; {most} fit in")
            encoded = [_Expanded(one, grows["length"], token, grows["attend"]) for one in encoded]
        skipped = [tokenizer.token_to_id(word) for word in how["skipped"]]
        kept = [[token not in skipped for token in one.ids] for one in encoded]
        found = self.run_encoded(encoded, [own["output"]])
        return [one[own["output"]][keep] for one, keep in zip(found, kept, strict=True)]

    @cached_property
    def _tokenizers(self) -> dict[str, Any]:
        """That of each role, which cuts texts at a length of its own."""
        made, most = dict[str, Any](), self.manifest["ranges"]["sequence"][1]
        for role, how in self.manifest["embedding"]["roles"].items():
            made[role] = type(self.tokenizer).from_str(self.tokenizer.to_str())
            made[role].enable_truncation(min(most, how["max_tokens"] or most))
        return made


class _Expanded:
    """An encoding with so many more tokens that it has ``length`` at least."""

    def __init__(self, encoding: Any, length: int, token: int, attend: bool) -> None:
        self.ids, self.type_ids = encoding.ids, encoding.type_ids
        self.attention_mask = encoding.attention_mask
        self.pad(length, token, attend)

    def __len__(self) -> int:
        return len(self.ids)

    def pad(self, length: int, pad_id: int, attend: bool = False) -> None:
        """Add ``pad_id`` until there are ``length``."""
        missing = max(length - len(self), 0)
        self.ids = self.ids + [pad_id] * missing
        self.type_ids = self.type_ids + [0] * missing
        self.attention_mask = self.attention_mask + [int(attend)] * missing
