"""``lepton-compile inspect``: an artifact, any ONNX file, or a TensorRT plan from outside."""

from __future__ import annotations

from pathlib import Path

import click

from lepton_compile.cli.output import console, emit_json, json_option, show
from lepton_compile.cli.paths import PathType

__all__ = ["inspect"]


@click.command()
@click.argument("path", metavar="DIR|FILE", type=PathType())
@json_option
def inspect(path: Path, as_json: bool) -> None:
    """Show inputs, outputs, ops, layers, quantization and sizes.

    DIR is an artifact, FILE an ONNX model or a TensorRT plan. An artifact's files are compared
    with their digests; exit 1 if one is damaged.
    """
    from lepton_compile.cli.artifact_view import artifact_tables, inspect_artifact
    from lepton_compile.errors import UsageError, located

    if not path.exists():
        raise UsageError("there is nothing here", where="DIR|FILE", found=str(path))
    if not path.is_dir():
        if not path.is_file():  # a device or a pipe, which may never end
            raise UsageError(
                "this is neither a folder nor a file", where="DIR|FILE", found=str(path)
            )
        with located(path):
            _file(path, as_json)
        return
    data, intact = inspect_artifact(path)
    if as_json:
        emit_json(data)
    else:
        show(artifact_tables(data))
    if not intact:
        click.get_current_context().exit(1)


def _file(path: Path, as_json: bool) -> None:
    from lepton_compile.cli.onnxfile import model_tables, summarize
    from lepton_compile.cli.planfile import check_plan, is_plan, plan_tables, summarize_plan

    if is_plan(path):
        check_plan(path)
        plan = summarize_plan(path)
        data, tables = plan.as_dict(), plan_tables(plan)
    else:
        model = summarize(path)
        data, tables = model.as_dict(), model_tables(model)
    if as_json:
        emit_json(data)
        return
    console().print(f"{path}", style="bold")
    show(tables)
