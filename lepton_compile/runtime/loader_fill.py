"""Words for blanks."""

from __future__ import annotations

from typing import Any

import numpy as np

from lepton_compile.runtime.loader_batches import run_encoded
from lepton_compile.runtime.loader_chances import softmax
from lepton_compile.runtime.loader_guard import refuse

__all__ = ["fill"]


def fill(model: Any, text: str, top_k: int) -> list[list[dict[str, Any]]]:
    """See ``Model.fill``."""
    refuse(model.task != "fill-mask", f"a model for {model.task} fills no blanks")
    mask, tokenizer = model.text.special().get("mask_token"), model.text.tokenizer
    number = tokenizer.token_to_id(mask) if mask else None
    refuse(number is None, "this artifact's tokenizer has no mask token")
    encoded = tokenizer.encode(text)
    blanks = [at for at, token in enumerate(encoded.ids) if token == number]
    refuse(not blanks, f"there is no {mask} in the text")
    (found,) = run_encoded(model, [encoded], ["logits"])
    made: list[list[dict[str, Any]]] = [[] for _ in blanks]
    for at, words in zip(blanks, made, strict=True):
        chances, (start, end) = softmax(found["logits"][at]), encoded.offsets[at]
        for token in np.argsort(-chances, kind="stable")[:top_k].tolist():
            word = tokenizer.decode([token]).strip()
            whole, score = text[:start] + word + text[end:], float(chances[token])
            words.append({"word": word, "token": token, "score": score, "text": whole})
    return made
