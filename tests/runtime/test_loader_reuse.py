"""What a prompt begins with, as the one before it did, is not read again, and nothing changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lepton_compile as lc
from lepton_compile.runtime.loader import Model
from lepton_compile.runtime.loader_shared_cache import SharedCache
from tests.small import SIZES, llama, saved

ROOM = 1100
LEAST = 16  # tokens that are read in any case
# Of logits: our kernels give the same to the last bit, onnxruntime's as good as fp32 has them.
EXACT = {"ai.lepton.cpu": 0.0, "": 1e-5}
WORDS = 99
GEMMA = {**SIZES, "num_key_value_heads": 1, "head_dim": 16, "sliding_window": 40}
# Attention in small integers, of heads that each have keys: 33 tokens are as few as round.
ROUNDS, LEAST_ROUNDED = "llama-int4", 33


def kinds() -> dict[str, tuple[str, Any, str]]:
    """Models with and without windows, of onnxruntime's kernels and of our own."""
    long: dict[str, Any] = {"max_position_embeddings": ROOM}
    gemma = transformers.Gemma3TextConfig(**GEMMA | long, layer_types=["sliding_attention"] * 2)
    return {
        "llama": ("LlamaForCausalLM", llama(**long), "none"),
        "llama-int8": ("LlamaForCausalLM", llama(**long), "int8"),
        "gemma": ("Gemma3ForCausalLM", gemma, "none"),
        "gemma-int4": ("Gemma3ForCausalLM", gemma, "int4"),
        ROUNDS: ("LlamaForCausalLM", llama(**long, num_key_value_heads=4, head_dim=64), "int4"),
    }


@pytest.fixture(scope="module", params=kinds())
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Model]:
    """A decoder that was built."""
    name, config, bits = kinds()[request.param]
    with built(name, config, tmp_path_factory.mktemp("reuse"), bits) as opened:
        yield opened


in_strips = pytest.mark.parametrize("model", sorted({*kinds()} - {ROUNDS}), indirect=True)


def built(name: str, config: Any, folder: Path, bits: str = "none") -> Model:
    source = saved(name, config, folder / "model")
    how: dict[str, Any] = {"quantize": bits, "tactics": "default", "verify": False, "check": False}
    return lc.load(lc.build(model=str(source), output=folder / "out", **how).path, threads=1)


def prompt(*lengths: int) -> list[int]:
    """Some words; those of the same lengths begin alike."""
    return [int(n) for seed, many in enumerate(lengths) for n in words(seed, many)]


def words(seed: int, many: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, WORDS, many)


def alike(model: Model, found: np.ndarray, wanted: np.ndarray) -> None:
    exact = EXACT["ai.lepton.cpu" if model.engine.get("kernels") else ""]
    assert np.abs(found - wanted).max() <= exact


class Watched:
    """A cache, and how many tokens of each row its engine was given for prompts."""

    def __init__(
        self, model: Model, rows: int, monkeypatch: pytest.MonkeyPatch, room: int = ROOM
    ) -> None:
        self.cache, self.model = model.new_cache(rows, room), model
        assert isinstance(self.cache, SharedCache)
        self.given = list[tuple[int, int]]()
        run = self.cache._run

        def noted(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
            self.given.append(ids.shape)
            return run(ids, mask)

        monkeypatch.setattr(self.cache, "_run", noted)

    def reads(self, rows: list[list[int]]) -> list[tuple[int, int]]:
        """Rows and tokens of each run, once logits are what a new cache gives, to the last bit."""
        self.given.clear()
        new = self.model.new_cache(len(rows), ROOM)
        alike(self.model, self.cache.start(rows), new.start(rows))
        new.close()
        return self.given


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    turns=st.lists(st.tuples(st.integers(1, 130), st.integers(1, 130)), min_size=2, max_size=4),
    steps=st.integers(0, 3),
)
def test_logits_are_the_same(model: Model, turns: list[tuple[int, int]], steps: int) -> None:
    cache = model.new_cache(1, ROOM)
    for turn in turns:
        fresh, ids = model.new_cache(1, ROOM), prompt(*turn)
        found, wanted = cache.start([ids]), fresh.start([ids])
        alike(model, found, wanted)
        for _ in range(steps):
            token = [int(wanted[0].argmax())]
            found, wanted = cache.step(token, [True]), fresh.step(token, [True])
            alike(model, found, wanted)
        fresh.close()


