"""Results as JSON, with the machine and the versions, and as tables to read."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from peerbench.environments import PEERS, pins

__all__ = ["machine", "markdown", "ratios", "save", "versions"]

# Suite -> what is compared with the best of the other tools, and whether more is better.
COMPARED: dict[str, dict[str, bool]] = {
    "gemma": {"decode_tok_s": True, "prefill_tok_s": True, "peak_mb": False},
    "minilm": {"ms.1x16": False, "ms.1x128": False, "ms.32x128": False},
    "compile": {"wall_s": False, "peak_mb": False},
}
OURS = "lepton"
FAITHFUL = 0.995  # Cosine; a second ratio leaves out the peers below it.
SHOWN_PACKAGES = (
    *("torch", "transformers", "onnxruntime", "onnxruntime-genai", "llama_cpp_python"),
    *("openvino", "openvino-genai", "optimum-intel", "nncf", "ctranslate2"),
)


def machine() -> dict[str, Any]:
    """CPU, cores that may be used, memory in GB; nothing that says whose machine it is."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    flags = re.search(r"^flags\s*:(.*)$", info, re.MULTILINE)
    wanted = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8")
    return {
        "cpu": _field(info, "model name"),
        "family_model": f"{_field(info, 'cpu family')}/{_field(info, 'model')}",
        "instructions": [w for w in wanted if flags and w in flags.group(1).split()],
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "python": platform.python_version(),
        "system": platform.system(),
    }


def _field(info: str, name: str) -> str:
    found = re.search(rf"^{name}\s*:\s*(.*)$", info, re.MULTILINE)
    return found.group(1).strip() if found else "unknown"


def versions() -> dict[str, dict[str, str]]:
    """Environment -> the pinned versions of the packages that matter."""
    names = ["project", *sorted(path.stem for path in PEERS.glob("*.txt"))]
    return {
        name: {package: found[package] for package in SHOWN_PACKAGES if package in found}
        for name in names
        for found in [pins(name)]
    }


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """``{"ms": {"1x16": 3}}`` -> ``("ms.1x16", 3)``."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def ratios(suite: str, tools: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Our tool and metric -> how many times better than the best other tool, and which that is."""
    medians = {name: dict(flat(t["median"])) for name, t in tools.items() if "median" in t}
    peers = {name: values for name, values in medians.items() if not name.startswith(OURS)}
    found: dict[str, dict[str, Any]] = {}
    faithful = {name: v for name, v in peers.items() if v.get("cosine", 1.0) >= FAITHFUL}
    note = f" (peers with cosine >= {FAITHFUL})"
    for among, suffix in ((peers, ""), *(((faithful, note),) if faithful != peers else ())):
        for metric, more_is_better in COMPARED.get(suite, {}).items():
            others = {name: values[metric] for name, values in among.items() if metric in values}
            if not others:
                continue
            best = (max if more_is_better else min)(others, key=others.__getitem__)
            for name in medians.keys() - peers.keys():
                mine, theirs = medians[name][metric], others[best]
                times = mine / theirs if more_is_better else theirs / mine
                entry = {"times": round(times, 3), "best_peer": best}
                found[f"{name}: {metric}{suffix}"] = entry
    return dict(sorted(found.items()))


def save(folder: Path, suites: Mapping[str, Any], conditions: Mapping[str, Any]) -> Path:
    """Write JSON and Markdown; suites of an earlier run of the day on this CPU are kept."""
    about = machine()
    day = datetime.date.today().isoformat()
    slug = re.sub(r"[^a-z0-9]+", "-", f"{about['cpu']} {about['family_model']}".lower())
    path = folder / f"{day}-{slug.strip('-')}.json"
    earlier = json.loads(path.read_text(encoding="utf-8"))["suites"] if path.exists() else {}
    results = {
        "date": day,
        "machine": about,
        "versions": versions(),
        "suites": earlier | {name: {**conditions, **suite} for name, suite in suites.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(_readable(results), encoding="utf-8")
    path.with_suffix(".md").write_text(markdown(results), encoding="utf-8")
    return path


def _readable(results: Mapping[str, Any]) -> str:
    """JSON to read and to diff: lists of numbers on one line, no folder of this machine."""
    text = json.dumps(results, indent=1)
    text = re.sub(r"\[[\s\d,.-]+\]", lambda found: " ".join(found.group().split()), text)
    return re.sub(r"/[\w.+-]+(?:/[\w.+-]+)+/(?=[\w.+-])", "", text) + "\n"


def markdown(results: Mapping[str, Any]) -> str:
    """One table per suite, the ratios under it."""
    about = results["machine"]
    instructions = " ".join(about["instructions"])
    lines = [
        f"# {results['date']}, {about['cpu']}, {about['cores']} cores",
        "",
        f"{about['memory_gb']} GB, {instructions}; Python {about['python']}.",
    ]
    for name, suite in results["suites"].items():
        facts = ", ".join(f"{key} {value}" for key, value in _conditions(suite))
        lines += ["", f"## {name}", "", facts, "", *_table(suite["tools"]), ""]
        lines += _failures(suite["tools"])
        for what, ratio in suite.get("ratios", {}).items():
            lines.append(f"- {what}: {ratio['times']:.2f} x {ratio['best_peer']}")
        if "ratio" in suite:
            lines.append(f"- last over first: {suite['ratio']:.2f}")
    return "\n".join(lines).rstrip() + "\n"


def _conditions(suite: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key in ("threads", "rounds"):
        if key in suite:
            yield key, suite[key]
    yield from suite["conditions"].items()


def _table(tools: Mapping[str, Any]) -> list[str]:
    rows = {name: dict(flat(tool["median"])) for name, tool in tools.items() if "median" in tool}
    columns = list(dict.fromkeys(key for row in rows.values() for key in row))
    lines = ["| " + " | ".join(["tool", *columns]) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        cells = (f"{row[key]:.4g}" if key in row else "" for key in columns)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines if rows else []


def _failures(tools: Mapping[str, Any]) -> Iterator[str]:
    """The last thing that each failed tool said."""
    for name, tool in tools.items():
        if "error" in tool:
            yield f"- {name} failed: {tool['error'].strip().splitlines()[-1][:200]}"
