"""A cache in 8 bits, from the pair that says so to the plugin's node."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from lepton_compile.pipeline.cache_ranges import cache_ranges
from lepton_passes.lowering.half_precision import LowerHalfPrecision
from lepton_passes.lowering.trt.cached_attention import LowerTrtCachedAttention
from lepton_passes.lowering.trt.forms import attention_forms
from lepton_passes.lowering.trt.legal_trt import LegalTrt
from lepton_passes.lowering.trt.quantized_cache import scale_of
from lepton_passes.lowering.trt.static_cache import LowerTrtStaticCache
from lepton_passes.quant.quantize_cache import QuantizeCache
from tests.passes.lowering.trt.decoder import CAPACITY, Driven, Truth, follow, neutral
from tests.passes.support import ops, reasons

INT8, FP8 = ir.DataType.INT8, ir.DataType.FLOAT8E4M3FN
PROMPTS = ([7, 8, 9, 10, 11], [20, 21, 22])
CLOSE = 0.02  # of what 8 bits cost in the neutral graph, and fp16 beside it


def feed(ids: list[int]) -> dict[str, np.ndarray]:
    keep = {"logits_to_keep": np.array(1)}
    return {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)} | keep


def quantized(dtype: ir.DataType, **options: object) -> ir.Model:
    """The tiny decoder with a cache in ``dtype``, still neutral."""
    model = neutral(**options)  # type: ignore[arg-type]
    words = [feed(list(range(start, start + 16))) for start in (3, 19, 34)]
    QuantizeCache(dtype, lambda each: cache_ranges(each, words))(model)
    return model


def lowered(model: ir.Model, form: str = "auto") -> LowerTrtCachedAttention:
    LowerHalfPrecision(ir.DataType.FLOAT16)(model)
    LowerTrtStaticCache(CAPACITY)(model)
    done = LowerTrtCachedAttention(form)
    done(model)
    return done


@pytest.mark.parametrize(("window", "softcap"), [(-1, 0.0), (3, 2.0)])
def test_the_numbers_are_those_of_the_neutral_graph_with_that_cache(
    window: int, softcap: float
) -> None:
    model = quantized(INT8, window=window, softcap=softcap)
    truth = Truth(model)
    assert reasons(lowered(model)) == []
    assert attention_forms(model) == {"plugin": 2}
    assert follow(truth, Driven(model, 2), PROMPTS, steps=8) < CLOSE


@pytest.mark.parametrize("dtype", [INT8, FP8])
def test_caches_have_the_type_and_layers_share_their_kernels(dtype: ir.DataType) -> None:
    model = quantized(dtype)
    lowered(model)
    legal = LegalTrt()
    legal(model)
    assert reasons(legal) == []
    caches = [v for v in (*model.graph.inputs, *model.graph.outputs) if "." in (v.name or "")]
    assert len(caches) == 8
    assert {v.dtype for v in caches} == {dtype}
    assert not {"QuantizeLinear", "DequantizeLinear"} & {*ops(model), *ops(model, "block")}
    block = next(f for f in model.functions.values() if f.name == "block")
    (node,) = [n for n in block if n.op_type == "CachedAttention"]
    assert not {"key_scale", "value_scale"} & {*node.attributes}
    assert {v.dtype for v in node.outputs[1:]} == {dtype}
    assert node.outputs[0].dtype == ir.DataType.FLOAT16


def test_what_a_step_stands_for_is_kept_at_each_cache() -> None:
    model = quantized(INT8)
    wide = {n: v.const_value for n, v in model.graph.initializers.items() if n.endswith(":scale")}
    lowered(model)
    pasts = [v for v in model.graph.inputs if "." in (v.name or "")]
    assert len(pasts) == 4
    for past in pasts:
        tensor = wide[f"{past.name}:scale"]
        assert tensor is not None
        assert scale_of(past) == float(np.float16(tensor.numpy()))
    assert scale_of(model.graph.inputs[0]) is None


@pytest.mark.parametrize("form", ["native", "mask", "slice", "matmul"])
def test_other_forms_are_told_that_the_plugin_alone_has_it(form: str) -> None:
    model = quantized(INT8)
    done = lowered(model, form)
    assert reasons(done) == [f"a cache in 8 bits, which {form} has not: plugin"]
    assert attention_forms(model) == {"plugin": 2}


def test_a_cache_of_another_type_is_refused_by_name() -> None:
    model = quantized(INT8)
    lowered(model)
    for past in (v for v in model.graph.inputs if "." in (v.name or "")):
        past.type = ir.TensorType(ir.DataType.FLOAT)
    legal = LegalTrt()
    legal(model)
    words = "a cache of FLOAT, where the plugin has FLOAT16, INT8 and FLOAT8E4M3FN"
    assert words in reasons(legal)