@in_strips
def test_what_is_read(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(model, 1, monkeypatch)
    assert watched.reads([prompt(100)]) == [(1, 100)]
    # 99 tokens are held, for the last may have been written over; whole strips of them count.
    assert watched.reads([prompt(100, 50)]) == [(1, 150 - 96)]
    assert watched.reads([prompt(100, 50)]) == [(1, 150 - 128)]
    assert watched.reads([prompt(100)]) == [(1, 100 - 80)]
    assert watched.reads([prompt(100)[1:]]) == [(1, 99)]
    assert watched.reads([prompt(LEAST)]) == [(1, LEAST)]


@pytest.mark.parametrize("model", [ROUNDS], indirect=True)
def test_what_is_read_where_attention_rounds(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model.engine["kernels"]["piece"] == LEAST_ROUNDED
    watched = Watched(model, 1, monkeypatch)
    assert watched.reads([prompt(100)]) == [(1, 100)]
    assert watched.reads([prompt(100, 50)]) == [(1, 150 - 96)]
    assert watched.reads([prompt(100, 50)]) == [(1, 150 - 112)]  # 128 would leave 22
    assert watched.reads([prompt(LEAST_ROUNDED)]) == [(1, LEAST_ROUNDED)]
    assert watched.reads([prompt(LEAST_ROUNDED, 40)]) == [(1, LEAST_ROUNDED + 40 - 32)]
    # What was read in fp32 is no beginning of a prompt that is not.
    assert watched.reads([prompt(LEAST_ROUNDED - 1)]) == [(1, LEAST_ROUNDED - 1)]
    assert watched.reads([prompt(LEAST_ROUNDED - 1, 40)]) == [(1, LEAST_ROUNDED - 1 + 40)]


@in_strips
def test_rows_of_a_batch_have_their_own(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(model, 3, monkeypatch)
    rows = [prompt(80), prompt(60, 30), prompt(40)]
    assert watched.reads(rows) == [(1, 80), (1, 90), (1, 40)]
    longer = [row + prompt(20) for row in rows]
    assert watched.reads(longer) == [(1, 100 - 64), (1, 110 - 80), (1, 60 - 32)]
    # Those of one length are read together, and an engine takes them whole.
    assert watched.reads([prompt(80), prompt(80, 9)[9:]]) == [(2, 80)]
    # The third row was left alone.
    assert watched.reads([*rows[:2], longer[2]])[2] == (1, 60 - 32)


@in_strips
def test_more_room_loses_nothing(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(model, 2, monkeypatch, room=256)
    rows = [prompt(100), prompt(60)]
    watched.reads(rows)
    watched.cache.widen(512)
    assert {buffer.shape()[2] for *_, buffer in watched.cache.buffers} == {512}
    longer = [prompt(100, 300), prompt(60, 20)]
    assert watched.reads(longer) == [(1, 400 - 96), (1, 80 - 48)]


def test_a_row_that_ended_early_is_not_taken_for_more(model: Model) -> None:
    cache, fresh = (model.new_cache(2, ROOM) for _ in range(2))
    rows = [prompt(48), prompt(30, 3)]
    cache.start(rows)
    for _ in range(4):
        cache.step([5, 6], [False, True])  # what the first row is given lies on its last token
    again = [rows[0] + prompt(9, 40)[9:], rows[1]]
    alike(model, cache.start(again), fresh.start(again))


def test_a_conversation(model: Model) -> None:
    """Through ``generate``: an answer goes into the next prompt, and buffers grow by twice."""
    model.forget()
    ids, answers, capacities = prompt(50), list[list[int]](), list[int]()
    prompts = list[list[int]]()
    for turn in range(4):
        prompts.append(ids)
        answers.append(model.generate(ids, max_new_tokens=6).tokens)
        capacities.append(model.spare[0].capacity)
        ids = ids + answers[-1] + prompt(3, 170 + turn)[3:]
    assert capacities == [256, 256, 512, 1024]
    for before, answer in zip(prompts, answers, strict=True):
        model.forget()
        assert not model.spare
        assert model.generate(before, max_new_tokens=6).tokens == answer


def test_ids_that_a_caller_changes_are_another_prompt(model: Model) -> None:
    made = model.generate(prompt(60), max_new_tokens=4)
    made.ids[1:30] = prompt(30, 29)[30:]
    found = model.generate(made.ids, max_new_tokens=4)
    model.forget()
    assert found.tokens == model.generate(made.ids, max_new_tokens=4).tokens


def test_tokens_are_not_taken_where_later_ones_change_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 128}
    rope |= {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    long = {"max_position_embeddings": ROOM, "original_max_position_embeddings": 128}
    given = SIZES | long | {"rope_parameters": rope, "pad_token_id": 0}
    config = transformers.Phi3Config(**given)
    with built("Phi3ForCausalLM", config, tmp_path) as opened:
        assert opened.cache["shared"]
        assert not opened.cache["pieces"]
        watched = Watched(opened, 1, monkeypatch)
        assert watched.reads([prompt(100)]) == [(1, 100)]
        assert watched.reads([prompt(100, 60)]) == [(1, 160)]
