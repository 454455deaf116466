"""Inputs for the attention op, and what the reference makes of them: shared by every test of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from lepton_plugins.attention.launch import KERNELS
from lepton_plugins.attention.reference import cached_attention, quantize
from lepton_plugins.attention.spec import SPEC
from lepton_plugins.attention.tiles import Tiles
from lepton_plugins.attention.variant import Variant

__all__ = ["SMALL_TILES", "Case", "assert_matches", "expected", "inputs"]

Arrays = dict[str, NDArray[Any]]

# Small enough for many blocks, splits and masked edges in a cache of a few dozen keys.
SMALL_TILES = {
    "append": Tiles(4, 1, 4, 1),
    "prefill": Tiles(32, 16, 4, 1),
    "decode": Tiles(16, 16, 4, 1),
    "combine": Tiles(1, 4, 4, 1),
}


@dataclass(frozen=True)
class Case:
    """A call of the op: ``past`` has one length for each row of the batch."""

    variant: Variant
    sequence: int
    capacity: int
    past: tuple[int, ...]
    splits: int = 3
    seed: int = 0

    @property
    def batch(self) -> int:
        return len(self.past)

    def of(self, **changes: Any) -> Case:
        """The same case with other values of the variant."""
        return replace(self, variant=replace(self.variant, **changes))


def numpy_dtype(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name, None) or name)


def inputs(case: Case) -> Arrays:
    """Fresh arrays by argument name.

    What the caches hold behind ``past`` is not a number, where the dtype can say so: nobody may
    read it.
    """
    variant, random = case.variant, np.random.default_rng(case.seed)
    dtype = numpy_dtype(variant.dtype)

    def normal(*shape: int) -> NDArray[Any]:
        return random.standard_normal(shape).astype(np.float32)

    def cache(scale: float) -> NDArray[Any]:
        shape = (case.batch, variant.kv_num_heads, case.capacity, variant.head_dim)
        filled = quantize(normal(*shape), scale, variant.cache_dtype)
        filled = filled.astype(numpy_dtype(variant.cache_dtype))
        if variant.cache_dtype != "int8":
            for row, past in enumerate(case.past):
                filled[row, :, past:] = np.nan
        return filled

    new = (case.batch, case.sequence, variant.kv_num_heads * variant.head_dim)
    arrays = {
        "query": normal(*new[:2], variant.q_num_heads * variant.head_dim).astype(dtype),
        "key": normal(*new).astype(dtype),
        "value": normal(*new).astype(dtype),
        "past_lengths": np.array(case.past, np.int32),
        "key_cache": cache(variant.key_scale),
        "value_cache": cache(variant.value_scale),
    }
    if variant.sinks:
        arrays["sinks"] = normal(variant.q_num_heads)
    return arrays


def expected(case: Case) -> Arrays:
    """Output (float64) and caches after the call, by the reference."""
    arrays = inputs(case)
    names = ("query", "key", "value", "past_lengths", "key_cache", "value_cache")
    output = cached_attention(*(arrays[name] for name in names), case.variant, arrays.get("sinks"))
    return {
        "output": output,
        "present_key": arrays["key_cache"],
        "present_value": arrays["value_cache"],
    }


def assert_matches(case: Case, found: Arrays) -> None:
    """Output within the spec's tolerance, caches bit for bit."""
    want = expected(case)
    for name in ("present_key", "present_value"):
        assert found[name].tobytes() == want[name].tobytes(), f"{name} differs: {case}"
    allowed = SPEC.tolerance[case.variant.dtype]
    got, truth = found["output"].astype(np.float64), want["output"]
    assert np.isfinite(got).all(), f"not finite: {case}"
    excess = np.abs(got - truth) - (allowed.absolute + allowed.relative * np.abs(truth))
    assert excess.max() <= 0, f"off by {np.abs(got - truth).max():.3g}: {case}"


assert set(SMALL_TILES) == set(KERNELS)
