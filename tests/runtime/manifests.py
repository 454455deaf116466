"""Manifests of every kind of artifact, as far as they decide what its loader consists of."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import chain, combinations, product
from typing import Any

from lepton_compile.runtime.emit import loader_source

__all__ = [
    "LOOKS",
    "OF_TWO_PARTS",
    "PAIRS",
    "TARGETS",
    "TASKS",
    "all_loaders",
    "all_manifests",
    "manifest",
]

TARGETS = ("ort-cpu", "ort-cuda", "trt-rtx", "trt")
PAIRS, LOOKS = ("text2text-generation", "automatic-speech-recognition"), "image-text-to-text"
OF_TWO_PARTS = (*PAIRS, LOOKS)  # of one target alone
# Task -> its outputs.
TASKS = {
    "text-generation": ("logits",),
    "text2text-generation": ("logits",),
    "automatic-speech-recognition": ("logits",),
    "feature-extraction": ("last_hidden_state",),
    "text-classification": ("logits",),
    "token-classification": ("logits",),
    "question-answering": ("start_logits", "end_logits"),
    "fill-mask": ("logits",),
    "image-classification": ("logits",),
    LOOKS: ("logits",),
    "image-feature-extraction": ("last_hidden_state", "pooler_output"),
    "other": ("out",),
}


FORMS = {
    "": {"window": 4, "axes": 3},
    "grow": {"axes": 3},
    "scale": {"axes": 3},
    "fill": {"axes": 1},
    "edge": {"axes": 1},
}
"""How pictures of any size are cut, by the rule of their sizes."""


def manifest(
    task: str,
    targets: tuple[str, ...] = ("ort-cpu",),
    *,
    shared: bool | None = True,
    template: bool = True,
    plugin: bool = False,
    precision: str = "fp32",
    positions: bool = False,
    buckets: bool = False,
    ruled: bool = False,
    saturates: bool | None = None,
    tiles: bool = False,
    grid: str | None = None,
) -> dict[str, Any]:
    """``shared`` None is a decoder without a cache; what saturates has no kernels of ours. A
    ``grid`` is the rule of sizes of pictures of any; those of the empty one have positions."""
    image: dict[str, Any] | None = {"tiles": {"kind": "longest-edge"}} if tiles else None
    if grid is not None:
        image = {"least": 1, "most": 9, **({"fit": grid} if grid else {})}
    pair = task in OF_TWO_PARTS
    cached = (task == "text-generation" or pair) and shared is not None
    return {
        "task": task,
        "engines": [
            {
                "target": t,
                "precision": precision,
                **({"encoder": "encoder.onnx"} if pair else {}),
                "plugin": plugin or None,
                "cache": {"buckets": [8, 16]} if buckets else None,
                "kernels": {"library": "ours.so", **({} if cached else {"slice": 512})}
                if (precision, t) == ("int8", "ort-cpu") and not saturates
                else None,
                **({} if saturates is None else {"saturates": saturates}),
            }
            for t in targets
        ],
        "cache": {"shared": shared} if cached else None,
        "tokenizer": {"chat_template": "chat_template.jinja" if template else None},
        "inputs": [{"name": "input_ids"}, *[{"name": "position_ids"}] * positions],
        "outputs": [{"name": name} for name in TASKS[task]],
        "generation": {
            **({"never": [7], "rules": {"least": 3}} if ruled else {}),
            **({} if grid is None else {"pictures": {"grid": FORMS[grid]}}),
        }
        or None,
        "image": image,
    }


def all_manifests() -> Iterator[dict[str, Any]]:
    """Each task with each set of targets that it is built for; decoders with each kind of cache."""
    sets = [*chain.from_iterable(combinations(TARGETS, n) for n in range(1, len(TARGETS) + 1))]
    for task, targets in product(TASKS, sets):
        if task in OF_TWO_PARTS:
            looks = task == LOOKS  # with a cache that is shared alone
            for more in (True, False) if targets == ("ort-cpu",) else ():
                shared, tiles = more or looks, more and looks
                yield manifest(task, shared=shared, ruled=more, tiles=tiles)
            if looks and targets == ("ort-cpu",):
                yield from (manifest(task, grid=rule) for rule in FORMS)
            continue
        if task != "text-generation":
            yield manifest(task, targets)
            continue
        for kept, more in product((True, False, None), (True, False)):
            precision = "int8" if more else "fp32"
            how = {"shared": kept, "template": more, "plugin": more, "precision": precision}
            how["positions"] = how["buckets"] = how["ruled"] = more
            yield manifest(task, targets, **how)  # type: ignore[arg-type]


@cache
def all_loaders() -> tuple[str, ...]:
    """The emitted file of each of them. Those that come out alike, about half, are here once."""
    return tuple(dict.fromkeys(loader_source(each) for each in all_manifests()))
