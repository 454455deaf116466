"""A tiny decoder, exported and lowered to static caches, run on onnxruntime token by token."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from lepton_compile.export import ExportedModel, export, resolve
from lepton_passes.catalog import CATALOG
from lepton_passes.lowering.trt.cached_attention import LowerTrtCachedAttention
from lepton_passes.lowering.trt.static_cache import LowerTrtStaticCache
from tests.export.harness import save
from tests.export.zoo import DECODERS
from tests.passes.lowering.trt.reference import executable
from tests.passes.support import run

CAPACITY = 32


def exported(name: str, folder: Path) -> ExportedModel:
    """A decoder of the zoo behind the clean-up that every target gets."""
    save(DECODERS[name][0], "text-generation", folder)
    made = export(resolve(str(folder), folder, False), "text-generation", length=CAPACITY)
    for entry in CATALOG:
        if entry.stage == "cleanup":
            entry.make()(made.model)
    return made


def lowered(model: ir.Model, form: str = "auto") -> tuple[ir.Model, LowerTrtCachedAttention]:
    """A copy with static caches, and the pass that chose the forms."""
    copy = model.clone()
    static = LowerTrtStaticCache(CAPACITY)
    static(copy)
    assert not static.refusals
    attention = LowerTrtCachedAttention(form)
    attention(copy)
    return copy, attention


def neutral_logits(made: ExportedModel, ids: np.ndarray) -> np.ndarray:
    """Logits of every position, without a cache."""
    feeds = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "logits_to_keep": np.array(0, np.int64),
    }
    for index, cache in enumerate(made.caches):
        empty = np.zeros((len(ids), cache.heads, 0, cache.head_dim), np.float32)
        feeds |= {f"past_key_values.{index}.{kind}": empty for kind in ("key", "value")}
    return run(made.model, feeds)[0]


def stepped_logits(
    model: ir.Model, made: ExportedModel, ids: np.ndarray, prefill: int
) -> np.ndarray:
    """Last logits after the prefill and after each further token, (batch, steps, vocabulary)."""
    batch, length = ids.shape
    caches = {
        f"past_key_values.{index}.{kind}": np.zeros(
            (batch, cache.heads, CAPACITY, cache.head_dim), np.float32
        )
        for index, cache in enumerate(made.caches)
        for kind in ("key", "value")
    }
    runnable = executable(model)
    found, past = [], 0
    for stop in range(prefill, length + 1):
        feeds = {"input_ids": ids[:, past:stop], "past_lengths": np.full(batch, past, np.int32)}
        logits, *present = run(runnable, {**feeds, **caches})
        names = [
            output.name.replace("present", "past_key_values") for output in runnable.graph.outputs
        ][1:]
        caches = dict(zip(names, present, strict=True))
        found.append(logits[:, -1])
        past = stop
    return np.stack(found, axis=1)
