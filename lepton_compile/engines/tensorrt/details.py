"""What a loader has to know of an engine beyond its file: the entry in the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import onnx_ir as ir

from lepton_compile.engines.contract import EngineJob
from lepton_compile.engines.interface import signature
from lepton_compile.engines.tensorrt.order import Profile
from lepton_compile.engines.tensorrt.plugins import aliases_of
from lepton_compile.errors import EngineError
from lepton_passes.lowering.trt.forms import attention_forms
from lepton_passes.lowering.trt.quantized_cache import scale_of
from lepton_passes.match import KEYS_AND_VALUES

__all__ = ["attention_of", "details_of", "rooms_of"]


def attention_of(model: ir.Model) -> dict[str, Any] | None:
    """Attention layers and how many have which form; asked before the graph is flattened."""
    forms = attention_forms(model)
    return {"layers": sum(forms.values()), "forms": forms} if forms else None


def details_of(
    job: EngineJob,
    attention: Mapping[str, Any] | None,
    capabilities: Sequence[str],
    profiles: Sequence[Profile],
) -> dict[str, Any]:
    """The entry of a flat graph's engine.

    Args:
        capabilities: of ``built_for``.
    """
    graph = job.model.graph
    return {
        "io": {"inputs": signature(graph.inputs), "outputs": signature(graph.outputs)},
        "aliases": aliases_of(job.model),
        "cache": _cache(job),
        "profiles": [asdict(each) for each in profiles],
        "compute_capabilities": list(capabilities),
        "attention": dict(attention) if attention else None,
    }


def rooms_of(job: EngineJob) -> tuple[int, ...]:
    """Capacities of the caches of a decoder; empty where it has one alone.

    Raises:
        EngineError: the model ends before the largest.
    """
    rooms = job.recipe.shapes.cache if job.caches else ()
    if len(rooms) < 2:
        return ()
    longest = job.ranges["sequence"][1]
    if rooms[-1] != longest:
        raise EngineError(
            f"the model takes {longest} tokens, and the largest cache holds {rooms[-1]}",
            where="shapes.cache",
            found=", ".join(map(str, rooms)),
            available=[f"up to {longest}"],
        )
    return rooms


def _cache(job: EngineJob) -> dict[str, Any] | None:
    past = [v for v in job.model.graph.inputs if (v.name or "").startswith(KEYS_AND_VALUES)]
    if not past or past[0].dtype is None or past[0].shape is None:
        return None
    capacity = past[0].shape[2]
    scales = {v.name or "": scale for v in past if (scale := scale_of(v)) is not None}
    return {
        "dtype": past[0].dtype.numpy().name,
        "capacity": capacity if isinstance(capacity, int) else job.ranges["sequence"][1],
        "aliased": True,
        **({"buckets": list(rooms)} if (rooms := rooms_of(job)) else {}),
        **({"scales": scales} if scales else {}),
    }
