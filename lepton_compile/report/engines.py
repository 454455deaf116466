"""What a report says of each engine: what it is for, and what its builder made of the graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["engine_sections", "layer_counts"]

EXECUTED, UNSEEN = "executed: true", "executed: false (built, never run)"


def engine_sections(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One entry an engine: ``title``, ``facts``, ``profiles``, ``counts``, ``layers``, ``log``."""
    return [
        _section(engine, data["builders"].get(engine["target"]) or {}) for engine in data["engines"]
    ]


def layer_counts(layers: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, int]]:
    """(type, precision, how many), the most frequent first."""
    counted = Counter((each["type"], each["precision"]) for each in layers)
    return [(kind, precision, count) for (kind, precision), count in counted.most_common()]


def _section(engine: Mapping[str, Any], builder: Mapping[str, Any]) -> dict[str, Any]:
    layers = builder.get("layers") or []
    return {
        "title": f"{engine['target']} · {engine['precision']}",
        "facts": [(name, value) for name, value in _facts(engine, builder) if value],
        "profiles": [
            (profile["name"], name, *(profile[end][name] for end in ("min", "opt", "max")))
            for profile in engine.get("profiles") or ()
            for name in profile["max"]
            if not name.startswith("past_key_values.")
        ],
        "counts": layer_counts(layers),
        "layers": [
            (each["name"], each["type"], each["precision"], _shapes(each)) for each in layers
        ],
        "log": [f"{severity}: {text}" for severity, text in builder.get("log") or ()],
    }


def _facts(engine: Mapping[str, Any], builder: Mapping[str, Any]) -> list[tuple[str, str]]:
    requires = (engine.get("requires") or {}).items()
    cache, plugin = engine.get("cache") or {}, engine.get("plugin") or {}
    return [
        ("run", EXECUTED if engine.get("executed") else UNSEEN),
        ("requires", ", ".join(f"{name}{version}" for name, version in requires)),
        ("compute capabilities", ", ".join(engine.get("compute_capabilities") or ())),
        ("computes in", engine.get("compute") or ""),
        ("attention", _attention(engine.get("attention") or {})),
        ("cache", _cache(cache)),
        ("kernels", _kernels(engine.get("kernels") or {})),
        ("plugin", _plugin(plugin) if plugin else ""),
        ("built by", str(builder.get("version") or "")),
    ]


def _attention(attention: Mapping[str, Any]) -> str:
    if not attention:
        return ""
    forms = ", ".join(f"{count} {form}" for form, count in attention["forms"].items())
    return f"{attention['layers']} layers: {forms}"


def _kernels(kernels: Mapping[str, Any]) -> str:
    if not kernels:
        return ""
    where = f"{kernels['system']} on {kernels['machine']} with {', '.join(kernels['features'])}"
    return f"{kernels['library']} for {where}, made by {kernels['compiler']}"


def _plugin(plugin: Mapping[str, Any]) -> str:
    kernels = ", ".join(plugin["architectures"])
    return f"{plugin['namespace']}::{plugin['name']}, kernels for {kernels}"


def _shapes(layer: Mapping[str, Any]) -> str:
    return ", ".join("x".join(map(str, shape)) or "scalar" for _, _, shape in layer["outputs"])


def _cache(cache: Mapping[str, Any]) -> str:
    """What a row of a static cache holds, one size or several to choose from."""
    if "capacity" not in cache:
        return ""
    rooms = cache.get("buckets") or [cache["capacity"]]
    return f"{' or '.join(map(str, rooms))} tokens of {cache['dtype']}"
