"""States that stay in fp32 where all else is computed in half precision.

A recurrent state is a sum over all tokens so far: rounded at each of them it forgets, so PyTorch
keeps it in fp32, too. That of a convolution is a few inputs, which are halves where they are made.
"""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["is_wide", "wide_states"]

_WIDE = ("past_recurrent.", "present_recurrent.")


def is_wide(value: ir.Value) -> bool:
    """Whether an input or output of the model, by its name, is a recurrent state."""
    return (value.name or "").startswith(_WIDE)


def wide_states(model: ir.Model) -> set[ir.Value]:
    """Inputs and outputs of layers that are recurrent states of the model."""
    found: set[ir.Value] = set()
    for call in model.graph:
        function = model.functions.get(call.op_identifier())
        if function is None:
            continue
        inputs = zip(function.inputs, call.inputs, strict=False)
        outputs = zip(function.outputs, call.outputs, strict=False)
        found |= {
            inner for inner, outer in (*inputs, *outputs) if outer is not None and is_wide(outer)
        }
    return found
