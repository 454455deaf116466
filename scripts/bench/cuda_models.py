"""Models that read, hear or see on a GPU: ort-cuda engines beside PyTorch, both in fp16.

    python scripts/bench/cuda_models.py --json out.json
    python scripts/bench/cuda_models.py --only bart-base --rounds 3

Published shapes and random weights, as ``pairs.py`` has them. In one process and on one device the
tools have their turns, round by round. What goes in and what comes out lies on the host, for either
of them. An encoder-decoder reads once and then writes token by token, the likeliest each time; the
others take one input or many. Decoders are for ``ort_cuda.py``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pairs
from ort_cuda import device_name, measure, versions

MINILM = {
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
}
SHAPES = {"minilm-l6": ("BertConfig", "AutoModel", MINILM), **pairs.SHAPES}
TASKS = {
    "AutoModel": "feature-extraction",
    "AutoModelForImageClassification": "image-classification",
    pairs.PAIR: "text2text-generation",
    pairs.SPEECH: "automatic-speech-recognition",
}
TOOLS = ("lepton", "eager", "compiled")
Feeds = dict[str, np.ndarray]
Run = Callable[[], Any]


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=tuple(SHAPES), default=tuple(SHAPES))
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS)
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="cpu tries it out"
    )
    parser.add_argument("--source", type=int, default=512, help="tokens that are read")
    parser.add_argument("--new", type=int, default=128, help="tokens that are written")
    parser.add_argument("--many", type=int, default=32, help="rows of the larger batch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where the result goes; default: standard output")
    return parser.parse_args(given)


def feeds_for(config: Any, task: str, rows: int, length: int) -> Feeds:
    """Random inputs of a model, by its names for them."""
    rng = np.random.default_rng(0)
    if task == "image-classification":
        size = config.image_size
        return {"pixel_values": rng.normal(size=(rows, 3, size, size)).astype(np.float32)}
    if task == "automatic-speech-recognition":
        shape = (rows, config.num_mel_bins, 2 * config.max_source_positions)
        return {"input_features": rng.normal(size=shape).astype(np.float32)}
    ids = rng.integers(3, config.vocab_size - 1, (rows, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


class Torch:
    """PyTorch in fp16 on a GPU, in fp32 beside none."""

    def __init__(self, folder: Path, name: str, device: str) -> None:
        import torch
        import transformers

        self.torch, self.device = torch, device
        dtype = torch.float16 if device == "cuda" else torch.float32
        auto = getattr(transformers, SHAPES[name][1])
        self.network = auto.from_pretrained(folder, dtype=dtype).eval().to(device)

    def given(self, feeds: Feeds) -> dict[str, Any]:
        """Tensors on the device; what has fractions in the network's type."""
        tensors = {name: self.torch.from_numpy(v).to(self.device) for name, v in feeds.items()}
        dtype = self.network.dtype
        return {n: v.to(dtype) if v.is_floating_point() else v for n, v in tensors.items()}

    def whole(self, feeds: Feeds, network: Any) -> Run:
        """One call, and its first output back on the host."""

        def run() -> np.ndarray:
            with self.torch.inference_mode():
                found: np.ndarray = network(**self.given(feeds))[0].float().cpu().numpy()
            return found

        return run

    def writing(self, feeds: Feeds, start: int, count: int) -> Run:
        """Read once, then ``count`` tokens; seconds to the first, and seconds for the rest."""

        def run() -> tuple[float, float]:
            with self.torch.inference_mode():
                times, given = [time.perf_counter()], self.given(feeds)
                key = "input_features" if "input_features" in given else "input_ids"
                encoded = self.network.get_encoder()(given[key])
                mask = {n: v for n, v in given.items() if n == "attention_mask"}
                token, past = self.torch.full((1, 1), start, device=self.device), None
                for _ in range(count):
                    made = self.network(
                        encoder_outputs=encoded,
                        decoder_input_ids=token,
                        past_key_values=past,
                        use_cache=True,
                        **mask,
                    )
                    token, past = made.logits[:, -1:].argmax(-1), made.past_key_values
                    int(token)  # a program has each token as it comes
                    times.append(time.perf_counter())
            return times[1] - times[0], times[-1] - times[1]

        return run


