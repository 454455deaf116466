"""How long turns of a conversation wait for their first token: what was read is held, or is not.

    lepton-compile build gemma3-270m/ort-cpu-int4 -o out/gemma
    python scripts/bench/conversation.py out/gemma --json out.json

Each prompt is the one before, its answer, and as many new tokens again; what they say does not
matter, so they are drawn. The emitted loader has its turns with the buffers of the turn before, and
after ``forget``; both give the same answers, or the benchmark fails.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from outcome import tell, where

PACKAGES = ("numpy", "onnxruntime", "lepton-compile")


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=200, help="new ones of each turn")
    parser.add_argument("--answer", type=int, default=50, help="tokens of an answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where the result goes; default: standard output")
    return parser.parse_args(given)


def conversation(model: Any, asked: argparse.Namespace, *, held: bool) -> list[dict[str, Any]]:
    """Tokens, seconds to the first token and the answer of each turn."""
    draw, found, prompt = np.random.default_rng(0), list[dict[str, Any]](), list[int]()
    words = model.manifest["generation"]["vocabulary"]
    model.forget()
    for _ in range(asked.turns):
        prompt = prompt + draw.integers(3, words, asked.tokens).tolist()
        if not held:
            model.forget()
        made = model.generate(prompt, max_new_tokens=asked.answer)
        turn = {"tokens": len(prompt), "seconds": made.timings["prefill_s"], "answer": made.tokens}
        found.append(turn)
        prompt = prompt + made.tokens
    return found


def measured(asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Medians of each turn, held and read anew."""
    import lepton_compile as lc

    with lc.load(asked.artifact, threads=asked.threads) as model:
        runs: dict[bool, list[list[dict[str, Any]]]] = {True: [], False: []}
        for _ in range(asked.rounds):
            for held, of_kind in runs.items():
                of_kind.append(conversation(model, asked, held=held))
    answers = {
        json.dumps([turn["answer"] for turn in run]) for kind in runs.values() for run in kind
    }
    if len(answers) != 1:
        raise SystemExit("the answers differ")
    medians = {
        held: [
            statistics.median(turn["seconds"] for turn in turns)
            for turns in zip(*of_kind, strict=True)
        ]
        for held, of_kind in runs.items()
    }
    return [
        {"tokens": turn["tokens"], "held_s": held, "anew_s": anew}
        for turn, held, anew in zip(runs[True][0], medians[True], medians[False], strict=True)
    ]


def main(given: Sequence[str] | None = None) -> None:
    """Measure, and write the result."""
    asked = arguments(given)
    turns = measured(asked)
    whole = {kind: sum(turn[kind] for turn in turns) for kind in ("held_s", "anew_s")}
    how = {
        name: getattr(asked, name) for name in ("turns", "tokens", "answer", "rounds", "threads")
    }
    tell({**where(PACKAGES), **how, "read": turns, "whole": whole}, asked.json)


if __name__ == "__main__":
    main()
