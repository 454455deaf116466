"""The command line: ``python loader.py`` runs the artifact that the file lies in."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lepton_compile.runtime.loader import Model, load
from lepton_compile.runtime.loader_guard import LoaderError, refuse

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run with the command line's arguments; the exit status."""
    options = _options(arguments)
    try:
        with load(Path(__file__).parent, options.pop("threads"), options.pop("target")) as model:
            for name, reason in model.passed_over.items():
                print(f"the engine for {name} does not run here: {reason}", file=sys.stderr)
            for piece in _pieces(model, **options):
                print(piece, end="", flush=True)
    except LoaderError as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        return 1
    return 0


def _options(arguments: list[str] | None) -> dict[str, Any]:
    import argparse

    parser = argparse.ArgumentParser(description="Run the compiled model in this folder.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--prompt", nargs="+", help="continue these texts")
    what.add_argument("--text", nargs="+", help="embed, classify or complete these texts")
    what.add_argument("--inputs", metavar="FILE.npz", help="run these arrays")
    parser.add_argument("--question", help="answer this from each --text")
    parser.add_argument("--output", metavar="FILE.npz", help="keep what --inputs leads to")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--target", help="the engine to run, rather than the best that can")
    numbers = {"--max-new-tokens": int, "--top-k": int, "--seed": int}
    for name in ("--temperature", "--top-p", "--min-p", "--repetition-penalty", *numbers):
        parser.add_argument(name, type=numbers.get(name, float), default=argparse.SUPPRESS)
    parser.add_argument("--stop", action="append", default=[], help="end before this text")
    parser.add_argument("--stop-token", action="append", type=int, dest="stop_tokens", default=[])
    parser.add_argument("--chat", action="store_true", help="each prompt is a chat message")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--stream", action="store_true", help="print text as it comes")
    how.add_argument("--json", action="store_true", help="print a document for each prompt")
    return vars(parser.parse_args(arguments))


def _pieces(
    model: Model, prompt: Any, text: Any, inputs: Any, question: Any, output: Any, **options: Any
) -> Iterator[str]:
    """What to print: continuations as text unless JSON is asked for, everything else as JSON."""
    stream, as_json = options.pop("stream"), options.pop("json")
    if prompt is not None and stream:
        refuse(len(prompt) > 1, "--stream takes one prompt")
        yield from model.generate(prompt[0], stream=True, **options)
        yield "\n"
    elif prompt is not None:
        for one, made in zip(prompt, model.generate(prompt, **options), strict=True):
            found = {name: getattr(made, name) for name in ("text", "tokens", "finish", "timings")}
            yield f"{json.dumps({'prompt': one, **found}) if as_json else made.text}\n"
    elif text is not None:
        for one, found in zip(text, _found(model, text, question), strict=True):
            yield json.dumps({"text": one, **found}) + "\n"
    else:
        results = model.run(_arrays(inputs))
        if output:
            np.savez(output, **results)  # type: ignore[arg-type]
        for name, array in results.items():
            yield json.dumps({"name": name, "dtype": str(array.dtype), "shape": array.shape}) + "\n"


def _found(model: Model, texts: list[str], question: str | None) -> Iterator[dict[str, Any]]:
    """What the model's task makes of each text."""
    if question is not None:
        yield from (model.answer(question, text) for text in texts)
    elif model.task == "fill-mask":
        yield from ({"words": model.fill(text)} for text in texts)
    elif model.task == "feature-extraction":
        yield from ({"embedding": row} for row in model.embed(texts).tolist())
    else:
        yield from ({"labels": row} for row in model.classify(texts))


def _arrays(file: str) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, TypeError, ValueError) as error:
        raise LoaderError(f"{file} holds no arrays: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
