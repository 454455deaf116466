"""The command line: ``python loader.py`` runs the artifact that the file lies in."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lepton_compile.runtime.loader import Model, load
from lepton_compile.runtime.loader_guard import LoaderError

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run with the command line's arguments; the exit status."""
    root = Path(__file__).parent
    try:
        options = _options(_task(root), arguments)
        with load(root, options.pop("threads"), options.pop("target")) as model:
            for name, reason in model.passed_over.items():
                print(f"the engine for {name} does not run here: {reason}", file=sys.stderr)
            for piece in _pieces(model, options):
                print(piece, end="", flush=True)
    except LoaderError as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        return 1
    return 0


def _task(root: Path) -> Any:
    """The task, which options depend on; nothing is believed that ``load`` does not check."""
    try:
        return json.loads((root / "manifest.json").read_bytes())["task"]
    except (LookupError, OSError, TypeError, ValueError) as error:
        raise LoaderError(f"{root / 'manifest.json'} is damaged: {error!r}") from error


def _options(task: Any, arguments: list[str] | None) -> dict[str, Any]:
    import argparse

    parser = argparse.ArgumentParser(description=f"Run the compiled model in this folder: {task}.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--inputs", metavar="FILE.npz", help="run these arrays")
    parser.add_argument("--output", metavar="FILE.npz", help="keep what --inputs leads to")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--target", help="the engine to run, rather than the best that can")
    if task == "text-generation":
        from lepton_compile.runtime.loader_script_prompt import add_prompts

        add_prompts(parser, what)
    if task != "text-generation":
        from lepton_compile.runtime.loader_script_text import add_texts

        add_texts(parser, what)
    return vars(parser.parse_args(arguments))


def _pieces(model: Model, options: dict[str, Any]) -> Iterator[str]:
    """What to print."""
    inputs, output = options.pop("inputs"), options.pop("output")
    if inputs is not None:
        yield from _results(model.run(_arrays(inputs)), output)
        return
    if "prompt" in options:
        from lepton_compile.runtime.loader_script_prompt import continued

        yield from continued(model, **options)
    if "text" in options:
        from lepton_compile.runtime.loader_script_text import about

        yield from about(model, **options)


def _arrays(file: str) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, TypeError, ValueError) as error:
        raise LoaderError(f"{file} holds no arrays: {error}") from error


def _results(results: dict[str, np.ndarray], output: str | None) -> Iterator[str]:
    if output:
        np.savez(output, **results)  # type: ignore[arg-type]
    for name, array in results.items():
        yield json.dumps({"name": name, "dtype": str(array.dtype), "shape": array.shape}) + "\n"


if __name__ == "__main__":
    sys.exit(main())
