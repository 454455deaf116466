"""An engine, opened: arrays in, arrays out."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from lepton_compile.runtime.loader_guard import CALLS, UnfitError, failing, refuse

__all__ = ["Opened"]


class Opened:
    """What every model does, whatever its task."""

    def __init__(self, root: Path, manifest: Any, engine: Any, threads: int, passed: Any) -> None:
        self.path, self.manifest, self.engine, self.threads = root, manifest, engine, threads
        self.task, self.target = manifest["task"], engine["target"]
        self.cache, self.passed_over = manifest.get("cache"), passed
        self.session: Any = None
        if self.target.startswith("trt"):
            from lepton_compile.runtime.loader_tensorrt import open_tensorrt

            self.session = open_tensorrt(root, manifest, engine)
        if self.target.startswith("ort"):
            from lepton_compile.runtime.loader_ort import open_onnxruntime

            self.session = open_onnxruntime(root, manifest, engine, threads)
        refuse(self.session is None, "take the artifact's own loader.py, not this", UnfitError)
        self.inputs = {spec["name"]: spec for spec in manifest["inputs"]}
        self.outputs = {spec["name"]: spec for spec in manifest["outputs"]}
        if self.target != "ort-cpu" or self.engine.get("io"):
            from lepton_compile.runtime.loader_io import own_io

            self.inputs, self.outputs = own_io(self)
        self.spare: list[Any] = []  # Buffers to use again: who pops them has them alone.

    if not TYPE_CHECKING:  # so that a name which does not exist stays an error there

        def __getattr__(self, name: str) -> Any:
            own = " or ".join(f"{call}()" for call in CALLS.split() if hasattr(type(self), call))
            refuse(name in CALLS.split(), f"loader.py has no {name}() for {self.task}: call {own}")
            return super().__getattribute__(name)  # says what is missing

    def __enter__(self) -> Self:
        return self

    def close(self, *_: object) -> None:
        """Let the engine and its buffers go."""
        parts, self.spare, self.session = [*self.spare, self.session], [], None
        for part in parts:  # which no other thread finds any more
            getattr(part, "close", dict)()

    __exit__ = close

    def run(self, feeds: Mapping[str, Any], outputs: Iterable[str] = ()) -> dict[str, np.ndarray]:
        """Run the engine once: arrays by input name in, arrays by output name out.

        A missing attention_mask is all ones, missing token_type_ids are zero, a missing cache is
        empty, missing position_ids count what the mask has; padding may stand on either side.
        """
        run, given = (session := self.session) and session.run, self._prepare(feeds)  # or closed
        with failing(f"outputs are names of outputs, or one, not {outputs!r:.60}"):
            names = [outputs] if isinstance(outputs, str) else [*map(str, outputs or self.outputs)]
        if self.cache and self.cache.get("states"):
            from lepton_compile.runtime.loader_states import check_unpadded

            check_unpadded(self, names, given)
        if self.cache and (self.cache["shared"] or self.target.startswith("trt")):
            from lepton_compile.runtime.loader_past import run_packed

            run = partial(run_packed, run)
        if size := (self.engine.get("kernels") or {}).get("slice"):
            from lepton_compile.runtime.loader_slices import run_slices

            run = partial(run_slices, run, size * self.threads)
        with failing("the engine refused these inputs"):
            return dict(zip(names, run(names, given), strict=True))

    def _prepare(self, feeds: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """``feeds`` as the arrays the inputs take, checked, and with what may be left out."""
        refuse(not isinstance(feeds, Mapping), f"run takes arrays by name, not {type(feeds)}")
        given = {name: self.fit(name, value) for name, value in feeds.items()}
        if self.task == "text2text-generation":
            from lepton_compile.runtime.loader_reads import with_mask

            with_mask(given)
        if self.task == "image-text-to-text":
            from lepton_compile.runtime.loader_seer import without_pictures

            without_pictures(self, given)
        asked = [self.inputs.get(n, {}).get("shape") for n in ("input_ids", "attention_mask")]
        ids, own = given.get("input_ids"), self.cache or asked[1] in (None, asked[0])
        if own and ids is not None and ids.ndim == 2:  # else no text, or a mask of its own
            given.setdefault("token_type_ids", np.zeros_like(ids))
            rows, total = ids.shape
            if self.cache:
                from lepton_compile.runtime.loader_past import add_past

                total += add_past(self, given)
            mask = given.setdefault("attention_mask", np.ones(size := (rows, total), np.int64))
            refuse(mask.shape != size, f"attention_mask must be {rows} x {total}")
            if "position_ids" in self.inputs.keys() - given.keys():
                from lepton_compile.runtime.loader_positions import counted

                given["position_ids"] = counted(mask, ids.shape[1])
        missing = [n for n, s in self.inputs.items() if n not in given and not s["optional"]]
        refuse(missing, f"no value for the inputs {[*{'input_ids'} & {*missing}] or missing}")
        given, seen = {n: a for n, a in given.items() if n in self.inputs}, dict[Any, Any]()
        for name, array in given.items():
            for dim, size in zip(self.inputs[name]["shape"], array.shape, strict=False):
                other, expected = seen.setdefault(dim, (name, size))
                refuse(size != expected, f"{dim} is {size} in {name} but {expected} in {other}")
        return given

    def fit(self, name: str, value: Any) -> np.ndarray:
        """``value`` as the array that input ``name`` takes: dtype, shape and range checked."""
        refuse(self.session is None, "this model is closed")
        refuse(name not in self.inputs, f"no input is called {[name]}; there are {[*self.inputs]}")
        dtype, shape = self.inputs[name]["dtype"], self.inputs[name]["shape"]
        takes, ranges = f"input {name} takes {dtype} {shape}", self.manifest["ranges"]
        with failing(takes):
            array = np.asarray(value).astype(dtype, order="C", casting="same_kind", copy=False)
        refuse(array.ndim != len(shape), f"{takes}, found {array.shape}")
        for size, dim in zip(array.shape, shape, strict=True):
            low, high = ranges.get(dim, (dim, dim) if isinstance(dim, int) else (0, sys.maxsize))
            refuse(not low <= size <= high, f"{takes}, {dim} from {low} to {high}, found {size}")
        if name in ranges.keys() - {"batch", "sequence", "source"}:  # those are of dimensions
            where = "the vocabulary" if name.endswith("input_ids") else "its range"
            bad = array[(array < (low := ranges[name][0])) | (array > (high := ranges[name][1]))]
            refuse(bad.size, f"{name}: {bad[:3].tolist()} are outside {where}, {low} to {high}")
        return array
