"""What a traced program says of its nodes, shapes and inputs."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, fx
from torch.export import ExportedProgram

__all__ = ["inputs_of", "op_name", "program_parts", "same_shape"]


def op_name(node: fx.Node) -> str:
    """The op of a node without its overload, such as ``aten.add``."""
    return ".".join(str(node.target).split(".")[:2])


def same_shape(one: Iterable[object], other: Iterable[object]) -> bool:
    """Whether two shapes are the same. As text: to compare open sizes would fix them."""
    return [str(size) for size in one] == [str(size) for size in other]


def inputs_of(program: ExportedProgram) -> list[fx.Node]:
    """The placeholders of what the traced module was given, in order."""
    given = program.graph_signature.user_inputs
    return [n for n in program.graph.nodes if n.op == "placeholder" and n.name in given]


def program_parts(
    program: ExportedProgram, prefix: str
) -> tuple[dict[str, str], dict[str, Tensor]]:
    """(placeholder -> path of parameter or buffer, placeholder -> constant) of a program."""
    signature = program.graph_signature
    lifted = {
        name: path.removeprefix(prefix)
        for table in (signature.inputs_to_parameters, signature.inputs_to_buffers)
        for name, path in table.items()
    }
    constants = {
        name: program.constants[path]
        for name, path in signature.inputs_to_lifted_tensor_constants.items()
        if isinstance(program.constants[path], Tensor)
    }
    return lifted, constants
