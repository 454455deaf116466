"""A decoder of transformers in two halves: its layers, and what makes scores of their states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from lepton_compile.errors import UnrunnableError

__all__ = ["Head", "scores_of", "take_apart"]

PROBE = 8
"""Tokens on which halves have to say what the whole says."""


class Head:
    """What a decoder does behind its layers: a product with a table, and what some do before and
    behind it. It is the model's own code that does it, with states in place of layers.

    Args:
        module: the model; ``let_go`` takes its layers away.
        name: the attribute that holds them.
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        self._module, self._name = module, name
        self._layers: nn.Module | None = getattr(module, name)
        self._kind: type[Any] = dict

    def states(self, texts: Sequence[Sequence[int]]) -> torch.Tensor:
        """What the layers make of texts of one length, ``(texts, tokens, width)``."""
        assert self._layers is not None, "the layers are gone"
        with torch.inference_mode():
            found = self._layers(input_ids=torch.tensor(texts), use_cache=False)
        self._kind, states = type(found), found.last_hidden_state
        return torch.as_tensor(states)

    def scores(self, states: torch.Tensor) -> torch.Tensor:
        """Scores for states ``(texts, tokens, width)`` of the layers: ``(texts, tokens, words)``,
        float32."""
        before = getattr(self._module, self._name)
        setattr(self._module, self._name, _Known(self._kind(last_hidden_state=states)))
        try:
            return scores_of(self._module, [[0] * states.shape[1]] * states.shape[0])
        finally:
            setattr(self._module, self._name, before)

    def let_go(self) -> None:
        """Free the layers, but for what the head shares with them, such as a tied table."""
        self._layers = None
        setattr(self._module, self._name, nn.Identity())


class _Known(nn.Module):
    """Layers that give what they were told."""

    def __init__(self, found: Any) -> None:
        super().__init__()
        self._found = found

    def forward(self, *args: Any, **options: Any) -> Any:
        return self._found


def take_apart(module: nn.Module, text: Sequence[int]) -> Head | None:
    """The halves of a model; None where they do not say what the whole says, to the last bit.

    Args:
        text: token ids, the first few of which are tried.
    """
    name = getattr(module, "base_model_prefix", "")
    if not isinstance(getattr(module, name, None), nn.Module):
        return None
    head, probe = Head(module, name), [list(text[:PROBE])]
    whole = scores_of(module, probe)
    try:
        apart = head.scores(head.states(probe))
    except Exception:  # whatever a model's own code raises that asks more of its layers
        return None
    return head if torch.equal(whole, apart) else None


def scores_of(module: nn.Module, texts: Sequence[Sequence[int]]) -> torch.Tensor:
    """Scores of the whole model for texts of one length, ``(texts, tokens, words)``, float32.

    Raises:
        UnrunnableError: the model does not run in PyTorch.
    """
    with torch.inference_mode():
        try:
            found = module(input_ids=torch.tensor(texts), use_cache=False).logits
        except MemoryError:
            raise
        except Exception as error:  # whatever a model's own code raises
            raise UnrunnableError(
                "transformers cannot run this model, so that nothing compares the engine with it",
                where=f"{type(module).__name__} in PyTorch",
                found=f"{type(error).__name__}: {error}",
                hint="build with --no-verify; or compare config.json with the one that the model "
                "was released with",
            ) from error
    return torch.as_tensor(found, dtype=torch.float32)
