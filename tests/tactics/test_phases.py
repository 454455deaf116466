"""What each objective wants to be fast, and how exact a kernel has to be."""

from __future__ import annotations

import pytest

from lepton_compile.tactics.phases import Phase, wanted_of

WIDE = {"batch": [1, 8], "sequence": [1, 4096]}
NARROW = {"batch": [1, 2], "sequence": [1, 48]}


@pytest.mark.parametrize(
    ("objective", "ranges", "phases"),
    [
        ("latency", WIDE, (Phase("write", 1, 128), Phase("read", 128, 1))),
        ("latency", NARROW, (Phase("write", 1, 128), Phase("read", 48, 1))),
        ("throughput", WIDE, (Phase("write", 8, 128), Phase("read", 512, 2))),
        ("throughput", NARROW, (Phase("write", 2, 128), Phase("read", 96, 1))),
        ("memory", WIDE, ()),
    ],
)
def test_a_decoder_reads_a_prompt_and_writes_a_reply(
    objective: str, ranges: dict[str, list[int]], phases: tuple[Phase, ...]
) -> None:
    assert wanted_of(objective, ranges, decoder=True).phases == phases


@pytest.mark.parametrize(
    ("objective", "ranges", "rows"),
    [
        ("latency", WIDE, 128),
        ("latency", NARROW, 48),
        ("throughput", WIDE, 512),
        ("throughput", NARROW, 96),
    ],
)
def test_an_encoder_reads_texts(objective: str, ranges: dict[str, list[int]], rows: int) -> None:
    assert wanted_of(objective, ranges, decoder=False).phases == (Phase("texts", rows, 1),)


def test_the_budget_is_what_was_seen_to_cost_that_much() -> None:
    ours, by_block, by_tensor = 0.0244, 0.0107, 0.0475  # errors of kernels, see test_measure.py
    decoder = wanted_of("latency", WIDE, decoder=True, perplexity=0.01).budget
    encoder = wanted_of("latency", WIDE, decoder=False, cosine=0.995).budget
    assert by_block < decoder < ours
    assert ours < encoder < by_tensor
    assert wanted_of("latency", WIDE, decoder=True, perplexity=0.0025).budget == decoder / 2


@pytest.mark.parametrize("decoder", [True, False])
def test_nothing_is_borne_where_nothing_is_said(decoder: bool) -> None:
    assert wanted_of("latency", WIDE, decoder=decoder).budget == 0
    kept = wanted_of("latency", WIDE, decoder=decoder, perplexity=-1, cosine=2).budget
    assert kept == 0
    of_the_other = {"cosine": 0.9} if decoder else {"perplexity": 0.1}
    assert wanted_of("latency", WIDE, decoder=decoder, **of_the_other).budget == 0
