"""TensorRT engines on the double: the same tokens as onnxruntime, and nothing left behind."""

from __future__ import annotations

import gc
import importlib.util
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from lepton_compile.runtime import LoaderError, Model
from lepton_compile.runtime.loader_no_cache import NoCache
from lepton_compile.runtime.loader_trt_decoder import DeviceCache
from tests.runtime import plans, tiny
from tests.runtime.double import HostDevice
from tests.runtime.on_double import BUCKETS, GROWING, PROMPTS, Opener, contexts_of, engine


@pytest.mark.parametrize("target", ["trt-rtx", "trt"])
@pytest.mark.parametrize("joint", [False, True], ids=["split", "joint"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"level": True},
        {"told": False},
        {"prefill": 3},
        {"prefill": 3, "level": True},
        {"capture": False},
    ],
)
def test_the_tokens_are_those_of_onnxruntime(
    model: Model, opened: Opener, target: str, options: dict[str, Any], joint: bool
) -> None:
    other = opened(plans.decoder_plan(joint=joint, **options), target)
    for prompts in (PROMPTS, PROMPTS[2:3], PROMPTS, PROMPTS[:1] * 3):
        expected = model.generate(prompts, max_new_tokens=24)
        found = other.generate(prompts, max_new_tokens=24)
        assert [one.tokens for one in found] == [one.tokens for one in expected]
        assert [one.finish for one in found] == [one.finish for one in expected]
    assert other.generate("w5 w6").text == model.generate("w5 w6").text


@pytest.mark.parametrize("target", ["trt-rtx", "trt"])
def test_draws_streams_and_stops_are_those_of_onnxruntime(
    model: Model, opened: Opener, target: str
) -> None:
    other = opened(plans.decoder_plan(), target)
    how = {"temperature": 1.5, "seed": 3, "top_k": 20, "max_new_tokens": 16}
    expected = [one.tokens for one in model.generate(PROMPTS, **how)]
    assert [one.tokens for one in other.generate(PROMPTS, **how)] == expected
    streams = [other.generate(p, max_new_tokens=8, stream=True) for p in PROMPTS[:2]]
    found = [[next(stream) for stream in streams] for _ in range(4)]
    rest = ["".join([pieces[n] for pieces in found]) + "".join(streams[n]) for n in range(2)]
    assert rest == [model.generate(p, max_new_tokens=8).text for p in PROMPTS[:2]]


@pytest.mark.parametrize(("level", "shared"), [(False, True), (True, True), (False, False)])
@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_are_those_of_onnxruntime(
    model: Model, opened: Opener, side: str, level: bool, shared: bool
) -> None:
    # The engine for the CPU beside it may have a cache of another kind, as Bloom's does.
    other = opened(plans.decoder_plan(level=level), shared=shared)
    ids, mask = np.full((4, 7), 9), np.zeros((4, 7), np.int64)
    for row, prompt in enumerate(PROMPTS):
        columns = slice(7 - len(prompt), 7) if side == "left" else slice(len(prompt))
        ids[row, columns], mask[row, columns] = prompt, 1
    expected, found = model.logits(ids, mask), other.logits(ids, mask)
    assert found.shape == expected.shape
    assert found[mask == 1] == pytest.approx(expected[mask == 1], abs=1e-4)


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_the_last_logits_alone(model: Model, opened: Opener, keep: int) -> None:
    other = opened(plans.decoder_plan())
    feeds = {"input_ids": [PROMPTS[0], PROMPTS[3]], "logits_to_keep": keep}
    expected = model.run(feeds, ["logits"])["logits"]
    found = other.run(feeds)
    assert list(found) == ["logits"]
    assert found["logits"] == pytest.approx(expected, abs=1e-4)


def test_what_stays_on_the_device_cannot_be_given_or_asked_for(opened: Opener) -> None:
    other = opened(plans.decoder_plan())
    past = np.zeros((1, tiny.KV_HEADS, 3, tiny.HEAD_DIM), np.float32)
    names = [f"past_key_values.{n}.{k}" for n in range(tiny.LAYERS) for k in ("key", "value")]
    with pytest.raises(LoaderError, match="stay on the device"):
        other.run({"input_ids": [[5]], **dict.fromkeys(names, past)})
    with pytest.raises(LoaderError, match="stay on the device"):
        other.run({"input_ids": [[5]]}, ["present.0.key"])


