"""What passes declined, the same reason of one pass together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["refusal_groups"]


def refusal_groups(passes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """``name``, ``reason`` and ``nodes`` of each group, from the entries of ``passes``."""
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in passes:
        for refusal in entry["refusals"]:
            key = (entry["name"], refusal["reason"])
            group = groups.setdefault(key, {"name": key[0], "reason": key[1], "nodes": []})
            layers = refusal.get("layers") or []
            many = f" ({len(layers)} layers)" if len(layers) > 1 else ""
            group["nodes"].append(f"{refusal['node']}{many}")
    return list(groups.values())
