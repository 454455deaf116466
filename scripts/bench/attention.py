"""Our attention kernels on a GPU against each backend of PyTorch's scaled_dot_product_attention.

    python scripts/bench/attention.py --json out.json      # table on standard output
    python scripts/bench/attention.py --smoke              # the whole flow on the CPU, tiny

Decode is one token a row against 128 .. 32768 keys, prefill 512 .. 8192 tokens of an empty cache,
for the head shapes of Gemma 3 270M and of Llama 3 8B. Each contender's call is captured in a CUDA
graph where it can be; times are between CUDA events, medians of ``--rounds``, and before each call
a write of twenty times the L2 cache (1 GiB at least) empties that. Ours is the whole op: it also
writes the new keys and values into the cache. So PyTorch's best backend is timed once more with two
copies in front that do so ("whole"). Needs torch with CUDA, triton and cuda-bindings;
neither the internet nor an installed project (PYTHONPATH of plugins/ will do).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

BACKENDS = ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION")
PACKAGES = ("torch", "triton", "cuda-bindings", "numpy", "nvidia-cudnn-cu13")
HEADS = {"gemma3-270m": (4, 1, 256), "llama3-8b": (32, 8, 128)}
DECODE = tuple(128 << at for at in range(9))
PREFILL = tuple(512 << at for at in range(5))
Call = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """One shape: ``length`` keys in all, of which the last ``sequence`` are new."""

    model: str
    phase: str
    batch: int
    length: int
    capacity: int
    window: int = -1

    @property
    def sequence(self) -> int:
        return 1 if self.phase == "decode" else self.length

    @property
    def bytes(self) -> int:
        """Read and written at least: keys and values in sight, queries, output, in 16 bits."""
        query, heads, width = HEADS[self.model]
        keys = self.length if self.window < 0 else min(self.length, self.window + self.sequence)
        return 2 * self.batch * width * (2 * heads * keys + 2 * query * self.sequence)

    @property
    def flops(self) -> int:
        """Of the two products, for the pairs of query and key that count."""
        query, _, width = HEADS[self.model]
        past = self.length - self.sequence
        window = self.length if self.window < 0 else self.window
        pairs = sum(min(past + at + 1, window) for at in range(self.sequence))
        return 4 * self.batch * query * width * pairs


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="results, also after each case; .md beside it")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--batches", type=int, nargs="+", default=(1, 8))
    parser.add_argument("--models", nargs="+", choices=HEADS, default=tuple(HEADS))
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds; then it stops")
    parser.add_argument("--smoke", action="store_true", help="on the CPU, to try it out")
    return parser.parse_args(given)


def cases(asked: argparse.Namespace) -> list[Case]:
    """Short ones first, so that what is cut off by a limit is the longest."""
    if asked.smoke:
        few = [("decode", 40, 64, -1), ("decode", 40, 48, 16), ("prefill", 20, 24, -1)]
        return [Case("gemma3-270m", *each[:1], 1, *each[1:]) for each in few]
    found = []
    for model, batch in itertools.product(asked.models, asked.batches):
        found += [Case(model, "decode", batch, length, length) for length in DECODE]
        found += [Case(model, "prefill", batch, length, length) for length in PREFILL]
        # What a static cache costs that is mostly empty, and what a window saves.
        found.append(Case(model, "decode", batch, 2048, 32768))
        if model.startswith("gemma"):
            found += [Case(model, "decode", batch, 8192, 8192, 512)]
            found += [Case(model, "prefill", batch, 4096, 4096, 512)]
    return sorted(found, key=lambda each: each.flops)


class Ours:
    """The compiled kernels through the launcher; interpreted ones in a smoke test."""

    def __init__(self, asked: argparse.Namespace) -> None:
        from lepton_plugins.attention.variant import Variant

        self.smoke, self.kernels = asked.smoke, None
        self.dtype = "float16" if asked.smoke else "bfloat16"  # the interpreter's bf16 is wrong
        wanted = {(case.model, case.window) for case in cases(asked)}
        self.variants = {
            (model, window): Variant(self.dtype, *HEADS[model], window=window)
            for model, window in sorted(wanted)
        }
        if not asked.smoke:
            from lepton_plugins.attention.compiled import write_kernels
            from lepton_plugins.attention.driver import CudaDriver
            from lepton_plugins.attention.launcher import Kernels

            folder = Path(tempfile.mkdtemp()) / "kernels"
            write_kernels(folder, self.variants.values(), [CudaDriver().capability()])
            self.kernels = Kernels(folder)

    def call(self, case: Case, tensors: dict[str, Any]) -> Call:
        """What does the op once, on PyTorch's current stream."""
        import torch

        of = self.variants[case.model, case.window]
        sizes = {"batch": case.batch, "sequence": case.sequence, "capacity": case.capacity}
        if self.kernels is None:
            return lambda: _interpreted(of, sizes, tensors)
        kernels = self.kernels
        kernels.prepare(of)
        size = max(256, kernels.workspace_bytes(of, **sizes))
        scratch = torch.empty(size, dtype=torch.uint8, device="cuda")
        addresses = {name: each.data_ptr() for name, each in tensors.items()}
        given: dict[str, Any] = sizes

        def call() -> Any:
            stream = torch.cuda.current_stream().cuda_stream
            at: dict[str, Any] = {"workspace": scratch.data_ptr(), "stream": stream}
            kernels.launch(of, addresses, **given, **at)
            return tensors["output"]

        return call