def test_a_decoder_without_a_cache_reads_all_again(opened: Opener) -> None:
    other = opened(plans.decoder_plan())
    assert isinstance(other.new_cache(1, 8), DeviceCache)
    other.cache = None
    assert isinstance(other.new_cache(1, 8), NoCache)


@pytest.mark.parametrize("cache", ["INT8", "FP8"])
def test_caches_in_8_bits(model: Model, opened: Opener, cache: str) -> None:
    other = opened(plans.decoder_plan(cache=cache))
    expected, found = model.logits(PROMPTS[2]), other.logits(PROMPTS[2])
    cosine = (expected * found).sum() / np.sqrt((expected**2).sum() * (found**2).sum())
    assert 0.9 < cosine < 0.999999  # of random weights: what rounding moves, they make larger
    assert len(other.generate(PROMPTS, max_new_tokens=6)) == 4


@pytest.mark.parametrize(("cache", "close"), [("HALF", 1e-3), ("BF16", 1e-2)])
def test_caches_of_half_precision(model: Model, opened: Opener, cache: str, close: float) -> None:
    other = opened(plans.decoder_plan(cache=cache))
    expected = model.logits(PROMPTS[2])
    assert other.logits(PROMPTS[2]) == pytest.approx(expected, abs=close * float(np.ptp(expected)))
    assert len(other.generate(PROMPTS, max_new_tokens=6)) == 4


@pytest.mark.parametrize(
    ("cache", "bytes_of"), [("FLOAT", 4), ("HALF", 2), ("INT8", 1), ("FP8", 1)]
)
def test_a_cache_takes_the_bytes_of_its_type(
    device: HostDevice, opened: Opener, cache: str, bytes_of: int
) -> None:
    other = opened(plans.decoder_plan(cache=cache))
    before = device.allocated()
    held = other.new_cache(4, 0)
    row = tiny.KV_HEADS * tiny.ROOM * tiny.HEAD_DIM
    rest = 4 * (8 + 4 + 4 * tiny.VOCABULARY)  # ids, lengths, logits
    one = 2 * tiny.LAYERS * row * bytes_of + 8 + 4 + 4 * tiny.VOCABULARY  # was there before
    assert device.allocated() - before == 4 * 2 * tiny.LAYERS * row * bytes_of + rest - one
    held.close()


@pytest.mark.parametrize("joint", [False, True], ids=["split", "joint"])
@pytest.mark.parametrize("target", ["trt-rtx", "trt"])
@pytest.mark.parametrize("cache", ["FLOAT", "BF16"])
def test_a_cache_grows_into_the_next_bucket_and_nothing_is_lost(
    opened: Opener, target: str, cache: str, joint: bool
) -> None:
    whole = opened(plans.decoder_plan(cache=cache), target)
    growing = plans.decoder_plan(cache=cache, buckets=BUCKETS, joint=joint)
    other = opened(growing, target, **GROWING)
    for prompts, new in ((PROMPTS, 60), (PROMPTS[:1], 30), (PROMPTS[2:], 80), (PROMPTS, 4)):
        expected = whole.generate(prompts, max_new_tokens=new)
        found = other.generate(prompts, max_new_tokens=new)
        assert [one.tokens for one in found] == [one.tokens for one in expected]
    assert max(len(one.tokens) for one in expected) <= 4


