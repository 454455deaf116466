"""Words for blanks."""

from __future__ import annotations

from typing import Any

import numpy as np

from lepton_compile.runtime.loader_batches import Batches
from lepton_compile.runtime.loader_chances import softmax
from lepton_compile.runtime.loader_guard import failing, refuse
from lepton_compile.runtime.loader_special import Special

__all__ = ["Fills"]


class Fills(Batches, Special):
    """An encoder that fills blanks."""

    def fill(self, text: str, top_k: int = 5) -> list[list[dict[str, Any]]]:
        """For each mask token of ``text`` the likeliest: word, token, score, and the whole text."""
        tokenizer, mask = self.tokenizer, self.special_tokens.get("mask_token")
        with failing(f"fill takes a text, found {text!r:.60}"):
            text.encode()
            encoded = tokenizer.encode(text)
        number = tokenizer.token_to_id(mask) if mask else None
        refuse(number is None, "this artifact's tokenizer has no mask token")
        wrong = top_k is True or not isinstance(top_k, int | np.integer) or top_k < 1
        refuse(wrong, f"out of its range: {top_k=!r:.60}")
        blanks = [at for at, token in enumerate(encoded.ids) if token == number]
        refuse(not blanks, f"there is no {mask} in the text")
        (found,) = self.run_encoded([encoded], ["logits"])
        made: list[list[dict[str, Any]]] = [[] for _ in blanks]
        for at, words in zip(blanks, made, strict=True):
            chances, (start, end) = softmax(found["logits"][at]), encoded.offsets[at]
            start += len(text[start:end]) - len(text[start:end].lstrip())  # not a space before it
            for token in np.argsort(-chances, kind="stable")[:top_k].tolist():
                word = tokenizer.decode([token]).strip()
                whole, score = text[:start] + word + text[end:], float(chances[token])
                words.append({"word": word, "token": token, "score": score, "text": whole})
        return made
