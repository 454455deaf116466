"""Turns: who comes when, and what becomes of a tool that fails."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from peerbench import child
from peerbench.turns import Settings, Tool, take_turns

TOOLS = [Tool("a", "project", ""), Tool("b", "project", "")]


def test_tools_alternate(tmp_path: Path) -> None:
    order = []

    def turn(tool: Tool) -> dict[str, Any]:
        order.append(tool.name)
        return {"wall_s": float(len(order))}

    results = take_turns(TOOLS, Settings(tmp_path, tmp_path, rounds=3), {}, turn)
    assert order == ["a", "b"] * 3
    assert results["a"]["median"] == {"wall_s": 3.0}
    assert [run["wall_s"] for run in results["b"]["rounds"]] == [2.0, 4.0, 6.0]


def test_a_tool_that_fails_has_no_more_turns(tmp_path: Path) -> None:
    order = []

    def turn(tool: Tool) -> dict[str, Any]:
        order.append(tool.name)
        if tool.name == "a" and len(order) > 2:
            raise child.ChildError("gone")
        return {"wall_s": 1.0}

    results = take_turns(TOOLS, Settings(tmp_path, tmp_path, rounds=3), {}, turn)
    assert order == ["a", "b", "a", "b", "b"]
    assert results["a"] == {"error": "gone"}
    assert "median" in results["b"]


def test_tools_are_chosen_by_a_part_of_their_name(tmp_path: Path) -> None:
    settings = Settings(tmp_path, tmp_path, rounds=1, tools=("b",))
    assert list(take_turns(TOOLS, settings, {}, lambda tool: {"wall_s": 1.0})) == ["b"]


def test_a_child_is_measured() -> None:
    program = "x = bytearray(200_000_000); print('done')"
    done = child.run([sys.executable, "-c", program], threads=1)
    assert done.output == "done\n"
    assert 190 < done.peak_mb < 250
    assert done.wall_s > 0


def test_the_size_of_who_measures_is_not_that_of_a_child() -> None:
    held = bytearray(150_000_000)
    assert child.run([sys.executable, "-S", "-c", "pass"], threads=1).peak_mb < 60
    assert len(held) == 150_000_000


def test_a_child_that_fails_says_why() -> None:
    with pytest.raises(child.ChildError, match=r"(?s)exit 3.*no luck"):
        child.run([sys.executable, "-c", "import sys; print('no luck'); sys.exit(3)"], threads=1)


def test_a_child_has_the_threads_it_was_given_and_no_hub() -> None:
    program = "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['HF_HUB_OFFLINE'])"
    assert child.run([sys.executable, "-c", program], threads=2).output == "2 1\n"
