"""legal-trt: one case for each trap, and none of them where a graph is fine."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from lepton_passes.body import LAYER_DOMAIN
from lepton_passes.lowering.trt.legal_trt import LegalTrt
from tests.passes.experts import Settings, experts
from tests.passes.lowering.trt.decoder import lowered, neutral
from tests.passes.support import load, reasons


def refused(model: ir.Model) -> list[str]:
    done = LegalTrt()
    done(model)
    return reasons(done)


@pytest.mark.parametrize("form", ["auto", "native", "mask", "slice"])
@pytest.mark.parametrize("window", [-1, 3])
def test_what_is_lowered_is_legal(form: str, window: int) -> None:
    model = neutral(window=window)
    lowered(model, form)
    assert refused(model) == []


def test_the_dialect_is_refused_by_name() -> None:
    found = refused(neutral())
    assert found.count("ai.lepton is the dialect of the compiler; no pass lowered the op") == 3


# -- ops -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        ("DynamicQuantizeLinear (x)", "scales of activations must be known when the engine is"),
        ("com.microsoft.GroupQueryAttention (x, x, x)", "its importer needs a plugin of NVIDIA's"),
        ("com.microsoft.MatMulNBits (x, x, x)", "its importer needs a plugin of NVIDIA's"),
        ("com.microsoft.QMoE (x, x, x)", "its importer needs a plugin of NVIDIA's"),
        ("LinearAttention (x, x, x)", "its importer needs a plugin of NVIDIA's"),
        ("com.microsoft.FastGelu (x)", "TensorRT has no importer for FastGelu of com.microsoft"),
        ("com.microsoft.QuickGelu (x)", "TensorRT has no importer for QuickGelu of com.microsoft"),
        ("MatMulInteger (x, x)", "TensorRT has no importer for MatMulInteger of ONNX"),
        ("BitShift (x, x)", "TensorRT has no importer for BitShift of ONNX"),
        ("trt.TRT_MoE (x, x)", "its fused form exists for other GPUs only"),
        ("trt.TRT_QuantizedAttention (x, x, x)", "no fused form exists for any GPU"),
    ],
)
def test_ops_without_importer(node: str, reason: str) -> None:
    model = load(f"main (float[b, s, 8] x) => (y) {{ y = {node} }}")
    assert [each.startswith(reason) for each in refused(model)] == [True]


@pytest.mark.parametrize(
    "node", ["Gelu (x)", "Swish (x)", "Erf (x)", "com.microsoft.SimplifiedLayerNormalization (x)"]
)
def test_ops_with_importer(node: str) -> None:
    assert refused(load(f"main (float[b, s, 8] x) => (y) {{ y = {node} }}")) == []


# -- attention -----------------------------------------------------------------------------


def _attention(
    node: str, dtype: str = "float16", width: int = 64, more: str = "", before: str = ""
) -> ir.Model:
    four = f"{dtype}[b, 4, s, {width}]"
    return load(f"main ({four} q, {four} k, {four} v{more}) => (y) {{ {before} y = {node} }}")


PADDED = "int64[b] n"
MASK = "float16[b, 1, s, s] m"
PAST = "float16[b, 4, p, 64] pk, float16[b, 4, p, 64] pv"


@pytest.mark.parametrize(
    ("node", "more", "reason"),
    [
        ('Attention (q, k, v, "", "", "", n)', PADDED, "nonpad_kv_seqlen is dropped in silence"),
        ('Attention (q, k, v, "", pk, pv)', PAST, "past_key and past_value are not supported"),
        ("Attention <softcap = 2.0> (q, k, v)", "", "softcap is not supported"),
        ("Attention <softmax_precision = 1> (q, k, v)", "", "softmax_precision is not supported"),
        ("Attention <is_causal = 1> (q, k, v, m)", MASK, "a mask and is_causal exclude"),
        ("trt.TRT_Attention <scale = 0.5> (q, k, v)", "", "scale is ignored in silence"),
        ("trt.TRT_Attention <is_causal = 1> (q, k, v)", "", "is_causal is ignored in silence"),
        ("trt.TRT_Attention <q_num_heads = 4> (q, k, v)", "", "q_num_heads is ignored in silence"),
        ("trt.TRT_Attention <decomposable = 1> (q, k, v)", "", "decomposable is ignored in"),
        ("trt.TRT_Attention <packed_nhd = 1> (q, k, v)", "", "packed_nhd has no kernel"),
        ('trt.TRT_Attention <causal_kind = "full"> (q, k, v)', "", "causal_kind is 'full', not"),
        (
            'trt.TRT_Attention <causal_kind = "lower_right"> (q, k, v, m)',
            MASK,
            "a mask and causal_kind exclude each other",
        ),
        (
            'trt.TRT_Attention (q, k, v, "", "", "", "", n)',
            PADDED,
            "kv_lengths is input 5; what comes behind is ignored in silence",
        ),
        (
            "trt.TRT_Attention (q, k, v, m)",
            "float[b, 1, s, s] m",
            "its mask is FLOAT, its query FLOAT16",
        ),
        ("Attention (q, k, v, m)", "float[b, 1, s, s] m", "its mask is FLOAT, its query FLOAT16"),
        (
            'trt.TRT_Attention (q, k, v, "", n)',
            PADDED,
            "input 4 counts queries of the packed form, which has no kernel",
        ),
        (
            'trt.TRT_Attention <kv_form = "packed_nhd"> (q, k, v)',
            "",
            "kv_form is 'packed_nhd', which has no kernel",
        ),
        (
            "com.microsoft.MultiHeadAttention <num_heads = 4, softcap = 2.0> (q, k, v)",
            "",
            "softcap is not supported",
        ),
        (
            "com.microsoft.MultiHeadAttention <mask_filter_value = -5.0> (q, k, v)",
            "",
            "mask_filter_value is not supported",
        ),
        ('com.microsoft.MultiHeadAttention (q, k, v, "", n)', PADDED, "key_padding_mask is not"),
        (
            'com.microsoft.MultiHeadAttention (q, k, v, "", "", "", pk, pv)',
            PAST,
            "past_key and past_value are not supported",
        ),
    ],
)
def test_attention(node: str, more: str, reason: str) -> None:
    model = _attention(node, more=f", {more}" if more else "")
    assert [each.startswith(reason) for each in refused(model)] == [True]


@pytest.mark.parametrize(
    ("op", "dtype", "width", "reason"),
    [
        ("Attention", "float", 64, "no fused kernel computes in FLOAT"),
        ("trt.TRT_Attention", "float", 64, "no fused kernel computes in FLOAT"),
        ("Attention", "float16", 320, "no fused kernel has heads of 320"),
        ("trt.TRT_Attention", "bfloat16", 512, "no fused kernel has heads of 512"),
    ],
)
def test_attention_without_a_kernel(op: str, dtype: str, width: int, reason: str) -> None:
    model = _attention(f"{op} (q, k, v)", dtype, width)
    assert [each.startswith(reason) for each in refused(model)] == [True]
    allowed = _attention(f"{op} <TRT_decomposable = 1> (q, k, v)", dtype, width)
    assert refused(allowed) == []


def test_more_outputs_than_one() -> None:
    for op in ("Attention", "com.microsoft.MultiHeadAttention"):
        model = load(
            f"""main (float16[b, 4, s, 64] q) => (y) {{
            y, pk = {op} (q, q, q)  z = Identity (pk) }}"""
        )
        assert refused(model) == ["it has more than one output"]


@pytest.mark.parametrize(
    ("outputs", "found"),
    [
        ('y, "", "", z', []),
        ("y", []),
        ('y, mean, "", z', ["output 1 is not made, only the norm (0) and the sum (3)"]),
        ('y, "", deviation', ["output 2 is not made, only the norm (0) and the sum (3)"]),
    ],
)
def test_outputs_of_the_norm_with_a_residual(outputs: str, found: list[str]) -> None:
    model = load(f"""main (float16[b, 64] x, float16[64] g) => (y) {{
        {outputs} = com.microsoft.SkipSimplifiedLayerNormalization (x, x, g) }}""")
    assert refused(model) == found


# -- caches --------------------------------------------------------------------------------


def _cache(
    attributes: str = 'axis = -2, mode = "linear"',
    past: str = "float16[b, 2, 16, 8]",
    new: str = "float16[b, 2, s, 8]",
    outputs: str = "present",
    before: str = "",
    cache: str = "past",
) -> ir.Model:
    return load(f"""main ({past} past, {new} x, int64[b] at) => ({outputs}) {{
        {before}
        present = TensorScatter <{attributes}> ({cache}, x, at)
        read = Relu (present) }}""")


def test_a_cache_that_is_fine() -> None:
    assert refused(_cache()) == []


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"attributes": 'axis = -2, mode = "circular"'}, "only linear mode is supported"),
        ({"attributes": "axis = 1"}, "the cache is written along its third axis only"),
        ({"past": "float16[b, 2, p, 8]"}, "the cache has no fixed length"),
        (
            {"past": "float16[b, 16, 8]", "new": "float16[b, s, 8]"},
            "the cache has no fixed length",
        ),
        ({"outputs": "read"}, "the written cache is no output of the network"),
        (
            {"before": "other = Relu (past)", "cache": "other"},
            "the cache is no input of the network",
        ),
        (
            {"past": "int8[b, 2, 16, 8]", "new": "int8[b, 2, s, 8]"},
            "a cache of INT8, where only FLOAT, FLOAT16 and BFLOAT16 exist",
        ),
    ],
)
def test_caches(options: dict[str, str], reason: str) -> None:
    assert reason in refused(_cache(**options))


@pytest.mark.parametrize(
    ("attributes", "found"),
    [
        ('axis = -2, update_form = "padded_bhnd"', []),
        ('cache_mode = "circular"', ["cache_mode is ignored in silence"]),
        (
            'update_form = "packed_nhd"',
            ["update_form is 'packed_nhd', where only padded_bhnd exists"],
        ),
        ('mode = "circular"', ["only linear mode is supported"]),
    ],
)
def test_the_cache_op_of_tensorrt(attributes: str, found: list[str]) -> None:
    model = load(f"""main (float16[b, 2, 16, 8] past, float16[b, 2, s, 8] x, int64[b] at) =>
        (present) {{ present = trt.TRT_KVCacheUpdate <{attributes}> (past, x, at) }}""")
    assert refused(model) == found


def test_a_cache_that_one_layer_keeps_to_itself() -> None:
    model = neutral()
    lowered(model)
    kept = [v for v in model.graph.outputs if v.name == "present.1.key"]
    for value in kept:
        model.graph.outputs.remove(value)
    assert refused(model) == ["the written cache is no output of the network"]


def test_a_cache_that_one_layer_is_not_given_from_outside() -> None:
    model = neutral()
    lowered(model)
    (past,) = (v for v in model.graph.inputs if v.name == "past_key_values.1.key")
    (use,) = past.uses()
    copied = ir.node("Identity", [past])
    model.graph.insert_before(use.node, copied)
    use.node.replace_input_with(use.idx, copied.outputs[0])
    assert refused(model) == ["the cache is no input of the network"]


# -- the plugin ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heads", "width", "dtype", "outputs", "reason"),
    [
        ("4", 8, "float16", "y, pk, pv", "heads of 8, where the plugin has 32 to 512"),
        ("4", 40, "float16", "y, pk, pv", "heads of 40, where the plugin has 32 to 512"),
        ("3", 32, "float16", "y, pk, pv", "3 query heads are no multiple of 2 key heads"),
        ("4", 32, "float", "y, pk, pv", "the plugin computes in FLOAT16 and BFLOAT16, not in"),
        ("4", 32, "float16", "y, pk", "the written cache is no output of the network"),
        ("4", 32, "bfloat16", "y, pk, pv", None),
    ],
)
def test_the_plugin(heads: str, width: int, dtype: str, outputs: str, reason: str | None) -> None:
    model = load(f"""main ({dtype}[b, s, {int(heads) * width}] q, {dtype}[b, s, {2 * width}] k,
          int32[b] n, {dtype}[b, 2, 16, {width}] c) => ({outputs}) {{
        y, pk, pv = lepton.CachedAttention <q_num_heads = {heads}, kv_num_heads = 2,
          head_dim = {width}, window = 4> (q, k, k, n, c, c) }}""")
    found = refused(model)
    assert [each.startswith(reason or "") for each in found] == [True] * (reason is not None)


@pytest.mark.parametrize(
    ("cache", "found"),
    [
        ("float16", []),
        ("int8", []),
        ("float", ["a cache of FLOAT, where the plugin has FLOAT16, INT8 and FLOAT8E4M3FN"]),
        ("bfloat16", ["a cache of BFLOAT16, where the plugin has FLOAT16, INT8 and FLOAT8E4M3FN"]),
    ],
)
def test_caches_of_the_plugin(cache: str, found: list[str]) -> None:
    model = load(f"""main (float16[b, s, 128] q, float16[b, s, 64] k, int32[b] n,
          {cache}[b, 2, 16, 32] c) => (y, pk, pv) {{
        y, pk, pv = lepton.CachedAttention <q_num_heads = 4, kv_num_heads = 2, head_dim = 32>
          (q, k, k, n, c, c) }}""")
    assert refused(model) == found


# -- layers ------------------------------------------------------------------------------


def test_calls_of_layers_are_no_ops_without_importer() -> None:
    model = neutral()
    lowered(model)
    assert {n.domain for n in model.graph} >= {LAYER_DOMAIN}
    assert refused(model) == []


def test_refuses_experts_by_name() -> None:
    legal = LegalTrt()
    legal(experts(Settings())[0])
    assert "mixtures of experts are lowered for ONNX Runtime alone" in reasons(legal)