def _interpreted(of: Any, sizes: dict[str, int], tensors: dict[str, Any]) -> Any:
    import torch

    from lepton_plugins.attention import kernels, launch, source
    from lepton_plugins.attention.tiles import Tiles

    rows = (sizes["batch"], of.kv_num_heads, 3, sizes["sequence"] * of.group)
    partials = {"partial": torch.zeros(*rows, of.head_dim), "partial_lse": torch.zeros(rows)}
    caches = {f"present_{part}": tensors[f"{part}_cache"] for part in ("key", "value")}
    for name in launch.steps(sizes["sequence"]):
        tiles = Tiles(16, 16, 4, 1)
        known = launch.dimensions(of, tiles, **sizes, splits=3)
        every = {**known, **tensors, **partials, **caches}
        given = {argument: every[argument] for argument in launch.arguments(name, of)}
        kernel = getattr(kernels, launch.KERNELS[name].entry)
        kernel[launch.grid(name, known)](**given, **source.constants(name, of, tiles))
    return tensors["output"]


def inputs(case: Case, dtype: str, device: str) -> dict[str, Any]:
    """Random tensors; the caches hold everything but the new rows."""
    import torch

    query, heads, width = HEADS[case.model]
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> Any:
        kind = getattr(torch, dtype)
        return torch.randn(shape, generator=generator, device=device, dtype=kind)

    new, cache = (case.batch, case.sequence), (case.batch, heads, case.capacity, width)
    past = torch.full((case.batch,), case.length - case.sequence, dtype=torch.int32, device=device)
    tensors = {
        "query": normal(*new, query * width),
        "key": normal(*new, heads * width),
        "value": normal(*new, heads * width),
        "past_lengths": past,
        "key_cache": normal(*cache),
        "value_cache": normal(*cache),
    }
    return tensors | {"output": torch.empty_like(tensors["query"])}


