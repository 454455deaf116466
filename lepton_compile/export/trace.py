"""``torch.export`` on the meta device, with named dynamic dimensions."""

from __future__ import annotations

import functools
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import config as fx_config
from torch.fx.experimental import _config as shape_config
from torch.overrides import TorchFunctionMode

from lepton_compile.errors import ExportError
from lepton_compile.export.pieces import put_together
from lepton_compile.export.refusal import untraceable

__all__ = ["EXAMPLE_SIZES", "dims_of", "trace"]

# Distinct sizes above one, so that no dimension is taken for another or for a constant.
EXAMPLE_SIZES = {"batch": 2, "sequence": 5, "total_sequence": 11}

Dims = Sequence[str | None]


def trace(
    module: nn.Module, inputs: Sequence[Tensor], dims: Sequence[Dims], longest: int | None = None
) -> ExportedProgram:
    """Trace ``module(inputs)``; the module takes one tuple of tensors.

    Args:
        inputs: meta tensors.
        dims: for each input the name of each dimension, None where it is static.
        longest: upper bound of every dimension but the batch, where the model has one.

    Raises:
        ExportError: torch cannot trace the model; its own words are in ``found``.
    """
    with warnings.catch_warnings(), torch.no_grad(), _quiet(), _lean(module):
        warnings.simplefilter("ignore")
        try:
            program = _exported(module, inputs, dims, longest)
        except ExportError:
            raise
        except Exception as error:
            if fixed := re.search(r"Constraints violated \((.*?)\)", str(error)):
                raise ExportError(
                    "the model's code fixes a size that must stay open", found=fixed[1]
                ) from error
            raise untraceable(error) from error
    put_together(program.graph_module)
    return program


def _exported(
    module: nn.Module, inputs: Sequence[Tensor], dims: Sequence[Dims], longest: int | None
) -> ExportedProgram:
    """The program; where torch's own question whether something is broadcast fixes a size (whether
    ``sequence - 1`` is 1, of a model that shifts its tokens), once more without that question."""

    def export(least: int | None) -> ExportedProgram:
        shapes = _open(dims, least, longest)
        return torch.export.export(
            module, (tuple(inputs),), dynamic_shapes=(tuple(shapes),), strict=False
        )

    try:
        return export(None)
    except ExportError:
        raise
    except Exception as error:
        if "Constraints violated" not in str(error):
            raise
    with shape_config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]  # untyped
        return export(2)  # as torch takes it to be, where it asks


def _open(dims: Sequence[Dims], least: int | None, longest: int | None) -> list[dict[int, Dim]]:
    """The open sizes of each input, by axis; one object for each name."""
    known: dict[str, Dim] = {}
    return [
        {
            axis: known.setdefault(
                name, Dim(name, min=least, max=None if name == "batch" else longest)
            )
            for axis, name in enumerate(names)
            if name is not None
        }
        for names in dims
    ]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's own report of a failed attempt off the screen: ours is in the error."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _uncached() -> AbstractContextManager[object]:
    """Compute each shape once, without looking for it among those of earlier ops.

    With open sizes a look costs as much as the shape itself, and what is found is computed again:
    a fifth of the time of a trace.
    """
    from torch._dynamo import config

    if not hasattr(config, "fake_tensor_cache_enabled"):
        return nullcontext()
    patch: AbstractContextManager[object] = config.patch(fake_tensor_cache_enabled=False)
    return patch


@contextmanager
def _lean(module: nn.Module) -> Iterator[None]:
    """Trace without what torch does for others and nothing here reads."""
    with _uncached(), _unplaced(), _in_one_piece(module):
        yield


@contextmanager
def _unplaced() -> Iterator[None]:
    """Do not note, op by op, the lines of code that called it: nothing here reads them."""
    name = "do_not_emit_stack_traces"
    before = getattr(fx_config, name, None)
    if before is None:  # not every torch has this switch
        yield
        return
    setattr(fx_config, name, True)
    try:
        yield
    finally:
        setattr(fx_config, name, before)


@contextmanager
def _in_one_piece(module: nn.Module) -> Iterator[None]:
    """Keep ``torch.no_grad()`` of the model's code out of the graph: gradients are off anyway.

    torch would cut the graph wherever it is entered and left, and put the pieces together again.
    """
    own, forward = module.__dict__.get("forward"), module.forward

    @functools.wraps(forward)
    def traced(*args: Any) -> Any:
        with _Idle():
            return forward(*args)

    module.forward = traced
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


class _Idle(TorchFunctionMode):
    """Leaves out what sets gradients to what they are set to."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is torch._C._set_grad_enabled and args[0] == torch.is_grad_enabled():
            return None
        return func(*args, **(kwargs or {}))


def dims_of(program: ExportedProgram, dims: Sequence[Dims]) -> dict[str, str]:
    """The symbol (``s27``) of each named dimension, from the traced inputs: symbol -> name."""
    names: dict[str, str] = {}
    inputs = [
        n
        for n in program.graph.nodes
        if n.op == "placeholder" and n.name in program.graph_signature.user_inputs
    ]
    for node, wanted in zip(inputs, dims, strict=True):
        for axis, name in enumerate(wanted):
            size = node.meta["val"].shape[axis]
            if name is not None and isinstance(size, torch.SymInt):
                names[str(size.node.expr)] = name
    return names
