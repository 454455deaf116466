"""The fp32 PyTorch model, called with numpy arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_compile.export.text_tower import own_vector

__all__ = ["Later", "Reference", "module_of", "pool", "weigh"]

Array = npt.NDArray[Any]


class Later:
    """A model that is loaded when it is first needed, and then kept until it is forgotten.

    Args:
        load: what gives it.
        streamed: it reads its layers anew whenever it runs.
    """

    def __init__(self, load: Callable[[], Any], *, streamed: bool = False) -> None:
        self.module = cache(load)
        self.streamed = streamed

    def forget(self) -> None:
        """Let the model go; it is loaded again when it is needed again."""
        self.module.cache_clear()


def module_of(given: Any) -> Any:
    """The model that is given, or that ``Later`` loads."""
    return given.module() if isinstance(given, Later) else given


class Reference:
    """Runs a transformers model on numpy arrays.

    Args:
        module: the model, in evaluation mode, or what loads it.
        embedding: the manifest's ``embedding``: how to pool, and the name of the pooled output.
    """

    def __init__(self, module: Any, embedding: Mapping[str, Any] | None = None) -> None:
        self._given = module
        self._embedding = embedding

    @property
    def _module(self) -> Any:
        return module_of(self._given)

    @property
    def pad(self) -> int:
        """The padding id, 0 where the model names none."""
        return int(getattr(self._module.config, "pad_token_id", None) or 0)

    @property
    def vocabulary(self) -> int:
        """Number of token ids the model knows."""
        return int(self._module.config.get_text_config().vocab_size)

    def run(self, feeds: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
        """The named outputs, float32.

        Args:
            feeds: ``input_ids``, ``attention_mask`` and so on, int64 ``(batch, sequence)``.
            names: outputs as the engine calls them; the pooled one is computed here.
        """
        import torch

        tensors = {name: torch.from_numpy(array) for name, array in feeds.items()}
        with torch.inference_mode():
            found = self._module(**tensors)
        pooled = self._embedding["output"] if self._embedding else None
        outputs = {n: found[n].to(torch.float32).numpy() for n in names if n != pooled}
        if self._embedding and pooled in names:
            outputs[str(pooled)] = self._pooled(found, feeds, self._embedding)
        return outputs

    def _pooled(
        self, found: Any, feeds: Mapping[str, Array], embedding: Mapping[str, Any]
    ) -> Array:
        if embedding["pooling"] == "own":
            return _of_length(own_vector(found).float().numpy(), embedding)
        mask = feeds["attention_mask"]
        if "logarithms" in embedding:
            return weigh(found["logits"].float().numpy(), mask, embedding)
        dense = getattr(self._module, "sentence_dense", None)
        return pool(found["last_hidden_state"].float().numpy(), mask, embedding, dense)


def weigh(scores: Array, mask: Array, embedding: Mapping[str, Any]) -> Array:
    """Words of each text (SPLADE: Formal et al., 2021, arXiv:2109.10086).

    Args:
        scores: ``(batch, sequence, vocabulary)``.
        mask: ``(batch, sequence)``, 1 for real tokens.
        embedding: ``pooling`` (max or sum) and ``logarithms``, how often log(1 + x) is taken.

    Returns:
        ``(batch, vocabulary)`` float32, nothing below 0.
    """
    weights = scores * mask[..., None].astype(np.float32)
    np.maximum(weights, 0, out=weights)  # in place: there are many of them
    for _ in range(embedding["logarithms"]):
        np.log1p(weights, out=weights)
    over = np.max if embedding["pooling"] == "max" else np.sum
    return np.asarray(over(weights, axis=1), np.float32)


def pool(
    hidden: Array, mask: Array, embedding: Mapping[str, Any], dense: Any | None = None
) -> Array:
    """One vector per text.

    Args:
        hidden: ``(batch, sequence, width)``.
        mask: ``(batch, sequence)``, 1 for real tokens, which stand to the left.
        embedding: ``pooling`` (mean, cls, max, lasttoken or tokens) and ``normalize``.
        dense: the torch module behind the pooling, if there is one.

    Returns:
        ``(batch, width)`` float32; of tokens ``(batch, sequence, width)``.

    Raises:
        ValueError: another pooling.
    """
    kind, weight = embedding["pooling"], mask[..., None].astype(np.float32)
    if kind == "mean":
        pooled = (hidden * weight).sum(1) / np.maximum(weight.sum(1), 1e-9)
    elif kind == "cls":
        pooled = hidden[:, 0]
    elif kind == "max":
        pooled = np.where(weight > 0, hidden, -np.inf).max(1)
    elif kind == "lasttoken":
        pooled = hidden[np.arange(len(hidden)), mask.sum(1) - 1]
    elif kind == "tokens":
        pooled = hidden
    else:
        raise ValueError(f"unknown pooling: {kind}")
    if dense is not None:
        pooled = _through(dense, np.asarray(pooled, np.float32))
    return _of_length(np.asarray(pooled, np.float32), embedding)


def _of_length(vectors: Array, embedding: Mapping[str, Any]) -> Array:
    """Vectors of length 1 where the ``embedding`` says so."""
    if embedding.get("normalize"):
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return vectors


def _through(module: Any, pooled: Array) -> Array:
    import torch

    with torch.inference_mode():
        return np.asarray(module(torch.from_numpy(pooled)).numpy())
