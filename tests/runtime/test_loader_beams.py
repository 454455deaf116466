"""Beam search over made-up chances: the answers of transformers, whatever the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnxruntime import OrtValue
from transformers import GenerationConfig, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from lepton_compile.runtime.loader_beams import search
from lepton_compile.runtime.loader_guard import LoaderError
from lepton_compile.runtime.loader_sampling import Sampling
from lepton_compile.runtime.loader_source import Begun

VOCABULARY = 8
ORDINARY = st.sampled_from([1, 2, 3, 4, 6, 7])  # Answers begin with the others.
RULES = {"early": False, "renormalize": False, "last": [], "words": [], "apart": 0}
RULES |= {"source_apart": 0, "least": 0, "least_new": 0}


def logits(source: Sequence[int], seen: Sequence[int]) -> np.ndarray:
    """What follows ``seen``, of a model that read ``source``: anything, but always the same."""
    draw = np.random.default_rng([*source, 99, *map(int, seen)])
    return (2 * draw.standard_normal(VOCABULARY)).astype(np.float32)


class Model(PreTrainedModel, GenerationMixin):
    """The same, for transformers."""

    config_class = PretrainedConfig

    def __init__(self, source: list[int]) -> None:
        super().__init__(PretrainedConfig(vocab_size=VOCABULARY))
        self.source, self.nothing = source, torch.nn.Linear(1, 1)

    def forward(self, input_ids: torch.Tensor, **_: Any) -> CausalLMOutput:
        made = [logits(self.source, row) for row in input_ids.tolist()]
        return CausalLMOutput(logits=torch.from_numpy(np.stack(made))[:, None])


@dataclass
class Row:
    """A text that is answered, as a loader has it."""

    ids: Begun
    limit: int
    ends: set[int]
    tokens: list[int] = field(default_factory=list)
    finish: str = ""


class Cache:
    """What a model keeps: the tokens, from which all that follows can be told."""

    def __init__(self, rows: int, capacity: int) -> None:
        self.rows, self.capacity, self.closed = rows, capacity, False

    def start(self, rows: list[list[int]]) -> np.ndarray:
        assert len(rows) == self.rows
        self.keep(np.array(rows, np.float32))
        return self._scores()

    def step(self, tokens: list[int], alive: list[bool]) -> np.ndarray:
        self.add(np.array(tokens, np.float32), np.array(alive))
        return self._scores()

    def _scores(self) -> np.ndarray:
        return np.stack([logits(*one) for one in zip(self.session.sources, self.held, strict=True)])

    def close(self) -> None:
        self.closed = True


class Grown(Cache):
    """It is given anew each time."""

    def keep(self, held: np.ndarray) -> None:
        past = OrtValue.ortvalue_from_numpy(np.ascontiguousarray(held[:, None, :, None]))
        self.groups = [([*range(len(held))], held.shape[1], [past])]

    def add(self, tokens: np.ndarray, alive: np.ndarray) -> None:
        self.keep(np.hstack([self.held, tokens[:, None]]))

    @property
    def held(self) -> list[np.ndarray]:
        ((_, _, (past,)),) = self.groups
        return [*past.numpy()[:, 0, :, 0]]


class InPlace(Cache):
    """A buffer that has room for more of them, and for more rows."""

    def keep(self, held: np.ndarray) -> None:
        self.array = np.full((len(held) + 2, 1, self.capacity + 3, 1), 7, np.float32)
        self.buffers = [("past", "present", OrtValue.ortvalue_from_numpy(self.array))]
        self.lengths = np.full(len(held), held.shape[1])
        self.array[: len(held), 0, : held.shape[1], 0] = held

    def add(self, tokens: np.ndarray, alive: np.ndarray) -> None:
        self.lengths += alive
        self.array[np.arange(len(tokens)), 0, self.lengths - 1, 0] = tokens

    @property
    def held(self) -> list[np.ndarray]:
        rows = zip(self.array[:, 0, :, 0], self.lengths, strict=False)
        return [row[:length] for row, length in rows]


class Session:
    """An engine that has read something."""

    def __init__(self, sources: list[list[int]]) -> None:
        self.sources = sources

    def repeat(self, times: int) -> None:
        self.sources = [source for source in self.sources for _ in range(times)]


def answered(
    kind: type[Cache],
    rows: list[Row],
    beams: int,
    penalty: float = 1.0,
    batch: tuple[int, int] = (1, 8),
    **told: Any,
) -> list[Cache]:
    """Put answers into rows; the caches that were used."""
    used: list[Cache] = []

    def buffers(count: int, longest: int, limit: int) -> Cache:
        used.append(kind(count, longest + limit))
        return used[-1]

    manifest = {"ranges": {"batch": [*batch]}, "generation": {"never": [], "first": [], **told}}
    manifest["generation"].setdefault("rules", None)
    model = SimpleNamespace(
        manifest=manifest, session=SimpleNamespace(reading=Session), _buffers=buffers
    )
    assert [*search(model, rows, (beams, penalty), Sampling(max_new_tokens=5), ())] == []
    return used


def row_of(source: list[int], begun: list[int], limit: int, ends: set[int]) -> Row:
    ids = Begun(begun)
    ids.source = source
    return Row(ids, limit, ends)


def expected(row: Row, beams: int, penalty: float, told: dict[str, Any]) -> tuple[list[int], str]:
    """The answer of transformers, and how it ends."""
    rules = told["rules"] or {}
    config = GenerationConfig(
        num_beams=beams,
        length_penalty=penalty,
        max_new_tokens=row.limit + len(row.ids) - 1,
        eos_token_id=sorted(row.ends) or None,
        pad_token_id=0,
        forced_bos_token_id=row.ids[1] if len(row.ids) > 1 else None,
        suppress_tokens=told["never"] or None,
        begin_suppress_tokens=told["first"] or None,
        early_stopping=rules.get("early", False),
        renormalize_logits=rules.get("renormalize", False),
        use_cache=False,
    )
    ids = torch.tensor([row.ids[:1]])
    made = Model(row.ids.source).generate(
        ids, attention_mask=torch.ones_like(ids), generation_config=config
    )
    tokens = made[0, len(row.ids) :].tolist()
    ended = next((n for n, token in enumerate(tokens) if token in row.ends), None)
    return (tokens, "length") if ended is None else (tokens[:ended], "eos")


@settings(max_examples=120)
@given(
    sources=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=3), min_size=1, max_size=5),
    begun=st.sampled_from([[0], [0, 5]]),
    limit=st.sampled_from([1, 2, 4, 7, 10]),
    ends=st.sets(ORDINARY, max_size=3),
    beams=st.integers(2, 4),
    penalty=st.sampled_from([1.0, 2.0, 4.0, 0.0, -1.0]),
    told=st.fixed_dictionaries(
        {
            "never": st.lists(ORDINARY, max_size=1),
            "first": st.lists(st.integers(1, 7), max_size=1),
            "rules": st.none()
            | st.fixed_dictionaries({"early": st.booleans(), "renormalize": st.booleans()}).map(
                lambda rules: {**RULES, **rules}
            ),
        }
    ),
    kind=st.sampled_from([Grown, InPlace]),
    least=st.integers(1, 8),
)
@example(  # what fills up a batch is one row again and again, or there are more than 8
    sources=[[1], [2]],
    begun=[0],
    limit=4,
    ends={2},
    beams=2,
    penalty=1.0,
    told={"never": [], "first": [], "rules": None},
    kind=Grown,
    least=8,
)
def test_answers_are_those_of_transformers(
    sources: list[list[int]],
    begun: list[int],
    limit: int,
    ends: set[int],
    beams: int,
    penalty: float,
    told: dict[str, Any],
    kind: type[Cache],
    least: int,
) -> None:
    rows = [row_of(source, begun, limit, ends) for source in sources]
    caches = answered(kind, rows, beams, penalty, (least, 8), eos=sorted(ends), **told)
    for row in rows:
        assert (row.tokens, row.finish) == expected(row, beams, penalty, told)
    most = max(8, least + beams - 1)
    assert all(cache.closed and least <= cache.rows <= most for cache in caches)


@pytest.mark.parametrize(("early", "kind"), [(False, InPlace), (True, Grown)])
def test_a_search_ends_where_transformers_does(early: bool, kind: type[Cache]) -> None:
    """Of longer answers that would score higher it hears no more, as little as they do."""
    rules = {**RULES, "early": early}
    rows = [row_of([number], [0], 12, {2, 3, 6}) for number in range(20)]
    answered(kind, rows, 3, 3.0, rules=rules)
    told = {"never": [], "first": [], "rules": rules}
    assert [(row.tokens, row.finish) for row in rows] == [
        expected(row, 3, 3.0, told) for row in rows
    ]
    assert len({len(row.tokens) for row in rows}) > 3, "all end alike"


def test_what_no_answer_can_go_on_with_is_refused() -> None:
    row = row_of([1], [0], 4, {*range(VOCABULARY)})
    with pytest.raises(LoaderError, match="each token ends an answer"):
        answered(Grown, [row], 2)


@pytest.mark.parametrize(
    ("beams", "penalty", "how", "more", "words"),
    [
        (0, 1.0, {}, (), "beams are 1 or more"),
        (True, 1.0, {}, (), "beams are 1 or more"),
        (2, True, {}, (), "length_penalty -50 to 50"),
        (2.5, 1.0, {}, (), "beams are 1 or more"),
        ("2", 1.0, {}, (), "beams are 1 or more"),
        (2, float("nan"), {}, (), "length_penalty -50 to 50"),
        (2, 51, {}, (), "length_penalty -50 to 50"),
        (2, -51, {}, (), "length_penalty -50 to 50"),
        (2, "high", {}, (), "length_penalty -50 to 50"),
        (2, 1.0, {}, ["."], "neither stream nor stop"),
        (2, 1.0, {"temperature": 0.5}, (), "none of temperature"),
        (2, 1.0, {"repetition_penalty": 1.5}, (), "penalties"),
        (9, 1.0, {}, (), "9 beams are 9 rows, and the engine takes 8"),
    ],
)
def test_a_search_that_cannot_be_carried_out_begins_nothing(
    beams: Any, penalty: Any, how: dict[str, Any], more: Any, words: str
) -> None:
    model = SimpleNamespace(manifest={"ranges": {"batch": [1, 8]}})
    rows = [row_of([1], [0], 4, {1})]
    with pytest.raises(LoaderError, match=words):
        search(model, rows, (beams, penalty), Sampling(seed=3, **how), more)


@pytest.mark.parametrize("penalty", [-50, 20, "2"])
def test_strong_penalties(penalty: Any) -> None:
    rows = [row_of([number], [0], 6, {2, 3, 6}) for number in range(4)]
    answered(Grown, rows, 8, penalty)
    told = {"never": [], "first": [], "rules": None}
    wanted = [expected(row, 8, float(penalty), told) for row in rows]
    assert [(row.tokens, row.finish) for row in rows] == wanted
    answered(Grown, rows, 8, 50)  # of which transformers has no numbers: they are fp32
    assert all(row.tokens for row in rows)
