"""Gemma's decode on a GPU: an ort-cuda engine, PyTorch eager, torch.compile with a static cache.

    python scripts/bench/ort_cuda.py --json out.json             # the sample package's Gemma 3 270M
    python scripts/bench/ort_cuda.py --model ./folder --compute bf16

Builds the engine, holds its logits against PyTorch in fp32, then times them in turn, round by
round, in one process and on one device: ours as the loader runs it and without its CUDA graph, and
both of PyTorch. Needs no network: the model is a folder or comes out of the sample package. Seconds
per token are those between generating one token and generating all.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from outcome import tell

TOOLS = ("lepton", "uncaptured", "eager", "compiled")
PACKAGES = ("torch", "transformers", "onnxruntime", "onnxruntime-gpu", "lepton-compile")
Generate = Callable[[list[int], int], Sequence[int]]


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="folder of a decoder; default: Gemma 3 270M")
    parser.add_argument("--work", type=Path, default=Path(".cache/bench"), help="models, artifacts")
    parser.add_argument("--compute", choices=("fp16", "bf16"), default="fp16")
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="cpu tries it out"
    )
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS)
    parser.add_argument("--prompt", type=int, default=512, help="tokens")
    parser.add_argument("--new", type=int, default=128, help="tokens")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where the result goes; default: standard output")
    found = parser.parse_args(given)
    if found.new < 2 or found.prompt < 1 or found.rounds < 1:
        parser.error("--new takes at least 2, --prompt and --rounds at least 1")
    return found


def device_name(device: str) -> str:
    """The name of what is measured on."""
    import torch

    return str(torch.cuda.get_device_name(0)) if device == "cuda" else platform.processor() or "cpu"


def missing(device: str) -> str:
    """Why nothing can be measured here; empty where it can."""
    if device == "cpu":
        return ""
    import torch

    from lepton_compile.engines.probe import probe

    state = probe("ort-cuda")
    if not state.runs:
        return f"ort-cuda does not run here: {state.reason}"
    return "" if torch.cuda.is_available() else "this torch has no CUDA"


def lepton(folder: Path, asked: argparse.Namespace) -> Any:
    """The opened model of a new artifact."""
    import tempfile

    import lepton_compile as lc

    target = "ort-cuda" if asked.device == "cuda" else "ort-cpu"
    compute = {"compute": asked.compute} if asked.device == "cuda" else {}
    asked.work.mkdir(parents=True, exist_ok=True)
    output = Path(tempfile.mkdtemp(prefix=f"{target}-", dir=asked.work)) / "artifact"
    given: dict[str, Any] = {"model": str(folder.absolute()), "target": target, **compute}
    lc.build(output=output, verify=False, check=False, **given)
    return lc.load(output, target=target)


def through(model: Any, asked: argparse.Namespace, *, captured: bool) -> Generate:
    """Generation through a cache of the loader; ``captured`` as it makes one itself."""
    from lepton_compile.runtime.loader_shared_cache import SharedCache

    make = model.new_cache if captured else functools.partial(SharedCache, model)
    cache = make(1, asked.prompt + asked.new)

    def generate(ids: list[int], count: int) -> list[int]:
        """The loader's own loop, but past tokens that end a text, as the others do here."""
        made = [int(cache.start([ids])[0].argmax())]
        while len(made) < count:
            made.append(int(cache.step([made[-1]], [True])[0].argmax()))
        return made

    return generate


def pytorch(folder: Path, asked: argparse.Namespace, *, compiled: bool) -> Generate:
    """transformers' own generation; ``compiled`` with a static cache, for which it compiles."""
    import torch
    from transformers import AutoModelForCausalLM

    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[asked.compute]
    wanted = dtype if asked.device == "cuda" else torch.float32
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=wanted).eval().to(asked.device)
    network.generation_config.eos_token_id = None
    cache = {"cache_implementation": "static"} if compiled else {"disable_compile": True}

    @torch.inference_mode()
    def generate(ids: list[int], count: int) -> list[int]:
        given = torch.tensor([ids], device=asked.device)
        mask = torch.ones_like(given)
        options = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False, **cache}
        made = network.generate(given, attention_mask=mask, **options)
        return list(made[0, len(ids) :].tolist())

    return generate