def sdpa(
    case: Case, tensors: dict[str, Any], backend: str, *, whole: bool = False
) -> tuple[Call, str]:
    """PyTorch's call on the same caches (after ours has written the new rows), and how it groups.

    ``whole``: it writes the new rows itself, as ours does, and reads them after. A backend that
    knows no groups gets its keys and values repeated beforehand, off the clock.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    heads, _, width = HEADS[case.model]
    query = tensors["query"].view(case.batch, case.sequence, heads, width).transpose(1, 2)
    keys, values = (tensors[f"{p}_cache"][:, :, : case.length] for p in ("key", "value"))
    new = [tensors[p].view(case.batch, case.sequence, -1, width) for p in ("key", "value")]
    attend = torch.nn.functional.scaled_dot_product_attention

    def call_of(keys: Any, values: Any, **more: Any) -> Call:
        def call() -> Any:
            for cache, rows in zip((keys, values), new, strict=True) if whole else ():
                cache[:, :, -case.sequence :].copy_(rows.transpose(1, 2))
            with sdpa_kernel(getattr(SDPBackend, backend)):
                causal = case.sequence > 1
                return attend(query, keys, values, is_causal=causal, **more)

        return call

    grouped = call_of(keys, values, enable_gqa=True)
    try:
        grouped()
        return grouped, "grouped"
    except RuntimeError:
        group = heads // keys.shape[1]
        repeated = [each.repeat_interleave(group, 1) for each in (keys, values)]
        call = call_of(*repeated)
        call()
        return call, "repeated"


class Clock:
    """Medians of a call, from a cold cache; on the CPU plain seconds."""

    def __init__(self, rounds: int, device: str) -> None:
        import torch

        self.rounds, self.device, self.flush = rounds, device, None
        if device == "cuda":
            size = max(1 << 30, 20 * torch.cuda.get_device_properties(0).L2_cache_size)
            self.flush = torch.empty(size, dtype=torch.uint8, device=device)

    def __call__(self, call: Call) -> dict[str, Any]:
        """Microseconds, the spread, and whether a graph was replayed."""
        if self.flush is None:
            return self._summary([self._plain(call) for _ in range(self.rounds)], False)
        import torch

        for _ in range(3):
            call()
        torch.cuda.synchronize()
        graph: Any = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                kept = call()  # its memory belongs to the graph
        except RuntimeError:
            torch.cuda.synchronize()
            return self._summary([self._event(call) for _ in range(self.rounds)], False)
        times = [self._event(graph.replay) for _ in range(self.rounds)]
        del kept
        return self._summary(times, True)

    def _event(self, call: Call) -> float:
        import torch

        event: Any = torch.cuda.Event
        begin, end = (event(enable_timing=True) for _ in range(2))
        assert self.flush is not None
        self.flush.zero_()
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return float(begin.elapsed_time(end)) * 1e3

    def _plain(self, call: Call) -> float:
        begin = time.perf_counter()
        call()
        return (time.perf_counter() - begin) * 1e6

    def _summary(self, times: list[float], graph: bool) -> dict[str, Any]:
        middle = statistics.median(times)
        return {"us": middle, "least_us": min(times), "most_us": max(times), "graph": graph}


def measured(case: Case, ours: Ours, clock: Clock) -> dict[str, Any]:
    """Every contender on one case; one that fails says why."""
    tensors = inputs(case, ours.dtype, clock.device)
    call = ours.call(case, tensors)
    result: dict[str, Any] = {**asdict(case), "bytes": case.bytes, "flops": case.flops}
    found, times = call().float().clone(), {"ours": clock(call)}
    for backend in BACKENDS if case.window < 0 else ():
        try:
            other, form = sdpa(case, tensors, backend)
            output = other().transpose(1, 2).reshape(found.shape).float()
            error = float((found - output).abs().max())
            times[backend] = {**clock(other), "form": form, "difference": error}
        except Exception as refused:
            times[backend] = {"error": str(refused).strip().splitlines()[-1][:200]}
    ran = [name for name in BACKENDS if "us" in times.get(name, {})]
    if best := min(ran, key=lambda name: times[name]["us"], default=None):
        call, form = sdpa(case, tensors, best, whole=True)
        times["whole"] = {**clock(call), "form": form, "backend": best}
    for each in (each for each in times.values() if "us" in each):
        each["gb_s"] = case.bytes / each["us"] / 1e3
        each["tflop_s"] = case.flops / each["us"] / 1e6
    return {**result, "times": times}


def device_rates(clock: Clock) -> dict[str, float]:
    """What this device gives a plain copy, a product of matrices, and a call that does nothing."""
    import torch

    on_gpu = clock.device == "cuda"
    size, width = (1 << 30, 8192) if on_gpu else (1 << 20, 64)
    source = torch.ones(size, dtype=torch.uint8, device=clock.device)
    target, tiny = torch.empty_like(source), torch.zeros(1, device=clock.device)
    kind = torch.bfloat16 if on_gpu else torch.float32
    matrix = torch.randn(width, width, device=clock.device, dtype=kind)
    copy, product = clock(lambda: target.copy_(source)), clock(lambda: matrix @ matrix)
    return {
        "copy_gb_s": 2 * size / copy["us"] / 1e3,
        "matmul_tflop_s": 2 * width**3 / product["us"] / 1e6,
        "nothing_us": clock(lambda: tiny.add_(1))["us"],
    }


def machine(device: str) -> dict[str, Any]:
    """Device and versions."""
    import torch

    known = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    versions = {name: known[name] for name in PACKAGES if name in known}
    found = {"python": platform.python_version(), "versions": versions, "cuda": torch.version.cuda}
    if device != "cuda":
        return {**found, "device": platform.processor() or "cpu"}
    of = torch.cuda.get_device_properties(0)
    shape = {"processors": of.multi_processor_count, "l2_bytes": of.L2_cache_size}
    return {**found, **shape, "device": of.name, "capability": f"{of.major}.{of.minor}"}


def table(result: dict[str, Any]) -> str:
    """Markdown: a row a case; GB/s for decode, TFLOP/s for prefill, and the ratio to the best."""
    rates = result["rates"]
    lines = [
        f"{result['machine']['device']}: a copy moves {rates['copy_gb_s']:.0f} GB/s, matrices "
        f"{rates['matmul_tflop_s']:.0f} TFLOP/s, a call that does nothing takes "
        f"{rates['nothing_us']:.1f} us (not subtracted).",
        "",
        "| case | unit | ours | flash | cuDNN | efficient | ours / best | / whole | ours, us |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case in result["cases"]:
        unit = "gb_s" if case["phase"] == "decode" else "tflop_s"
        rate = [case["times"].get(name, {}).get(unit) for name in ("ours", *BACKENDS)]
        others = [each for each in rate[1:] if each]
        whole = case["times"].get("whole", {}).get(unit)
        equal = f"{rate[0] / whole:.2f}" if whole and rate[0] else "-"
        ratio = f"{rate[0] / max(others):.2f}" if others and rate[0] else "-"
        window = f" window {case['window']}" if case["window"] > 0 else ""
        name = f"{case['model']} {case['phase']} {case['batch']}x{case['length']}{window}"
        if case["capacity"] != case["length"]:
            name += f" of {case['capacity']}"
        cells = [f"{each:.1f}" if each else "-" for each in rate]
        us = f"{case['times']['ours'].get('us', float('nan')):.1f}"
        words = {"gb_s": "GB/s", "tflop_s": "TFLOP/s"}[unit]
        lines.append("| " + " | ".join([name, words, *cells, ratio, equal, us]) + " |")
    return "\n".join(lines) + "\n"


def _keep(result: dict[str, Any], path: Path | None) -> None:
    if path is not None:
        path.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
        path.with_suffix(".md").write_text(table(result), "utf-8")


def main(given: Sequence[str] | None = None) -> int:
    """0 when it measured, 1 when a case of ours failed, 2 where this machine cannot."""
    asked = arguments(given)
    if asked.smoke:
        os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported
        asked.rounds = 1
    begin = time.monotonic()
    import torch

    if not asked.smoke and not torch.cuda.is_available():
        print("no NVIDIA GPU, or this torch has no CUDA; --smoke tries it out", file=sys.stderr)
        return 2
    clock, ours = Clock(asked.rounds, "cpu" if asked.smoke else "cuda"), Ours(asked)
    conditions = {"rounds": asked.rounds, "dtype": ours.dtype, "cold_l2": not asked.smoke}
    result: dict[str, Any] = {"machine": machine(clock.device), "conditions": conditions}
    result |= {"rates": device_rates(clock), "cases": [], "cut_off": 0}
    every = cases(asked)
    for at, case in enumerate(every):
        if time.monotonic() - begin > asked.limit:
            result["cut_off"] = len(every) - at
            break
        try:
            result["cases"].append(measured(case, ours, clock))
        except Exception as failed:
            words = str(failed).strip()[:400]
            print(f"{case}: {words}", file=sys.stderr)
            result["cases"].append({**asdict(case), "times": {"ours": {"error": words}}})
        _keep(result, asked.json)  # as far as it is, should this process be ended
    _keep(result, asked.json)
    print(table(result), end="")
    return 1 if any("error" in case["times"]["ours"] for case in result["cases"]) else 0


if __name__ == "__main__":
    sys.exit(main())