def test_the_smallest_bucket_first_and_the_next_when_it_is_full(
    device: HostDevice, opened: Opener
) -> None:
    other = opened(plans.decoder_plan(buckets=BUCKETS), **GROWING)
    row = 2 * tiny.LAYERS * tiny.KV_HEADS * tiny.HEAD_DIM * 4
    assert contexts_of(other) == [0, 1], "nothing of the larger ones before they are needed"
    cache = other.new_cache(2, 10)
    assert (cache.capacity, cache.batch) == (16, 2)
    cache.start([PROMPTS[0], PROMPTS[1]])
    held, taken, seen = 4, device.allocated(), len(device.calls)
    while held <= 16:
        assert cache.capacity == 16
        cache.step([7, 7], [True, True])
        held += 1
    assert (cache.capacity, contexts_of(other)) == (40, [0, 1, 2, 3])
    assert device.allocated() - taken == 2 * (40 - 16) * row, "the smaller caches are gone"
    moved = [call for call in device.calls[seen:] if call in ("malloc", "copy_parts", "free")]
    tensors = 2 * tiny.LAYERS
    assert moved == ["malloc"] * tensors + ["copy_parts"] * tensors + ["free"] * tensors
    cache.close()
    large = other.new_cache(1, 41)
    assert (large.capacity, contexts_of(other)) == (tiny.ROOM, [0, 1, 2, 3, 4, 5])
    large.close()
    with pytest.raises(LoaderError, match=f"the cache holds {tiny.ROOM} tokens, not 97"):
        other.new_cache(1, tiny.ROOM + 1)


def test_what_an_answer_may_take_is_not_taken_at_once(opened: Opener) -> None:
    other = opened(plans.decoder_plan(buckets=BUCKETS), **GROWING)
    stream = other.generate(PROMPTS[0], max_new_tokens=60, stream=True)
    next(stream)
    (cache,) = other.session.caches
    assert cache.capacity == 16
    stream.close()


def test_a_step_is_captured_anew_in_the_next_bucket(device: HostDevice, opened: Opener) -> None:
    other = opened(plans.decoder_plan(buckets=BUCKETS), "trt", **GROWING)
    cache = other.new_cache(1, 8)
    cache.start([PROMPTS[0]])
    for _ in range(20):
        cache.step([7], [True])
    assert cache.capacity == 40
    assert device.calls.count("begin_capture") == 2
    assert device.calls.count("free_graph") == 1, "that of the small caches, which are gone"
    cache.close()


def test_no_room_to_grow_leaves_nothing_behind(device: HostDevice, opened: Opener) -> None:
    other = opened(plans.decoder_plan(buckets=BUCKETS), **GROWING)
    cache = other.new_cache(1, 8)
    cache.start([PROMPTS[0]])
    for _ in range(12):
        found = cache.step([7], [True])
    taken = device.allocated()
    device.room = taken + 12_000  # for one tensor of the next bucket, not for all four
    with pytest.raises(LoaderError, match="out of memory"):
        cache.step([7], [True])
    assert (device.allocated(), cache.capacity) == (taken, 16)
    device.room = 1 << 30
    assert cache.step([7], [True]).shape == found.shape
    assert cache.capacity == 40
    cache.close()


def test_memory_is_taken_once(device: HostDevice, opened: Opener) -> None:
    other = opened(plans.decoder_plan(), "trt")
    other.generate(PROMPTS, max_new_tokens=6)
    before, taken = len(device.calls), device.allocated()
    other.generate(PROMPTS[1:], max_new_tokens=12)
    other.generate(PROMPTS[:1], max_new_tokens=12)
    assert not {"malloc", "free", "host"} & set(device.calls[before:])
    assert device.allocated() == taken
    other.generate(PROMPTS * 2, max_new_tokens=4)  # more rows: the old caches go first
    assert device.allocated() > taken


def test_steps_are_captured_once_and_replayed(device: HostDevice, opened: Opener) -> None:
    other = opened(plans.decoder_plan(), "trt")
    rows = [PROMPTS[0], PROMPTS[3]]
    made = other.generate(rows, max_new_tokens=10, stop_tokens=())
    steps = max(len(one.tokens) + (one.finish == "eos") for one in made) - 1
    assert device.calls.count("begin_capture") == device.calls.count("end_capture") == 1
    assert device.calls.count("launch") == steps - 1  # the first one runs as it is
    launched = device.calls.count("launch")
    other.generate(rows, max_new_tokens=5)
    assert device.calls.count("begin_capture") == 1
    assert device.calls.count("launch") == launched + 4
    other.generate(rows[:1], max_new_tokens=5)  # another shape: what was captured holds no more
    assert device.calls.count("begin_capture") == 2
    assert device.calls.count("free_graph") == 1


