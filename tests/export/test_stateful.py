"""What stands in for a model's functions with a state, and what is not lost without a word."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from lepton_compile.errors import ExportError
from lepton_compile.export.capture import LeptonCache
from lepton_compile.export.capture.scans import FUNCTIONS
from lepton_compile.export.capture.stateful import capture_states

qwen = importlib.import_module("transformers.models.qwen3_5.modeling_qwen3_5")
NAME = "torch_chunk_gated_delta_rule"


class Layer(nn.Module):
    """Of the module whose functions are replaced."""

    __module__ = qwen.__name__


def test_functions_of_the_model_are_ours_for_a_while() -> None:
    theirs = qwen.torch_chunk_gated_delta_rule
    with capture_states(Layer()):
        assert qwen.torch_chunk_gated_delta_rule is FUNCTIONS[NAME].function
    assert qwen.torch_chunk_gated_delta_rule is theirs


def _scaled(theirs: Callable[..., Any]) -> Callable[..., Any]:
    def function(*args: Any, **kwargs: Any) -> Any:
        out, state = theirs(*args, **kwargs)
        return 1.01 * out, state

    return function


def _fewer(theirs: Callable[..., Any]) -> Callable[..., Any]:
    return lambda query, key: theirs(query, key, key, key, key)


@pytest.mark.parametrize("change", [_scaled, _fewer])
def test_a_function_that_gives_other_numbers_stays(
    change: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = change(qwen.torch_chunk_gated_delta_rule.__wrapped__)
    monkeypatch.setattr(qwen, NAME, other)
    with capture_states(Layer()):
        assert qwen.torch_chunk_gated_delta_rule is other


def test_a_window_that_no_convolution_reads_is_refused() -> None:
    with capture_states(Layer()) as states:
        cache, window = LeptonCache(None), torch.zeros(1, 2, 3)
        cache.update_conv_state(window, 0)
        with pytest.raises(ExportError, match="neither a KV cache nor captured"):
            states.settle()
        with pytest.raises(ExportError, match="neither a KV cache nor captured"):
            cache.update_conv_state(window, 1)


def test_a_convolution_of_another_tensor_has_no_state() -> None:
    with capture_states(Layer()) as states:
        LeptonCache(None).update_conv_state(torch.zeros(1, 2, 3), 0)
        qwen.causal_conv1d_fn(torch.zeros(1, 2, 3), torch.zeros(2, 2))
        with pytest.raises(ExportError):
            states.settle()


def test_a_state_that_no_op_made_is_refused() -> None:
    with (
        capture_states(Layer()),
        pytest.raises(ExportError, match="neither a KV cache nor captured"),
    ):
        LeptonCache(None).update_recurrent_state(torch.zeros(1, 2, 3, 4), 0)


def test_an_argument_that_is_not_captured_is_refused() -> None:
    x, weight = torch.zeros(1, 2, 3), torch.zeros(2, 2)
    with capture_states(Layer()), pytest.raises(ExportError) as caught:
        qwen.causal_conv1d_fn(x, weight, seq_idx=torch.zeros(3))
    assert caught.value.found == "seq_idx"
