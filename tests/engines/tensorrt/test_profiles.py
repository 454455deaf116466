"""Profiles follow from the ranges of a recipe."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
import pytest

from lepton_compile.engines.tensorrt.profiles import PIECE, profile_count, profiles_for
from lepton_compile.errors import EngineError

RANGES = {"batch": [1, 8], "sequence": [1, 128]}


def value(name: str, shape: Sequence[int | str], dtype: str = "INT64") -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(ir.DataType[dtype]), shape=ir.Shape(shape))


ENCODER = [value("input_ids", ["batch", "sequence"]), value("mask", ["batch", "sequence"])]
DECODER = [
    value("input_ids", ["batch", "sequence"]),
    value("past_lengths", ["batch"], "INT32"),
    value("past_key_values.0.key", ["batch", 2, 128, 16], "FLOAT16"),
]


def test_an_encoder_has_one_over_its_whole_range() -> None:
    (found,) = profiles_for(ENCODER, {**RANGES, "sequence": [2, 128]}, decoder=False)
    assert found.name == "all"
    assert [each["mask"] for each in (found.min, found.opt, found.max)] == [
        [1, 2],
        [1, 64],
        [8, 128],
    ]
    assert found.values == {}


def test_a_decoder_fills_its_cache_row_by_row_and_reads_it_all_at_once() -> None:
    prefill, decode = profiles_for(DECODER, RANGES, decoder=True)
    assert (prefill.name, decode.name) == ("prefill", "decode")
    assert (prefill.min["input_ids"], prefill.opt["input_ids"]) == ([1, 1], [1, 64])
    assert prefill.max["input_ids"] == [1, 128]
    assert (decode.min["input_ids"], decode.max["input_ids"]) == ([1, 1], [8, 1])
    for each in (prefill, decode):
        caches = [bounds["past_key_values.0.key"] for bounds in (each.min, each.opt, each.max)]
        assert [shape[1:] for shape in caches] == [[2, 128, 16]] * 3


@pytest.mark.parametrize(("objective", "rows"), [("latency", 1), ("throughput", 8)])
def test_the_objective_says_which_batch_kernels_are_chosen_for(objective: str, rows: int) -> None:
    _, decode = profiles_for(DECODER, RANGES, decoder=True, objective=objective)
    assert decode.opt["input_ids"] == [rows, 1]


def test_each_capacity_of_a_cache_has_the_two_profiles_of_a_decoder() -> None:
    inputs = [*DECODER[:2], value("past_key_values.0.key", ["batch", 2, "capacity", 16], "FLOAT16")]
    found = profiles_for(inputs, RANGES, decoder=True, rooms=(32, 128))
    names = ["prefill-32", "decode-32", "prefill-128", "decode-128"]
    assert [each.name for each in found] == names
    for each, room in zip(found, (32, 32, 128, 128), strict=True):
        for bounds in (each.min, each.opt, each.max):
            assert bounds["past_key_values.0.key"][1:] == [2, room, 16]
    assert [each.max["input_ids"] for each in found] == [[1, 32], [8, 1], [1, 128], [8, 1]]
    with pytest.raises(EngineError, match="range of a dimension is not known"):
        profiles_for(inputs, RANGES, decoder=True)


@pytest.mark.parametrize(
    ("rows", "room", "piece"),
    [(1, 4096, 4096), (8, 4096, 512), (64, 4096, PIECE), (8, 128, 128)],
    ids=["one row", "the corner is no larger", "enough for a GPU", "all there is"],
)
def test_one_profile_takes_prompts_and_steps(rows: int, room: int, piece: int) -> None:
    ranges = {"batch": [min(2, rows), rows], "sequence": [1, room]}
    inputs = [*DECODER[:2], value("past_key_values.0.key", ["batch", 2, room, 16], "FLOAT16")]
    (found,) = profiles_for(inputs, ranges, decoder=True, joint=True)
    ids = [bounds["input_ids"] for bounds in (found.min, found.opt, found.max)]
    assert (found.name, ids) == ("joint", [[1, 1], [min(2, rows), 1], [rows, piece]])
    assert found.max["past_lengths"] == [rows]
    assert found.max["past_key_values.0.key"] == [rows, 2, room, 16]
    split = profiles_for(inputs, ranges, decoder=True)
    corner = max(each.max["input_ids"][0] * each.max["input_ids"][1] for each in split)
    assert rows * piece <= corner or piece <= PIECE


def test_one_profile_is_optimized_for_a_step_of_the_batch_that_the_objective_says() -> None:
    for objective, rows in (("latency", 1), ("memory", 1), ("throughput", 8)):
        (found,) = profiles_for(DECODER, RANGES, decoder=True, objective=objective, joint=True)
        assert found.opt["input_ids"] == [rows, 1]


def test_an_encoder_has_one_anyway() -> None:
    (found,) = profiles_for(ENCODER, RANGES, decoder=False, joint=True)
    assert found == profiles_for(ENCODER, RANGES, decoder=False)[0]


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("rooms", [(), (32, 128)])
def test_how_many_there_will_be_is_known_without_a_graph(
    joint: bool, rooms: tuple[int, ...]
) -> None:
    capacity = "capacity" if rooms else 128
    inputs = [*DECODER[:2], value("past_key_values.0.key", ["batch", 2, capacity, 16], "FLOAT16")]
    found = profiles_for(inputs, RANGES, decoder=True, rooms=rooms, joint=joint)
    assert len(found) == profile_count(decoder=True, rooms=rooms, joint=joint)
    if joint:
        names = [f"joint-{room}" for room in rooms] or ["joint"]
        assert [each.name for each in found] == names
        assert [each.max["input_ids"][1] for each in found] == [*(rooms or (128,))]
    assert profile_count(decoder=False, rooms=rooms, joint=joint) == 1


def test_an_input_whose_value_is_a_shape_has_a_range_of_values() -> None:
    inputs = [*DECODER, value("cache_length", [1]), value("count", [])]
    prefill, _ = profiles_for(inputs, {**RANGES, "count": [2, 6]}, decoder=True)
    assert prefill.values == {"cache_length": [1, 64, 128], "count": [2, 4, 6]}


def test_a_dimension_of_its_own_has_the_range_of_its_name() -> None:
    (found,) = profiles_for([value("x", ["rows", 3])], {"rows": [2, 10]}, decoder=False)
    assert (found.min["x"], found.opt["x"], found.max["x"]) == ([2, 3], [6, 3], [10, 3])


def test_a_dimension_without_a_range_is_named() -> None:
    with pytest.raises(EngineError, match="range of a dimension is not known") as raised:
        profiles_for([value("x", ["rows"])], RANGES, decoder=False)
    assert (raised.value.where, raised.value.found) == ("x", "rows")


@pytest.mark.parametrize("bounds", [[8, 1], [-1, 4]])
def test_a_range_that_runs_backwards_is_named(bounds: list[int]) -> None:
    with pytest.raises(EngineError, match="a range runs backwards") as raised:
        profiles_for(ENCODER, {**RANGES, "batch": bounds}, decoder=False)
    assert raised.value.where == "shapes.batch"
