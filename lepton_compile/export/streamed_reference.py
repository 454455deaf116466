"""The fp32 PyTorch model a layer at a time, for where the whole of it has no room.

Layers are empty until they run: then their weights are read from the checkpoint, and behind them
they are gone again. What stands around the layers, tables above all, is held.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from lepton_compile.export.chain import layers_of
from lepton_compile.export.ties import tied_of
from lepton_passes.tensors import StreamedTensor

__all__ = ["fill", "held_parameters", "stream_layers"]


def stream_layers(model: nn.Module, tensors: Mapping[str, StreamedTensor]) -> None:
    """Fill ``model``, its layers whenever they run.

    Args:
        model: in fp32, its weights not yet written.
        tensors: of each name of its state but those that share another's.
    """
    layers = dict(layers_of(model))
    for name, layer in layers.items():
        own = {
            each: tensors[f"{name}.{each}"]
            for each, _ in layer.named_parameters()
            if f"{name}.{each}" in tensors
        }
        _empty(layer, own)
        layer.register_forward_pre_hook(lambda module, _, own=own: _load(module, own))
        layer.register_forward_hook(lambda module, *_, own=own: _empty(module, own))
    state = model.state_dict()
    for name, tensor in tensors.items():
        if state[name].numel():  # all that is not of a layer
            fill(state[name], tensor)


def held_parameters(model: nn.Module) -> int | None:
    """Most parameters that are in memory at once; None of a model whose layers share some, or
    that has none.

    Args:
        model: on the meta device, or its weights not yet written.
    """
    layers = dict(layers_of(model))
    inside = [{id(p): p.numel() for p in layer.parameters()} for layer in layers.values()]
    tied = tied_of(model)
    shared = {*tied, *tied.values()}
    if not layers or any(each.startswith(f"{name}.") for each in shared for name in layers):
        return None
    if sum(map(len, inside)) != len({each for of_layer in inside for each in of_layer}):
        return None
    whole = sum(parameter.numel() for parameter in model.parameters())
    sizes = [sum(of_layer.values()) for of_layer in inside]
    return whole - sum(sizes) + max(sizes)


def fill(into: torch.Tensor, tensor: StreamedTensor) -> None:
    """Write a tensor of a checkpoint into one of a model, fp32, in blocks of rows."""
    start = 0
    for block in tensor.blocks():
        rows = torch.from_numpy(block.astype(np.float32))
        into[start : start + len(block)].copy_(rows)
        start += len(block)


def _load(layer: nn.Module, own: Mapping[str, StreamedTensor]) -> None:
    with torch.inference_mode(False), torch.no_grad():
        for name, tensor in own.items():
            made = torch.empty(tensor.shape.numpy(), dtype=torch.float32)
            fill(made, tensor)
            layer.get_parameter(name).data = made


def _empty(layer: nn.Module, own: Mapping[str, Any]) -> None:
    with torch.inference_mode(False), torch.no_grad():
        for name in own:
            layer.get_parameter(name).data = torch.empty(0)
