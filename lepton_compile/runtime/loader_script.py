"""The command line: ``python loader.py`` runs the artifact that the file lies in."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lepton_compile.runtime.loader import Model, load
from lepton_compile.runtime.loader_guard import LoaderError, failing

__all__ = ["main"]


def main() -> None:
    """Run the artifact that this file lies in, as the command line says."""
    import argparse

    answers: dict[str, Any] = {"inputs": _ran}
    parser = argparse.ArgumentParser(description="Run the compiled model in this folder.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--inputs", metavar="FILE.npz", help="run these arrays")
    parser.add_argument("--output", metavar="FILE.npz", help="keep the outputs for --inputs")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--target", help="the engine to run, rather than the best that can")
    if hasattr(Model, "generate"):
        from lepton_compile.runtime.loader_script_prompt import add_prompts, continued

        add_prompts(parser, what)
        answers["prompt"] = continued
    if hasattr(Model, "transcribe"):
        from lepton_compile.runtime.loader_script_sound import add_sounds, written

        add_sounds(parser, what)
        answers["audio"] = written
    if hasattr(Model, "outputs_of"):
        from lepton_compile.runtime.loader_script_text import about

        what.add_argument("--text", nargs="+", action="extend", help="embed, classify or fill in")
        answers["text"] = about
    if hasattr(Model, "pixels"):
        from lepton_compile.runtime.loader_script_image import pictured

        what.add_argument("--image", nargs="+", action="extend", help="embed or classify files")
        answers["image"] = pictured
    if hasattr(Model, "answer"):
        from lepton_compile.runtime.loader_script_question import add_question

        add_question(parser)
    given = {n: v for n, v in vars(parser.parse_args()).items() if v is not parser.get_default(n)}
    how = [given.pop(name, None) for name in ("threads", "target")]
    if idle := [n for n in given if n not in answers and (n == "output") != ("inputs" in given)]:
        parser.error(f"nothing would come of {idle} here")
    getattr(sys.stdout, "reconfigure", dict)(errors="backslashreplace")  # or closed
    (answer,) = (made for name, made in answers.items() if name in given)
    try:
        with load(Path(__file__).parent, *how) as model:
            for name, reason in model.passed_over.items():
                print(f"the engine for {name} does not run here: {reason}", file=sys.stderr)
            for piece in answer(model, **given):
                print(piece, end="", flush=True)
    except (BrokenPipeError, KeyboardInterrupt):  # who reads has left, or has enough
        os._exit(130)
    except (LoaderError, OSError) as refusal:
        sys.exit(f"error: {refusal}")


def _ran(model: Model, inputs: str, output: str | None = None) -> Iterator[str]:
    """What the arrays of a .npz file lead to, by name, as JSON; np.load would take others."""
    with failing(f"{inputs} holds no arrays"):
        feeds = dict(np.lib.npyio.NpzFile(inputs))  # type: ignore[arg-type]
    results = model.run(feeds)
    if output:
        np.savez(output, **results)  # type: ignore[arg-type]
    for name, array in results.items():
        yield json.dumps({"name": name, "dtype": str(array.dtype), "shape": array.shape}) + "\n"


if __name__ == "__main__":
    main()
