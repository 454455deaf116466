"""What a set of kernels is compiled for: everything a kernel knows that is not in its arguments.

Floats and head counts are compiled in, so that a launch passes pointers and 32-bit integers only;
batch, sequence and capacity stay open.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lepton_plugins.attention.spec import CACHE_DTYPES, DTYPES, HEAD_DIMS, HEAD_STEP, SPEC
from lepton_plugins.spec import PluginError

__all__ = ["DTYPE_BYTES", "Variant"]

DTYPE_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "int32": 4, "int8": 1, "float8_e4m3fn": 1}


@dataclass(frozen=True)
class Variant:
    """One set of kernels: dtypes, heads and the flags of the op. Checked when made.

    Raises:
        PluginError: a value out of the range that the spec names.
    """

    dtype: str
    q_num_heads: int
    kv_num_heads: int
    head_dim: int
    cache_dtype: str = ""  # empty: that of the query
    scale: float = 0.0  # 0: head_dim ** -0.5
    softcap: float = 0.0
    window: int = -1
    sinks: bool = False
    key_scale: float = 1.0
    value_scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "cache_dtype", self.cache_dtype or self.dtype)
        self._check_dtypes()
        self._check_heads()
        if not self.scale:
            object.__setattr__(self, "scale", self.head_dim**-0.5)
        for name in ("scale", "softcap", "key_scale", "value_scale"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0 or (value == 0 and name != "softcap"):
                raise PluginError(f"{name} must be a positive number", found=repr(value))
        if self.window == 0 or self.window < -1:
            raise PluginError("window must be positive, or -1 for none", found=str(self.window))

    def _check_dtypes(self) -> None:
        if self.dtype not in DTYPES:
            raise PluginError("no kernels for this dtype", found=self.dtype, available=DTYPES)
        allowed = (self.dtype, *(name for name in CACHE_DTYPES if name not in DTYPES))
        if self.cache_dtype not in allowed:
            raise PluginError(
                f"no kernels for this cache under {self.dtype} queries",
                found=self.cache_dtype,
                available=allowed,
            )

    def _check_heads(self) -> None:
        low, high = HEAD_DIMS
        if not low <= self.head_dim <= high or self.head_dim % HEAD_STEP:
            raise PluginError(
                "no kernels for this head_dim",
                found=str(self.head_dim),
                available=(f"multiples of 16 from {low} to {high}",),
            )
        if self.kv_num_heads < 1 or self.q_num_heads < 1 or self.q_num_heads % self.kv_num_heads:
            raise PluginError(
                "query heads must be a multiple of key and value heads",
                found=f"q_num_heads {self.q_num_heads}, kv_num_heads {self.kv_num_heads}",
            )

    @property
    def group(self) -> int:
        """Query heads for each key head."""
        return self.q_num_heads // self.kv_num_heads

    @property
    def quantized(self) -> bool:
        """Whether the cache has another dtype than the query."""
        return self.cache_dtype != self.dtype

    @functools.cached_property
    def key(self) -> str:
        """Sixteen hex digits that name these values."""
        return hashlib.sha256(json.dumps(self.as_dict()).encode()).hexdigest()[:16]

    @classmethod
    def from_attributes(
        cls,
        attributes: Mapping[str, Any],
        *,
        dtype: str,
        cache_dtype: str,
        sinks: bool,
    ) -> Variant:
        """The variant of a node, from its ONNX attributes and the dtypes of its inputs.

        Raises:
            PluginError: an attribute is missing, unknown or out of range.
        """
        for name in attributes:
            SPEC.attribute(name)
        values: dict[str, Any] = {}
        for attribute in SPEC.attributes:
            value = attributes.get(attribute.name, attribute.default)
            if value is None:
                raise PluginError(f"{SPEC.name} needs the attribute {attribute.name}")
            values[attribute.name] = int(value) if attribute.type == "int" else float(value)
        return cls(dtype=dtype, cache_dtype=cache_dtype, sinks=sinks, **values)

    def as_dict(self) -> dict[str, Any]:
        """The values as JSON-ready data; ``Variant(**data)`` reads them back."""
        return asdict(self)
