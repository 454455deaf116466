"""Generation against numpy: caches, batches, streaming, sampling."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_compile.runtime import LoaderError, Model, load
from lepton_compile.runtime.loader_sampling import Sampling, _draw
from lepton_compile.runtime.loader_shared_cache import SharedCache
from tests.runtime import tiny, truth

PROMPTS = [[2, 7, 9, 20], [5], [2, 33, 4, 18, 60, 11, 12], [2, 7, 9, 21]]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_is_what_a_full_computation_gives(model: Model, prompt: list[int]) -> None:
    expected = truth.greedy(tiny.weights(), prompt, 24)
    found = model.generate(prompt, max_new_tokens=24)
    ended = expected.index(1) if 1 in expected else None
    assert found.tokens == expected[:ended]
    assert found.finish == ("length" if ended is None else "eos")


def test_prompts_of_different_lengths_do_not_see_each_other(model: Model) -> None:
    together = model.generate(PROMPTS, max_new_tokens=16)
    alone = [model.generate(prompt, max_new_tokens=16) for prompt in PROMPTS]
    assert [one.tokens for one in together] == [one.tokens for one in alone]


def test_arrays_are_prompts_as_well(model: Model) -> None:
    rows = np.array([PROMPTS[0], PROMPTS[3]])
    found = model.generate(rows, max_new_tokens=5)
    assert [one.tokens for one in found] == [
        model.generate(row, max_new_tokens=5).tokens for row in (PROMPTS[0], PROMPTS[3])
    ]


def test_a_row_that_ends_early_leaves_the_others_alone(model: Model) -> None:
    alone = [model.generate(prompt, max_new_tokens=12).tokens for prompt in PROMPTS]
    ending = alone[0][2]
    found = model.generate(PROMPTS, max_new_tokens=12, stop_tokens=[ending])
    for one, expected in zip(found, alone, strict=True):
        cut = expected.index(ending) if ending in expected else len(expected)
        assert one.tokens == expected[:cut]
    assert found[0].finish == "eos"


def test_buffers_are_used_again_and_hold_nothing_back(model: Model) -> None:
    expected = model.generate(PROMPTS[1], max_new_tokens=10).tokens
    before = model.spare[0]
    model.generate(PROMPTS[2], max_new_tokens=30)
    assert model.generate(PROMPTS[1], max_new_tokens=10).tokens == expected
    assert model.spare[0] is before


def test_two_generations_may_interleave(model: Model) -> None:
    streams = [model.generate(prompt, max_new_tokens=8, stream=True) for prompt in PROMPTS[:2]]
    found = [[next(stream) for stream in streams] for _ in range(4)]
    rest = ["".join([pieces[n] for pieces in found]) + "".join(streams[n]) for n in range(2)]
    alone = [model.generate(prompt, max_new_tokens=8).text for prompt in PROMPTS[:2]]
    assert rest == alone


def test_buffers_have_room_for_all_rows_and_their_answers(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room is rounded up, and what is missing is in the part that nobody needs."""
    expected = [one.tokens for one in model.generate(PROMPTS, max_new_tokens=6)]
    monkeypatch.setattr("lepton_compile.runtime.loader_continue.ROUND", 1)
    model.forget()
    assert [one.tokens for one in model.generate(PROMPTS, max_new_tokens=6)] == expected
    assert model.spare[0].capacity == max(map(len, PROMPTS)) + 6
    model.forget()


def test_a_closed_model_keeps_no_buffers_of_a_stream_that_ends_later(decoder_folder: Path) -> None:
    with load(decoder_folder, threads=1) as opened:
        stream = opened.generate(PROMPTS[0], max_new_tokens=4, stream=True)
        next(stream)
    list(stream)
    assert not opened.spare


