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
    options = _options(arguments)
    try:
        with load(Path(__file__).parent, options.pop("threads"), options.pop("target")) as model:
            for name, reason in model.passed_over.items():
                print(f"the engine for {name} does not run here: {reason}", file=sys.stderr)
            for piece in _answers(model, options):
                print(piece, end="", flush=True)
    except LoaderError as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        return 1
    return 0


def _options(arguments: list[str] | None) -> dict[str, Any]:
    import argparse

    parser = argparse.ArgumentParser(description="Run the compiled model in this folder.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--inputs", metavar="FILE.npz", help="run these arrays")
    parser.add_argument("--output", metavar="FILE.npz", help="keep what --inputs leads to")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--target", help="the engine to run, rather than the best that can")
    if hasattr(Model, "generate"):
        from lepton_compile.runtime.loader_script_prompt import add_prompts

        add_prompts(parser, what)
    if hasattr(Model, "outputs_of"):
        from lepton_compile.runtime.loader_script_text import add_texts

        add_texts(parser, what)
    return vars(parser.parse_args(arguments))


def _answers(model: Model, options: dict[str, Any]) -> Iterator[str]:
    """What to print."""
    inputs, output = options.pop("inputs"), options.pop("output")
    if options.get("prompt"):
        from lepton_compile.runtime.loader_script_prompt import continued

        return continued(model, **options)
    if options.get("text"):
        from lepton_compile.runtime.loader_script_text import about

        return about(model, **options)
    return _ran(model, inputs, output)


def _ran(model: Model, inputs: str, output: str | None) -> Iterator[str]:
    try:
        with np.load(inputs, allow_pickle=False) as arrays:
            feeds = dict(arrays)
    except (OSError, TypeError, ValueError) as error:
        raise LoaderError(f"{inputs} holds no arrays: {error}") from error
    results = model.run(feeds)
    if output:
        np.savez(output, **results)  # type: ignore[arg-type]
    for name, array in results.items():
        yield json.dumps({"name": name, "dtype": str(array.dtype), "shape": array.shape}) + "\n"


if __name__ == "__main__":
    sys.exit(main())
