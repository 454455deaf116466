"""Take turns: A B C, A B C, so that a slow minute of the machine hits every tool alike."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peerbench import child
from peerbench.environments import environment, lepton_command

__all__ = ["Settings", "Tool", "prepared", "take_turns"]


@dataclass(frozen=True)
class Settings:
    """What holds for all suites.

    Attributes:
        cache: environments and models lie here.
        scratch: room for the 8-billion-parameter checkpoint, about 22 GB while that suite runs.
        threads: for every tool.
        rounds: how often each tool has its turn.
        tools: name parts; empty means all tools.
        smoke: a few tokens and one round, to see that everything runs.
    """

    cache: Path
    scratch: Path
    threads: int = 2
    rounds: int = 3
    tools: tuple[str, ...] = ()
    smoke: bool = False

    def wanted(self, tools: Iterable[Tool]) -> list[Tool]:
        """Those of ``tools`` that were asked for."""
        return [t for t in tools if not self.tools or any(part in t.name for part in self.tools)]


@dataclass(frozen=True)
class Tool:
    """A contestant.

    Attributes:
        name: as shown.
        environment: which of ``peers/``, or ``project``.
        runner: which of ``runners/``.
        options: added to the job.
        work: folder of its prepared model; tools may share one.
        build: arguments of ``lepton-compile build``; the others prepare with their runner.
        prepares: whether there is anything to prepare.
    """

    name: str
    environment: str
    runner: str
    options: Mapping[str, Any] = field(default_factory=dict)
    work: str = ""
    build: tuple[str, ...] = ()
    prepares: bool = True

    def job(self, settings: Settings, common: Mapping[str, Any]) -> dict[str, Any]:
        """What its runner is given."""
        work = settings.cache / "models" / (self.work or self.name)
        own = {"name": self.name, "work": str(work), "threads": settings.threads}
        return {**common, **self.options, **own}


def prepared(tool: Tool, settings: Settings, common: Mapping[str, Any]) -> None:
    """Build or convert the tool's model: a peer's once, ours each time, since we change."""
    job = tool.job(settings, common)
    work = Path(job["work"])
    if tool.build:
        outputs = ("--output", work, "--force", "--no-check", "--no-verify", "--quiet")
        child.run(lepton_command("build", *tool.build, *outputs), settings.threads)
    elif tool.prepares and not work.with_suffix(".done").exists():
        work.parent.mkdir(parents=True, exist_ok=True)
        python = environment(tool.environment, settings.cache)
        child.runner(python, tool.runner, "prepare", job)
        work.with_suffix(".done").touch()


def take_turns(
    tools: Iterable[Tool],
    settings: Settings,
    common: Mapping[str, Any],
    measure: Callable[[Tool], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Prepare and measure each tool in turn.

    Args:
        tools: the contestants; one that fails is reported as such and does not stop the others.
        settings: how many rounds, which tools.
        common: the job, but for what a tool adds.
        measure: what one turn is; by default the runner's ``measure`` after a preparation.

    Returns:
        Tool name -> ``{"median": …, "rounds": […]}``, or ``{"error": …}``.
    """
    able = {tool.name: tool for tool in settings.wanted(tools)}
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in able}
    failed: dict[str, str] = {}

    def turn(tool: Tool) -> dict[str, Any]:
        python = environment(tool.environment, settings.cache)
        result = child.runner(python, tool.runner, "measure", tool.job(settings, common))
        del result["wall_s"]  # Of starting up and warming up, mostly.
        return result

    for number in range(-1 if measure is None else 0, settings.rounds):
        for name, tool in list(able.items()):
            _say(f"{name}: {'prepare' if number < 0 else f'round {number + 1}'}")
            try:
                if number < 0:
                    prepared(tool, settings, common)
                else:
                    rounds[name].append((measure or turn)(tool))
            except (child.ChildError, RuntimeError) as error:
                failed[name] = str(error)
                del able[name]
                _say(f"{name} failed: {error}")
    done = {name: runs for name, runs in rounds.items() if runs and name not in failed}
    results = {name: {"median": median(runs), "rounds": runs} for name, runs in done.items()}
    return results | {name: {"error": text} for name, text in failed.items()}


def median(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Key -> median over ``runs`` of each number, also inside a mapping; the rest is left out."""
    found: dict[str, Any] = {}
    for key, value in runs[0].items():
        if value is None or isinstance(value, bool | str | list):
            continue
        column = [run[key] for run in runs]
        found[key] = median(column) if isinstance(value, dict) else statistics.median(column)
    return found


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
