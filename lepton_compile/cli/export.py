"""``lepton-compile export``: an artifact in the form another server loads."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from lepton_compile.arguments import LARGEST
from lepton_compile.cli.output import bytes_text, console, emit_json, json_option, table
from lepton_compile.cli.paths import PathType
from lepton_compile.errors import located

__all__ = ["epcontext", "export", "genai", "triton"]


NUMBER = click.IntRange(min=1, max=LARGEST)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def export() -> None:
    """Write an artifact in the form another server loads.

    Digests are checked first, files are linked or copied as they are, and the output stands whole
    or not at all. Each format takes --json.
    """


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    """DIR, -o, --copy and --json."""
    for option in (
        json_option,
        click.option(
            "--copy", is_flag=True, help="Copy files; default: hard links where possible."
        ),
        click.option(
            "-o",
            "--output",
            required=True,
            type=PathType(),
            help="Folder to write.",
        ),
        click.argument("folder", metavar="DIR", type=PathType()),
    ):
        command = option(command)
    return command


@export.command(short_help="A model repository for NVIDIA Triton Inference Server.")
@_common
@click.option("--name", help="Of the model; default: the artifact's folder.")
@click.option("--version", default=1, show_default=True, type=NUMBER, help="Version folder.")
@click.option("--target", help="Engine to serve; default: the first that Triton loads.")
@click.option(
    "--instances",
    default=1,
    show_default=True,
    type=NUMBER,
    help="Requests at once, on each device.",
)
def triton(folder: Path, output: Path, as_json: bool, **options: Any) -> None:
    """A model repository for NVIDIA Triton Inference Server.

    Encoders are opened by Triton's own backends. A decoder keeps its KV cache in place, which
    those cannot do; the artifact's loader serves it behind the Python backend.
    """
    from lepton_compile.serving import export_triton

    with located(folder):
        written = export_triton(folder, output, **options)
    _tell(written, as_json, f"tritonserver --model-repository={shlex.quote(str(output))}")


@export.command(short_help="A folder for onnxruntime-genai.")
@_common
@click.option("--target", help="ort-cpu or ort-cuda; default: the first of the artifact's.")
@click.option(
    "--last-logits",
    "last_logits_only",
    is_flag=True,
    help="Logits of the last position only: prefill is faster and takes less memory.",
)
def genai(folder: Path, output: Path, as_json: bool, **options: Any) -> None:
    """A folder for onnxruntime-genai: a decoder's engine, unchanged, and genai_config.json."""
    from lepton_compile.serving import export_genai, genai_left_out

    with located(folder):
        written = export_genai(folder, output, **options)
        remarks = genai_left_out(folder, options["target"])
    code = f"import onnxruntime_genai as g; g.Model({json.dumps(str(output), ensure_ascii=False)})"
    _tell(written, as_json, f"python -c {shlex.quote(code)}", remarks)


@export.command(short_help="An ONNX file for onnxruntime's TensorRT-RTX provider.")
@_common
def epcontext(folder: Path, output: Path, as_json: bool, **options: Any) -> None:
    """An ONNX file around a TensorRT-RTX plan, for onnxruntime's RTX provider.

    It was checked against onnxruntime's schema and never executed.
    """
    from lepton_compile.serving import export_epcontext

    with located(folder):
        written = export_epcontext(folder, output, **options)
    _tell(written, as_json, "never executed: it needs an RTX GPU and onnxruntime's RTX provider")


def _tell(written: Path, as_json: bool, then: str, remarks: Sequence[str] = ()) -> None:
    sizes = {
        path.relative_to(written).as_posix(): path.stat().st_size
        for path in sorted(written.rglob("*"))
        if path.is_file()
    }
    if as_json:
        emit_json({"output": written, "files": sizes, "remarks": [*remarks]})
        return
    out = console()
    rows = [(name, bytes_text(size)) for name, size in sizes.items()]
    out.print(table(str(written), ("file", "size>"), rows))
    for remark in remarks:
        out.print(f"Note: {remark}")
    out.print(then, soft_wrap=not out.is_terminal)
