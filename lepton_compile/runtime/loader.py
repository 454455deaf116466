"""Load and run a compiled model. Needs numpy and the engine's own runtime, nothing else.

    model = loader.load("path/of/this/folder")
    model.run({"input_ids": ids, "attention_mask": mask})     # dict of numpy in, dict of numpy out
    python loader.py --help                                   # the same from a shell

All is checked before a runtime opens anything; every refusal is a LoaderError. Of several engines
the best that runs here is taken, and ``model.passed_over`` says why those before it were not.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from lepton_compile.runtime.loader_answer import Answers
from lepton_compile.runtime.loader_batches import Batches
from lepton_compile.runtime.loader_classify import Classifies
from lepton_compile.runtime.loader_continue import Continues
from lepton_compile.runtime.loader_embed import Embeds
from lepton_compile.runtime.loader_entities import Entities
from lepton_compile.runtime.loader_fill import Fills
from lepton_compile.runtime.loader_generate import Generates
from lepton_compile.runtime.loader_grids import Prepares
from lepton_compile.runtime.loader_guard import (
    LoaderError,
    UnfitError,
    failing,
    manifest_of,
    refuse,
)
from lepton_compile.runtime.loader_image_labels import SeesLabels
from lepton_compile.runtime.loader_image_vectors import SeesVectors
from lepton_compile.runtime.loader_images import Sees
from lepton_compile.runtime.loader_opened import Opened
from lepton_compile.runtime.loader_pictured import Looks
from lepton_compile.runtime.loader_prompts import Prompts
from lepton_compile.runtime.loader_scores import Scores
from lepton_compile.runtime.loader_special import Special
from lepton_compile.runtime.loader_speech import Transcribes
from lepton_compile.runtime.loader_template import Templated
from lepton_compile.runtime.loader_text import Texts
from lepton_compile.runtime.loader_vectors import Vectors
from lepton_compile.runtime.loader_weights import Weighs

__all__ = ["LoaderError", "Model", "cores", "load"]

ORDER = ("trt", "trt-rtx", "ort-cuda", "ort-cpu")  # Which engine to take first.
GROUP = Path("/sys/fs/cgroup")  # Of a container: its control group, of version 2 or 1.


def load(path: Any, threads: int | None = None, target: str | None = None) -> Model:
    """Check the artifact in folder ``path``, then open the best of its engines that runs here.

    A ``target`` asked for by name is never replaced. ``threads`` are those of ``cores`` by default.
    """
    with failing(f"{path!r:.60} is no path"):
        root, passed_over = Path(os.path.realpath(os.fspath(path))), dict[str, str]()
    manifest = manifest_of(root)
    engines = {engine["target"]: engine for engine in manifest["engines"]}
    able = [name for name in ORDER if name in engines and target in (None, name)]
    refuse(not able, f"no engine for {target or [*ORDER]} here; there is {[*engines]}")
    fits = threads is None or (f"{threads}".isdecimal() and threads in range(1, 1025))  # not True
    refuse(not fits, f"threads are 1 to 1024, not {threads!r:.60}")
    globals()["np"] = __import__("numpy")  # at the top it would be most of what an import takes
    for name in able:
        try:
            return Model(root, manifest, engines[name], int(threads or cores()), passed_over)
        except UnfitError as reason:
            passed_over[name] = str(reason)
    why = "; ".join(f"{name}: {reason}" for name, reason in passed_over.items())
    raise LoaderError(f"no engine that was asked for runs here. {why}")


def cores() -> int:
    """Cores this process may use, not hyperthreads: at most what a container has time for."""
    cpus = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
    files = [Path(f"/sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list") for n in cpus]
    counts = [len({file.read_text() if file.exists() else str(file) for file in files})]
    for names in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        with suppress(OSError, ValueError):  # no such file, or "max"
            quota, period = map(int, " ".join((GROUP / n).read_text() for n in names).split())
            counts.append(max(1, quota // period % sys.maxsize))  # -1 is none
    return min(counts)


class Model(
    Transcribes,
    SeesVectors,
    SeesLabels,
    Sees,
    Prepares,
    Looks,
    Generates,
    Continues,
    Prompts,
    Templated,
    Vectors,
    Weighs,
    Embeds,
    Classifies,
    Entities,
    Answers,
    Fills,
    Batches,
    Texts,
    Special,
    Scores,
    Opened,
):
    """An opened artifact.

    ``manifest`` says what it takes and gives, ``target`` which of its engines was opened,
    ``passed_over`` why those that come before it were not; ``session`` is the engine itself.
    """

    def __new__(cls, root: Path, manifest: Any, *_: Any) -> Self:
        """One without the calls of other tasks."""
        from lepton_compile.runtime.own_calls import without_others

        own: type[Self] = without_others(cls, manifest)
        return super().__new__(own)
