"""The command line of the comparison: ``scripts/bench/run``."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from peerbench.environments import BENCH, REPOSITORY
from peerbench.report import ratios, save
from peerbench.suites import SUITES
from peerbench.turns import Settings


def main() -> None:
    """Measure what was asked for, suite by suite; each is saved as soon as it is there."""
    chosen = _parser().parse_args()
    settings = Settings(
        cache=chosen.cache.resolve(),
        scratch=chosen.scratch.resolve(),
        threads=chosen.threads,
        rounds=1 if chosen.smoke else chosen.rounds,
        tools=tuple(chosen.tools),
        smoke=chosen.smoke,
    )
    settings.cache.mkdir(parents=True, exist_ok=True)
    results = Path(tempfile.mkdtemp()) if chosen.smoke else chosen.results
    conditions = {"threads": settings.threads, "rounds": settings.rounds}
    for name in chosen.only or SUITES:
        suite = SUITES[name](settings)
        suite["ratios"] = ratios(name, suite["tools"])
        path = save(results, {name: suite}, conditions)
    print(path.with_suffix(".md").read_text(encoding="utf-8"))
    print(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench/run",
        description="Compare lepton-compile with other tools, all on the same input in turn.",
    )
    parser.add_argument(
        "--only", nargs="+", choices=SUITES, metavar="SUITE", help=", ".join(SUITES)
    )
    parser.add_argument(
        "--tools", nargs="+", default=[], help="only tools whose name contains this"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--smoke", action="store_true", help="tiny inputs, nothing is kept")
    parser.add_argument(
        "--cache",
        type=Path,
        default=REPOSITORY / ".cache" / "bench",
        help="environments and models, about 10 GB",
    )
    parser.add_argument(
        "--scratch",
        type=Path,
        default=REPOSITORY / ".cache" / "bench",
        help="for the suite memory: about 22 GB while it runs",
    )
    parser.add_argument("--results", type=Path, default=BENCH / "results")
    return parser


if __name__ == "__main__":
    main()
