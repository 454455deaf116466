"""The op ``lepton::CachedAttention``: what goes in and out, its attributes, and its tolerances.

Query ``i`` of row ``b`` stands at position ``past_lengths[b] + i``. Its keys are those at
positions up to its own and, with a window, after ``position - window``. The new keys and values are
written to the caches first, at ``past_lengths[b] + i``; what would fall behind the capacity is
dropped.

    score   = scale * dot(query, key)                              query head h, key head h // group
    score   = softcap * tanh(score / softcap)                      if softcap > 0
    weights = exp(score) / (sum(exp(score)) + exp(sink[h]))        the sink only if there are sinks
    output  = sum(weights * value)

A quantized cache holds ``round(key / key_scale)``, as int8 (-127..127) or fp8 (e4m3, saturated).
"""

from __future__ import annotations

from lepton_plugins.spec import Attribute, PluginSpec, Tensor, Tolerance

__all__ = ["CACHE_DTYPES", "DTYPES", "FEW_ROUNDED", "HEAD_DIMS", "HEAD_STEP", "SPEC"]

DTYPES = ("float16", "bfloat16")
CACHE_DTYPES = (*DTYPES, "int8", "float8_e4m3fn")

# Smallest and largest head dimension; between them every multiple of the step.
HEAD_DIMS, HEAD_STEP = (32, 512), 16

# Queries, counted with the heads that share keys, that attention on the CPU leaves in fp32 where it
# may round: kFewRounded of csrc/rounded.cpp.
FEW_ROUNDED = 32

_NEW = ("batch", "sequence", "kv_num_heads*head_dim")
_CACHE = ("batch", "kv_num_heads", "capacity", "head_dim")
_ANY = float("inf")

SPEC = PluginSpec(
    name="CachedAttention",
    namespace="lepton",
    version="1",
    inputs=(
        Tensor("query", DTYPES, ("batch", "sequence", "q_num_heads*head_dim")),
        Tensor("key", DTYPES, _NEW),
        Tensor("value", DTYPES, _NEW),
        Tensor("past_lengths", ("int32",), ("batch",)),
        Tensor("key_cache", CACHE_DTYPES, _CACHE),
        Tensor("value_cache", CACHE_DTYPES, _CACHE),
        Tensor("sinks", ("float32",), ("q_num_heads",), optional=True),
    ),
    outputs=(
        Tensor("output", DTYPES, ("batch", "sequence", "q_num_heads*head_dim")),
        Tensor("present_key", CACHE_DTYPES, _CACHE, alias="key_cache"),
        Tensor("present_value", CACHE_DTYPES, _CACHE, alias="value_cache"),
    ),
    attributes=(
        Attribute("q_num_heads", "int", None, 1, 1024, "query heads"),
        Attribute("kv_num_heads", "int", None, 1, 1024, "key and value heads; divides q_num_heads"),
        Attribute("head_dim", "int", None, *HEAD_DIMS, f"multiple of {HEAD_STEP}"),
        Attribute("scale", "float", 0.0, 0.0, _ANY, "of the scores; 0 means head_dim ** -0.5"),
        Attribute("softcap", "float", 0.0, 0.0, _ANY, "0 means none"),
        Attribute("window", "int", -1, -1, 2**31 - 1, "keys in sight, own one included; -1 all"),
        Attribute("key_scale", "float", 1.0, 0.0, _ANY, "of a quantized key cache"),
        Attribute("value_scale", "float", 1.0, 0.0, _ANY, "of a quantized value cache"),
    ),
    # Against the fp32 reference on the same rounded inputs and the same cache contents: the
    # weights and the output are each rounded once to the dtype.
    tolerance={"float16": Tolerance(2e-3, 4e-3), "bfloat16": Tolerance(1.6e-2, 3.2e-2)},
)