class Lepton:
    """The engine through its loader."""

    def __init__(self, folder: Path, task: str, device: str) -> None:
        import lepton_compile as lc

        target = "ort-cuda" if device == "cuda" else "ort-cpu"
        compute = {"compute": "fp16"} if device == "cuda" else {}
        output = folder.with_name(f"{folder.name}-{target}")
        given: dict[str, Any] = {"model": str(folder), "task": task, "target": target, **compute}
        lc.build(output=output, verify=False, check=False, **given)
        self.model = lc.load(output, target=target)

    def whole(self, feeds: Feeds) -> Run:
        """One call, and its first output."""
        return lambda: next(iter(self.model.run(feeds).values()))

    def writing(self, feeds: Feeds, start: int, count: int) -> Run:
        """As ``Torch.writing``, through the loader's own cache."""
        sound = feeds.get("input_features")
        source = sound[0] if sound is not None else feeds["input_ids"][0].tolist()
        cache = self.model.new_cache(1, count + 8)

        def run() -> tuple[float, float]:
            begin = time.perf_counter()
            cache.session = self.model.session.reading([source])
            token = int(cache.start([[start]])[0].argmax())
            middle = time.perf_counter()
            for _ in range(count - 1):
                token = int(cache.step([token], [True])[0].argmax())
            return middle - begin, time.perf_counter() - middle

        return run


def turns(runs: dict[str, Run], rounds: int) -> dict[str, Any]:
    """Medians of rounds in turn; of what gives times itself, those of reading and of a token."""
    found: dict[str, list[Any]] = {tool: [] for tool in runs}
    for run in runs.values():
        for _ in range(2):  # compiles, and fills pools of memory
            run()
    for _ in range(rounds):
        for tool, run in runs.items():
            begin = time.perf_counter()
            made = run()
            took = time.perf_counter() - begin
            found[tool].append(made if isinstance(made, tuple) else took)
    return {tool: np.median(np.array(times), axis=0).tolist() for tool, times in found.items()}


def measured(name: str, asked: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Seconds of each tool for one model."""
    pairs.saved(SHAPES[name], work / name)
    task = TASKS[SHAPES[name][1]]
    tools: dict[str, Any] = {"lepton": Lepton(work / name, task, asked.device)}
    torch = Torch(work / name, name, asked.device)
    config = torch.network.config
    if task in (TASKS[pairs.PAIR], TASKS[pairs.SPEECH]):
        feeds = feeds_for(config, task, 1, asked.source)
        start = config.decoder_start_token_id
        runs = {
            "lepton": tools["lepton"].writing(feeds, start, asked.new),
            "eager": torch.writing(feeds, start, asked.new),
        }
        times = turns({t: run for t, run in runs.items() if t in asked.tools}, asked.rounds)
        each = {t: {"reads_s": r, "token_s": w / (asked.new - 1)} for t, (r, w) in times.items()}
        return {"writing": each}
    result: dict[str, Any] = {}
    for rows in (1, asked.many):
        feeds = feeds_for(config, task, rows, 128)
        runs = {"lepton": tools["lepton"].whole(feeds), "eager": torch.whole(feeds, torch.network)}
        if "compiled" in asked.tools:
            runs["compiled"] = torch.whole(feeds, torch.torch.compile(torch.network))
        error = np.abs(runs["lepton"]() - runs["eager"]())
        scale = float(np.ptp(runs["eager"]()))
        times = turns({t: run for t, run in runs.items() if t in asked.tools}, asked.rounds * 5)
        result[f"{rows} rows"] = {"seconds": times, "difference": float(error.max()) / scale}
    return result


def bench(asked: argparse.Namespace) -> dict[str, Any]:
    """Everything that was asked for, as JSON."""
    found = {}
    for name in asked.only:
        with tempfile.TemporaryDirectory() as work:
            found[name] = measured(name, asked, Path(work))
        print(name, json.dumps(found[name]), file=sys.stderr, flush=True)
    conditions = {name: getattr(asked, name) for name in ("source", "new", "many", "rounds")}
    return {
        "device": device_name(asked.device),
        "conditions": conditions,
        "versions": versions(),
        "models": found,
    }


def main(given: Sequence[str] | None = None) -> int:
    """0 when it measured, 2 where this machine cannot."""
    return measure(arguments(given), bench)


if __name__ == "__main__":
    sys.exit(main())
