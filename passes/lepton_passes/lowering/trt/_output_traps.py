"""Outputs that an importer does not make.

Each check gives the reasons against one node, and nothing where it is fine.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from lepton_passes.body import Body

__all__ = ["only_first", "skip_norm"]


def only_first(body: Body, node: ir.Node) -> Iterator[str]:
    """Attention of every kind: neither caches nor scores."""
    if len(_named(node)) > 1:
        yield "it has more than one output"


def skip_norm(body: Body, node: ir.Node) -> Iterator[str]:
    """``SkipSimplifiedLayerNormalization``: the norm and the sum, not what it divided by."""
    for index in {1, 2} & set(_named(node)):
        yield f"output {index} is not made, only the norm (0) and the sum (3)"


def _named(node: ir.Node) -> list[int]:
    """Outputs that are not left out."""
    return [index for index, out in enumerate(node.outputs) if out.name != ""]