def test_buffers_that_one_thread_closes_are_not_taken_by_another(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other thread asks for buffers just as some are closed."""
    expected, closed, found = model.generate(PROMPTS[1], 4).tokens, list[Any](), list[Any]()
    close = SharedCache.close

    def closing(cache: SharedCache) -> None:
        close(cache)
        closed.append(cache)
        if len(closed) == 1:
            with ThreadPoolExecutor(1) as pool:
                found.append(pool.submit(model.generate, PROMPTS[1], 4).result().tokens)

    monkeypatch.setattr(SharedCache, "close", closing)
    streams = [model.generate(prompt, max_new_tokens=4, stream=True) for prompt in PROMPTS[:2]]
    for stream in streams:
        next(stream)
    for stream in streams:
        list(stream)
    assert found == [expected]


def test_without_shared_buffers_the_tokens_are_the_same(tmp_path: Path, model: Model) -> None:
    tiny.decoder(tmp_path / "plain", shared=False)
    with load(tmp_path / "plain", threads=1) as plain:
        found = plain.generate(PROMPTS, max_new_tokens=6)
    assert [one.tokens for one in found] == [
        one.tokens for one in model.generate(PROMPTS, max_new_tokens=6)
    ]


def test_timings_are_there_for_each_row(model: Model) -> None:
    for one in model.generate(PROMPTS[:2], max_new_tokens=4):
        assert set(one.timings) == {"prefill_s", "decode_s", "tokens_per_s"}
        assert min(one.timings.values()) > 0


def test_without_a_tokenizer_ids_stream(tmp_path: Path, model: Model) -> None:
    tiny.decoder(tmp_path / "mute", tokenizer=None)
    with load(tmp_path / "mute", threads=1) as mute:
        found = mute.generate(PROMPTS[0], max_new_tokens=6)
        assert found.text is None
        assert list(mute.generate(PROMPTS[0], max_new_tokens=6, stream=True)) == found.tokens
        for options in ({"prompt": "w5"}, {"prompt": [5], "stop": "w5"}):
            with pytest.raises(LoaderError, match="no tokenizer"):
                mute.generate(**options, max_new_tokens=4)


def test_the_same_seed_draws_the_same_tokens(model: Model) -> None:
    def draw(seed: int) -> list[list[int]]:
        found = model.generate(PROMPTS, max_new_tokens=12, temperature=1.5, seed=seed)
        return [one.tokens for one in found]

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)


def test_the_coldest_temperature_is_the_likeliest_token(model: Model) -> None:
    """As a number of 32 bits it is zero."""
    found = model.generate(PROMPTS[0], max_new_tokens=8, temperature=1e-60, seed=1)
    assert found.tokens == model.generate(PROMPTS[0], max_new_tokens=8).tokens


def test_a_penalty_keeps_tokens_from_coming_back(model: Model) -> None:
    expected = truth.greedy(tiny.weights(), PROMPTS[2], 12, penalty=3.0)
    found = model.generate(PROMPTS[2], max_new_tokens=12, repetition_penalty=3.0)
    assert found.tokens == expected[: len(found.tokens)]
    assert found.tokens != model.generate(PROMPTS[2], max_new_tokens=12).tokens


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"temperature": float("inf")}, "temperature=inf"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"min_p": 1.5}, "min_p=1.5"),
        ({"top_k": -1}, "top_k=-1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty=0.0"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty=inf"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"seed": -1}, "seed=-1"),
        ({"temperature": "hot"}, "temperature='hot'"),
        ({"top_p": None}, "top_p=None"),
        ({"min_p": [0.1, 0.2]}, "min_p="),
        ({"repetition_penalty": np.array([1.0, 2.0])}, "repetition_penalty="),
        ({"max_new_tokens": "3"}, "max_new_tokens='3'"),
        ({"stop": 3}, "stop takes texts, found 3"),
        ({"stop": ["w5", 3]}, "stop takes texts, found .'w5', 3"),
        ({"stop_tokens": 3}, "stop_tokens takes token ids, found 3"),
        ({"stop_tokens": ["w5"]}, "stop_tokens takes token ids, found .'w5'"),
        ({"prompt": "w5", "chat": 3}, "chat is True, messages or values by name: 3"),
        ({"prompt": b"w5"}, "or a list of messages: b'w5'"),
        ({"prompt": {"role": "user", "content": "w5"}}, "or a list of messages: {'role'"),
        ({"prompt": iter([5, 6, 7])}, "or a list of messages: <list_iterator"),
        ({"prompt": None}, "or a list of messages: None"),
        ({"prompt": [5.7, 6]}, "or a list of messages: .5.7, 6"),
        ({"prompt": ["w5", 6]}, "or a list of messages: 6"),
        ({"prompt": [5, "6"]}, "or a list of messages: .5, '6'"),
        ({"prompt": []}, "prompt is empty"),
        ({"prompt": [[5], []]}, "prompt is empty"),
        ({"prompt": [5, 64]}, r"\[64\] are outside the vocabulary"),
        ({"prompt": [-1]}, "outside the vocabulary"),
        ({"prompt": [5] * 90}, "the cache holds 96"),
        ({"prompt": [5] * 96, "max_new_tokens": None}, "96 tokens and 1 new, but the cache"),
        ({"prompt": [5] * 97}, "97 tokens and 16 new, but the cache holds 96"),
        ({"prompt": [[5]] * 9}, "batch from 1 to 8"),
        ({"prompt": [[5], [6]], "stream": True}, "one prompt"),
    ],
)
def test_what_cannot_be_generated_is_refused(
    model: Model, options: dict[str, object], said: str
) -> None:
    with pytest.raises(LoaderError, match=said):
        model.generate(**{"prompt": [5], "max_new_tokens": 16, **options})


@pytest.mark.parametrize("how", [{"min_p": 1.0}, {"top_k": 1}, {"top_p": 1e-9}], ids=str)
def test_the_narrowest_choice_is_the_likeliest_token(model: Model, how: dict[str, Any]) -> None:
    found = model.generate(PROMPTS[0], max_new_tokens=8, temperature=1.5, seed=0, **how)
    assert found.tokens == model.generate(PROMPTS[0], max_new_tokens=8).tokens


def test_the_first_token_of_the_vocabulary_and_the_last(model: Model) -> None:
    assert model.generate([0, tiny.VOCABULARY - 1], max_new_tokens=1).finish


def test_one_token_is_the_fewest(model: Model) -> None:
    found = model.generate(PROMPTS[0], max_new_tokens=1)
    assert found.tokens == model.generate(PROMPTS[0], max_new_tokens=8).tokens[:1]


def test_a_value_out_of_its_range_is_told_once(model: Model) -> None:
    with pytest.raises(LoaderError) as caught:
        model.generate([5], temperature=-1)
    said = "out of its range: temperature=-1, not a finite number from 0 on"
    assert str(caught.value) == said


@pytest.mark.parametrize("name", ["top_k", "seed", "max_new_tokens"])
def test_a_part_of_a_token_is_none(model: Model, name: str) -> None:
    with pytest.raises(LoaderError, match=rf"{name}=2\.5, not a whole number from \d on"):
        model.generate([5], **{name: 2.5})


def test_by_default_a_generation_stays_within_the_cache(model: Model) -> None:
    found = model.generate([5] * 90, stop_tokens=())
    assert len(found.tokens) == 6 or found.finish == "eos"


def test_by_default_a_generation_has_128_tokens(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert model.cache is not None
    monkeypatch.setitem(model.cache, "max_length", 1000)
    assert model._limit([[5, 6]], None) == 128


def test_an_encoder_does_not_generate(embedder: Model) -> None:
    with pytest.raises(LoaderError, match="feature-extraction"):
        embedder.generate([5])


rows = st.lists(st.integers(-400, 400), min_size=1, max_size=700, unique=True).map(
    lambda values: np.array(values, np.float32) / 64
)


@settings(max_examples=150, deadline=None)
@given(
    row=rows,
    temperature=st.floats(0.2, 3.0),
    top_k=st.integers(0, 40),
    top_p=st.one_of(st.just(1.0), st.floats(0.05, 0.999)),
    min_p=st.one_of(st.just(0.0), st.floats(0.001, 0.9)),
)
def test_what_may_be_drawn_follows_the_definitions(
    row: np.ndarray, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    ids, weights = Sampling(temperature, top_k, top_p, min_p).candidates(row.copy())
    ids = np.arange(len(row)) if ids is None else ids
    found = dict(zip(ids.tolist(), (weights / weights.sum()).tolist(), strict=True))
    expected = truth.chances(row, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    # A token whose cumulated chance meets the bound to the last bit may fall on either side.
    on_the_edge = set(found) ^ set(expected)
    assert all(max(found.get(t, 0), expected.get(t, 0)) < 2e-2 for t in on_the_edge)
    assert len(on_the_edge) <= 1
    if not on_the_edge:
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_top_k_and_top_p_are_exact_over_a_large_vocabulary() -> None:
    row = np.random.default_rng(1).permutation(100_003).astype(np.float32) / 1e5
    best = np.argsort(-row)
    ids, _ = Sampling(temperature=1.0, top_k=50).candidates(row.copy())
    assert ids is not None
    assert ids.tolist() == best[:50].tolist()
    ids, _ = Sampling(temperature=1.0, top_p=0.5).candidates(row.copy())
    assert ids is not None
    weights = np.exp(row[best].astype(np.float64))
    before = np.cumsum(weights) - weights
    assert ids.tolist() == best[before < 0.5 * weights.sum()].tolist()


@pytest.mark.parametrize("size", [1, 2, 511, 512, 513, 3000])
def test_a_draw_falls_where_the_running_sum_passes_it(size: int) -> None:
    weights = np.random.default_rng(size).random(size).astype(np.float32)
    sums = weights.cumsum(dtype=np.float64) / weights.sum(dtype=np.float64)
    for at in (0.0, 0.1, 0.5, 0.9, 0.999999):
        expected = min(int((sums <= at).sum()), size - 1)
        assert _draw(weights, at) == expected


def test_draws_come_as_often_as_their_chances() -> None:
    row = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    random, how = np.random.default_rng(0), Sampling(temperature=1.0)
    found = Counter(how.pick(row.copy(), None, random) for _ in range(4000))
    assert [found[n] / 4000 for n in range(4)] == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.03)


@settings(max_examples=60, deadline=None)
@given(row=rows, penalty=st.floats(0.5, 4.0), data=st.data())
def test_the_penalty_follows_its_definition(
    row: np.ndarray, penalty: float, data: st.DataObject
) -> None:
    seen = data.draw(st.lists(st.integers(0, len(row) - 1), min_size=1, max_size=8))
    expected = truth.penalized(row, seen, penalty)
    changed, written = row.copy(), SimpleNamespace(ids=seen[:2], tokens=seen[2:])
    picked = Sampling(repetition_penalty=penalty).pick(changed, written, np.random.default_rng(0))
    assert changed == pytest.approx(expected, rel=1e-5)
    assert expected[picked] == pytest.approx(expected.max(), rel=1e-5)


def test_start_is_for_answers_alone(model: Model) -> None:
    for how in ({"start": [3]}, {"beams": 2}):
        with pytest.raises(
            LoaderError, match="start and beams are of no use: this model does text"
        ):
            model.generate([2, 7], **how)


def test_images_are_for_models_that_see(model: Model) -> None:
    for prompt, images in (("w5", []), (["w5", "w6"], [[], []])):
        with pytest.raises(LoaderError, match="images are of no use: this model does text-gen"):
            model.generate(prompt, images=images)
