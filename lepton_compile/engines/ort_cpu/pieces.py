"""In what pieces a loader gives a lowered model its work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton_compile.engines.ort_cpu.nodes import all_nodes
from lepton_compile.engines.ort_cpu.saturation import multiplies_bytes
from lepton_passes.origin import from_file

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["pieces"]

SLICE = 256
"""Tokens for each thread: what layers of an encoder write then lies in caches, not in memory."""
_TOKENS = 2  # axes: (batch, sequence)


def pieces(model: ir.Model) -> dict[str, int]:
    """``piece`` and ``slice`` of the manifest's ``kernels``, as far as they apply.

    A prompt is read in pieces of ``piece`` tokens at least, for attention of a few is in fp32. Rows
    of an encoder are run in slices of ``slice`` tokens a thread: more would wait for memory.
    """
    piece = _least_piece(model)
    return {**({"piece": piece} if piece else {}), **({"slice": SLICE} if _by_rows(model) else {})}


def _least_piece(model: ir.Model) -> int:
    """Tokens of a piece from which on all attention that may round does; 0 where none may."""
    from lepton_plugins.attention.spec import FEW_ROUNDED
    from lepton_plugins.spec import CPU_DOMAIN

    own = (node for node in all_nodes(model) if node.domain == CPU_DOMAIN)
    cached = (node.attributes for node in own if node.op_type == "GroupQueryAttention")
    sharing = [
        each.get_int("num_heads") // each.get_int("kv_num_heads")
        for each in cached
        if each.get_int("rounded", 0)
    ]
    return FEW_ROUNDED // min(sharing) + 1 if sharing else 0


def _by_rows(model: ir.Model) -> bool:
    """Whether it reads rows of tokens, keeps no cache, and has a row for each in all that it gives.

    Kernels of onnxruntime that multiply bytes round rows together, by the largest number in any.
    In a file rows may read each other: a name does not say that they stand alone.
    """
    if from_file(model) or multiplies_bytes(model):
        return False
    inputs = {value.name: value for value in model.graph.inputs}
    rows = [_first(value) for value in (*inputs.values(), *model.graph.outputs)]
    ids = inputs.get("input_ids")
    tokens = ids is not None and ids.shape is not None and len(ids.shape) == _TOKENS
    return tokens and len({*rows}) == 1 and isinstance(rows[0], str)


def _first(value: ir.Value) -> int | str | None:
    if not value.shape:
        return None
    size = value.shape[0]
    return size if isinstance(size, int) else size.value
