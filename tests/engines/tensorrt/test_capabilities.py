"""GPUs of an engine: how they are written, which exist, and what their arithmetic is."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from lepton_compile.engines.gpu import gpus
from lepton_compile.engines.tensorrt.capabilities import (
    built_for,
    check_capabilities,
    check_dtypes,
    hardware_level,
    number,
)
from lepton_compile.engines.tensorrt.flavour import RTX, TRT, Flavour
from lepton_compile.errors import EngineError, RecipeError
from tests.engines.tensorrt.orders import graph

TYPES = {"bfloat16": "BFLOAT16", "int8": "INT8", "int4": "INT4", "float8e4m3fn": "FLOAT8E4M3FN"}


def typed(dtype: str) -> ir.Model:
    return graph(f"main ({dtype}[b, 64] x) => ({dtype}[b, 64] y) {{ y = Identity (x) }}")


def test_they_are_sorted_as_numbers_and_named_once() -> None:
    assert check_capabilities(["12.0", "8.9", "8.6", "8.9"], RTX) == ["8.6", "8.9", "12.0"]
    assert check_capabilities([], RTX) == []
    assert check_capabilities(["9.0", "10.0"], TRT) == ["9.0", "10.0"]
    assert number("12.1") > number("8.9")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("sm_89", "write 8.9"),
        ("SM89", "write 8.9"),
        ("89", "write 8.9"),
        ("sm_120", "write 12.0"),
        ("sm_90a", "write 9.0"),
        ("ada", "two numbers with a point between them"),
        ("8.9.1", "two numbers with a point between them"),
    ],
)
@pytest.mark.parametrize("flavour", [RTX, TRT], ids=lambda f: f.target)
def test_another_way_to_write_them_is_an_error_of_form(
    text: str, hint: str, flavour: Flavour
) -> None:
    with pytest.raises(RecipeError, match=f"{text!r} is no compute capability") as raised:
        check_capabilities(["8.6", text], flavour)
    assert (raised.value.where, raised.value.hint) == ("compute_capabilities", hint)


def test_one_that_the_library_does_not_build_for() -> None:
    with pytest.raises(RecipeError, match=r"builds no engine for .* 9\.0") as raised:
        check_capabilities(["8.9", "9.0"], RTX)
    assert raised.value.available[:3] == ("7.5", "8.0", "8.6")
    assert "target: trt" in str(raised.value.hint)


@pytest.mark.parametrize(
    ("dtype", "capability", "fits"),
    [
        ("float16", "7.5", True),
        ("bfloat16", "7.5", False),
        ("bfloat16", "8.0", True),
        ("int8", "7.5", False),
        ("int8", "8.6", True),
        ("int4", "7.5", False),
        ("float8e4m3fn", "8.6", False),
        ("float8e4m3fn", "8.9", True),
        ("float8e4m3fn", "12.0", True),
    ],
)
def test_a_gpu_takes_the_types_of_the_graph(dtype: str, capability: str, fits: bool) -> None:
    if fits:
        check_dtypes(typed(dtype), [capability], RTX)
        return
    with pytest.raises(EngineError, match=f"has no arithmetic for {TYPES[dtype]}") as raised:
        check_dtypes(typed(dtype), [capability], RTX)
    assert raised.value.where == "x"
    assert capability not in raised.value.available


@pytest.mark.parametrize(
    ("dtype", "found"),
    [
        ("float16", "portable"),
        ("bfloat16", "portable"),
        ("int4", "portable"),
        ("float8e4m3fn", "8.9+"),
        ("float4e2m1", "12.0+"),
    ],
)
def test_a_portable_engine_claims_no_gpu_without_its_types(dtype: str, found: str) -> None:
    assert built_for(typed(dtype), [], RTX) == [found]
    assert built_for(typed(dtype), ["12.1"], RTX) == ["12.1"]


def test_an_engine_of_tensorrt_is_for_the_gpu_that_built_it() -> None:
    here = [gpu.compute_capability for gpu in gpus()[:1]]
    assert built_for(typed("float16"), [], TRT) == (here or ["portable"])
    assert built_for(typed("float16"), ["8.0", "9.0"], TRT) == ["8.0", "9.0"]


def test_how_far_an_engine_reaches() -> None:
    assert hardware_level([]) == "NONE"
    assert hardware_level(["9.0"]) == "SAME_COMPUTE_CAPABILITY"
    assert hardware_level(["8.0", "9.0"]) == "AMPERE_PLUS"
