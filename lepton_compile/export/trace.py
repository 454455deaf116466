"""``torch.export`` on the meta device, with named dynamic dimensions."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as shape_config

from lepton_compile.errors import ExportError
from lepton_compile.export.lean_trace import lean
from lepton_compile.export.pieces import put_together
from lepton_compile.export.program import inputs_of
from lepton_compile.export.refusal import untraceable

__all__ = ["EXAMPLE_SIZES", "dims_of", "trace"]

# Distinct sizes above one, so that no dimension is taken for another or for a constant.
EXAMPLE_SIZES = {
    "batch": 2,
    "sequence": 5,
    "total_sequence": 11,
    "source": 7,
    "images": 3,
    "tokens": 13,
    "windows": 17,
}

# Sizes that no length of a model bounds.
UNBOUND = ("batch", "images")

Dims = Sequence[str | None]


def trace(
    module: nn.Module, inputs: Sequence[Tensor], dims: Sequence[Dims], longest: int | None = None
) -> ExportedProgram:
    """Trace ``module(inputs)``; the module takes one tuple of tensors.

    Args:
        inputs: meta tensors.
        dims: for each input the name of each dimension, None where it is static.
        longest: upper bound of every dimension but those that are ``UNBOUND``, where the model has
            one; one that the examples do not keep to is theirs.

    Raises:
        ExportError: torch cannot trace the model; its own words are in ``found``.
    """
    with warnings.catch_warnings(), torch.no_grad(), _quiet(), lean(module):
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
        # A cache may have less room than that of the example, which tells its size from a
        # sequence's; and there are more patches of a picture than tokens.
        sizes = [size for given in inputs for size in given.shape]
        most = longest and max([longest, *sizes])
        shapes = _open(dims, least, most)
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
                name, Dim(name, min=least, max=None if name in UNBOUND else longest)
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


def dims_of(program: ExportedProgram, dims: Sequence[Dims]) -> dict[str, str]:
    """The symbol (``s27``) of each named dimension, from the traced inputs: symbol -> name."""
    names: dict[str, str] = {}
    for node, wanted in zip(inputs_of(program), dims, strict=True):
        for axis, name in enumerate(wanted):
            size = node.meta["val"].shape[axis]
            if name is not None and isinstance(size, torch.SymInt):
                names[str(size.node.expr)] = name
    return names