def agreement(model: Any, folder: Path, ids: list[int]) -> dict[str, float]:
    """The engine's logits against PyTorch in fp32 on the host."""
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        expected = network(torch.tensor([ids])).logits[0].numpy()
    found = model.logits(ids)[0]
    return {
        "max_error": float(np.abs(found - expected).max() / np.ptp(expected)),
        "argmax": float((found.argmax(-1) == expected.argmax(-1)).mean()),
    }


def measured(generate: Generate, ids: list[int], count: int) -> tuple[float, float]:
    """(seconds to the first token, seconds for each after it)."""
    begin = time.perf_counter()
    generate(ids, 1)
    first = time.perf_counter() - begin
    begin = time.perf_counter()
    made = generate(ids, count)
    return first, (time.perf_counter() - begin - first) / max(len(made) - 1, 1)


def summary(times: dict[str, list[tuple[float, float]]], prompt: int) -> dict[str, Any]:
    """Medians as tokens per second, and decode as a multiple of each other tool's."""
    rates = {
        tool: {
            "prefill_tok_s": prompt / statistics.median(first for first, _ in rounds),
            "decode_tok_s": 1 / statistics.median(each for _, each in rounds),
        }
        for tool, rounds in times.items()
    }
    own = rates.get("lepton", {}).get("decode_tok_s")
    others = [tool for tool in rates if tool != "lepton"] if own else []
    return {
        "tools": rates,
        "decode_ratio": {tool: own / rates[tool]["decode_tok_s"] for tool in others if own},
        "rounds": times,
    }


def bench(asked: argparse.Namespace) -> dict[str, Any]:
    """Everything that was asked for, as JSON."""
    import numpy as np

    folder = asked.model
    if folder is None:
        from peerbench.gemma_folder import gemma_folder

        folder = gemma_folder(asked.work)
    vocabulary = json.loads((folder / "config.json").read_text("utf-8"))["vocab_size"]
    ids = np.random.default_rng(0).integers(3, vocabulary, asked.prompt).tolist()
    runs: dict[str, Generate] = {}
    result: dict[str, Any] = {"device": device_name(asked.device), "verify": None}
    if ours := [tool for tool in TOOLS[:2] if tool in asked.tools]:
        model = lepton(folder, asked)
        result["captured"] = getattr(model.session, "captures", False)
        result["verify"] = agreement(model, folder, ids)
        runs |= {tool: through(model, asked, captured=tool == "lepton") for tool in ours}
    for tool in (tool for tool in TOOLS[2:] if tool in asked.tools):
        runs[tool] = pytorch(folder, asked, compiled=tool == "compiled")
    for generate in runs.values():  # compiles, and fills pools of memory
        measured(generate, ids, asked.new)
    times: dict[str, list[tuple[float, float]]] = {tool: [] for tool in runs}
    for _ in range(asked.rounds):
        for tool, generate in runs.items():
            times[tool].append(measured(generate, ids, asked.new))
    conditions = {"prompt": asked.prompt, "new": asked.new, "compute": asked.compute}
    return {**result, "conditions": conditions, "versions": versions(), **summary(times, len(ids))}


def versions() -> dict[str, str]:
    """Of what is measured, where it is installed."""
    known = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    return {name: known[name] for name in PACKAGES if name in known}


def main(given: Sequence[str] | None = None) -> int:
    """0 when it measured, 2 where this machine cannot."""
    return measure(arguments(given), bench)


def measure(asked: argparse.Namespace, how: Callable[[argparse.Namespace], dict[str, Any]]) -> int:
    """Measure where that is possible, and write the result; the exit status."""
    if reason := missing(asked.device):
        print(reason, file=sys.stderr)
        return 2
    tell(how(asked), asked.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