def test_rtx_captures_by_itself(device: HostDevice, opened: Opener) -> None:
    other = opened(plans.decoder_plan())
    other.generate(PROMPTS, max_new_tokens=6)
    assert "begin_capture" not in device.calls
    strategies = [context.config.cuda_graph_strategy for context in engine(other).contexts]
    assert strategies == [plans.Strategy.DISABLED, plans.Strategy.WHOLE_GRAPH_CAPTURE]


def test_a_step_that_fails_says_where_and_leaves_nothing(opened: Opener) -> None:
    other = opened(plans.decoder_plan(), "trt")
    engine(other).fail_at = len(PROMPTS) + 1
    said = r"failed after 2 new tokens of 4 rows: .*did not run\s+an illegal memory access"
    with pytest.raises(LoaderError, match=said):
        other.generate(PROMPTS, max_new_tokens=6)
    engine(other).fail_at = None
    assert other.generate(PROMPTS[1], max_new_tokens=3).finish


def test_too_many_rows_and_too_little_memory(device: HostDevice, opened: Opener) -> None:
    other = opened(plans.decoder_plan(batch=2))
    with pytest.raises(LoaderError, match="3 prompts, and the engine takes 2"):
        other.generate(PROMPTS[:3], max_new_tokens=2)
    device.room = device.allocated() + 1000
    with pytest.raises(LoaderError, match="out of memory"):
        other.generate(PROMPTS[:2], max_new_tokens=2)
    device.room = 1 << 30
    assert other.generate(PROMPTS[:2], max_new_tokens=2)


def test_a_model_closed_in_the_middle_of_a_stream(device: HostDevice, opened: Opener) -> None:
    other = opened(plans.decoder_plan())
    stream = other.generate(PROMPTS[2], max_new_tokens=20, stream=True)
    next(stream)
    other.close()
    device.clean()
    with pytest.raises(LoaderError, match="closed"):
        list(stream)
    other.close()


def test_a_model_nobody_closed_gives_its_memory_back(device: HostDevice, opened: Opener) -> None:
    other = opened(plans.decoder_plan())
    other.generate(PROMPTS, max_new_tokens=3)
    session, other.session = other.session, None
    other.spare.clear()
    del session
    gc.collect()
    device.clean()


@pytest.mark.parametrize(("output", "close"), [("FLOAT", 1e-6), ("HALF", 4e-3), ("BF16", 4e-2)])
def test_an_encoder(
    embedder: Model, opened: Opener, device: HostDevice, output: str, close: float
) -> None:
    other = opened(plans.encoder_plan(output))
    texts = ["w5 w6 w7", "w9", " ".join(f"w{n}" for n in range(4, 12))] * 4
    found = other.embed(texts)
    assert found.dtype == np.float32
    assert found == pytest.approx(embedder.embed(texts), abs=close)
    taken = device.allocated()
    other.embed(texts[:2])
    assert device.allocated() == taken
    ids = np.array([[5, 6, 7]])
    expected, found = embedder.run({"input_ids": ids}), other.run({"input_ids": ids})
    assert set(found) == set(expected)
    for name in found:
        assert found[name].dtype == np.float32
        assert found[name] == pytest.approx(expected[name], abs=close)


@pytest.mark.parametrize("joint", [False, True], ids=["split", "joint"])
@pytest.mark.parametrize("grows", [False, True])
def test_the_emitted_file_runs_the_plan(
    model: Model, opened: Opener, device: HostDevice, grows: bool, joint: bool
) -> None:
    plan = plans.decoder_plan(joint=joint, buckets=BUCKETS if grows else ())
    folder = opened(plan, **(GROWING if grows else {})).path
    assert ("def grow" in (folder / "loader.py").read_text()) == grows
    spec = importlib.util.spec_from_file_location("emitted_loader", folder / "loader.py")
    assert spec is not None
    emitted: Any = importlib.util.module_from_spec(spec)
    assert isinstance(emitted, ModuleType)
    spec.loader.exec_module(emitted)  # type: ignore[union-attr]
    emitted.Cuda = lambda: device
    with emitted.load(folder) as other:
        found = other.generate(PROMPTS, max_new_tokens=12)
        assert other.target == "trt-rtx"
    expected = model.generate(PROMPTS, max_new_tokens=12)
    assert [one.tokens for one in found] == [one.tokens for one in expected]
