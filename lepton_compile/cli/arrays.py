"""``lepton-compile run --inputs``: arrays in and out, whatever the model's task."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_compile.cli.onnxfile.view import shape_text
from lepton_compile.cli.output import console, emit_json, table
from lepton_compile.errors import UsageError, told_as

if TYPE_CHECKING:
    from lepton_compile.runtime import Model

__all__ = ["run_arrays"]

_NUMBERS = "biufV"
"""Kinds of numpy's types that are numbers: those of ml_dtypes, such as bfloat16, are V."""


def run_arrays(model: Model, inputs: Path, output: Path | None, as_json: bool) -> None:
    """Runs a model once on the arrays of a file; what comes out goes into another, or is shown.

    Raises:
        UsageError: there are no arrays in the file.
    """
    import numpy as np

    # np.load would take other files, and speak of pickles.
    with told_as(partial(_unread, inputs)), inputs.open("rb") as file:
        feeds = dict(np.lib.npyio.NpzFile(file))
    results = model.run(feeds)
    if output is not None:
        _save(output, results)
    if as_json:
        emit_json(results if output is None else {"output": str(output)})
        return
    rows = [
        (name, str(array.dtype), shape_text(array.shape), _extent(array))
        for name, array in results.items()
    ]
    console().print(table("Outputs", ("name", "type", "shape", "lowest .. highest"), rows))


def _save(output: Path, results: Mapping[str, Any]) -> None:
    import numpy as np

    # Texts come as objects, which would be pickled.
    plain = {name: a.astype(np.str_) if a.dtype.hasobject else a for name, a in results.items()}
    with output.open("wb") as file:  # of a name without .npz, np.savez would make another
        np.savez(file, allow_pickle=False, **plain)


def _unread(inputs: Path, error: BaseException) -> UsageError:
    return UsageError(
        "the inputs cannot be read",
        where=str(inputs),
        found=str(error),
        hint="np.savez makes such a file: arrays by the names of inputs",
    )


def _extent(array: Any) -> str:
    """The range of an array's numbers; a dash where it has others, such as texts."""
    if not array.size:
        return "empty"
    if array.dtype.kind not in _NUMBERS:
        return "-"
    return f"{float(array.min()):.4g} .. {float(array.max()):.4g}"
