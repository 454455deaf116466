"""The benchmark of conversations, on a tiny decoder."""

from __future__ import annotations

import json
from pathlib import Path

import conversation
import pytest

import lepton_compile as lc
from tests.small import llama, saved


def test_it_reads_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = saved("LlamaForCausalLM", llama(max_position_embeddings=300), tmp_path / "model")
    built = lc.build(model=str(source), output=tmp_path / "out", verify=False, check=False).path
    sizes = ["--turns", "3", "--tokens", "60", "--answer", "5", "--rounds", "1", "--threads", "1"]
    conversation.main([str(built), *sizes, "--json", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text("utf-8"))
    assert [turn["tokens"] for turn in found["read"]] == [60, 125, 190]
    assert all(turn["held_s"] > 0 and turn["anew_s"] > 0 for turn in found["read"])

    def other(model: object, asked: object, *, held: bool) -> list[dict[str, object]]:
        return [{"tokens": 1, "seconds": 1.0, "answer": [int(held)]}]

    monkeypatch.setattr(conversation, "conversation", other)
    with pytest.raises(SystemExit, match="the answers differ"):
        conversation.main([str(built), *sizes])
