"""Load and run a compiled model. Needs numpy and the engine's own runtime, nothing else.

    model = loader.load("path/of/this/folder")
    model.run({"input_ids": ids, "attention_mask": mask})     # dict of numpy in, dict of numpy out
    model.generate("The capital of France is", max_new_tokens=20).text
    python loader.py --prompt "The capital of France is"      # or --text, or --inputs file.npz

Format, digests, sizes and paths are checked before a runtime opens anything; every refusal is a
LoaderError. Two files beside this one are opened when they are needed: loader_generate.py continues
prompts, loader_text.py turns text into ids and back (with `tokenizers`, for chat also `jinja2`).
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

__all__ = ["LoaderError", "Model", "load"]

FORMAT, MIN_FORMAT = 1, 1
PROVIDERS = {"ort-cpu": ["CPUExecutionProvider"]}


class LoaderError(Exception):
    """The artifact is not intact, or a call cannot be carried out as written."""


def _refuse(wrong: Any, why: str) -> None:
    if wrong:
        raise LoaderError(why)


def load(path: Any, threads: int | None = None, target: str | None = None) -> Model:
    """Check the artifact in folder ``path``, then open its engine for ``target``.

    ``target`` defaults to the first that can run; ``threads`` to the physical cores we may use.
    """
    root = Path(path).resolve()
    _refuse(not (root / "manifest.json").is_file(), f"{root} is no artifact: no manifest.json")
    try:
        manifest = json.loads((root / "manifest.json").read_bytes())
        _verify(root, manifest)
        engines = {engine["target"]: engine for engine in manifest["engines"]}
        able = [name for name in engines if name in PROVIDERS and target in (None, name)]
        _refuse(not able, f"no engine for {target or [*PROVIDERS]} here; there is {[*engines]}")
        return Model(root, manifest, engines[able[0]], threads or _cores())
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise LoaderError(f"{root / 'manifest.json'} is damaged: {error!r}") from error


def _verify(root: Path, manifest: dict[str, Any]) -> None:
    """Refuse another format, a wrong digest, a path that leads outside, a file that changed."""
    bad = manifest["min_format"] > FORMAT or manifest["format"] < MIN_FORMAT
    _refuse(bad, f"format {manifest['format']}; this loader reads {MIN_FORMAT} to {FORMAT}")
    signed = {key: value for key, value in manifest.items() if key != "digest"}
    canonical = json.dumps(signed, sort_keys=True, separators=(",", ":")).encode()
    bad = hashlib.sha256(canonical).hexdigest() != manifest["digest"]
    _refuse(bad, "manifest.json is damaged: it does not match its own digest")
    for name, entry in manifest["files"].items():
        parts, path = PurePosixPath(name.replace("\\", "/")), root / name
        bad = parts.is_absolute() or ".." in parts.parts or path.drive != root.drive
        _refuse(bad, f"manifest.json names a file outside the artifact: {name}")
        _refuse(not path.is_file(), f"{name} is missing from {root}")
        _refuse(not path.resolve().is_relative_to(root), f"{name} links to outside the artifact")
        size = path.stat().st_size
        _refuse(size != entry["size"], f"{name} is damaged: {size} bytes, not {entry['size']}")
        with path.open("rb") as file:
            bad = hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]
        _refuse(bad, f"{name} is damaged: its SHA-256 is not the one in manifest.json")
    used = {name for e in manifest["engines"] for name in [e["model"], *e["files"]]}
    used |= {name for name in (manifest["tokenizer"] or {}).values() if name}
    unlisted = sorted(used - manifest["files"].keys())
    _refuse(unlisted, f"manifest.json uses {unlisted} without giving their digests")


def _cores() -> int:
    """Physical cores this process may use: hyperthreads of one core count once."""
    cpus = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
    files = [Path(f"/sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list") for n in cpus]
    return len({file.read_text() if file.exists() else str(file) for file in files})


def _open(path: Path, engine: Mapping[str, Any], threads: int) -> Any:
    least = engine["requires"].get("onnxruntime", ">=1")
    try:
        import onnxruntime as ort
    except ImportError:
        raise LoaderError(
            f"this engine needs onnxruntime: pip install 'onnxruntime{least}'"
        ) from None
    found, wanted = (v.strip(">=").split(".")[:2] for v in (ort.__version__, least))
    old = [*map(int, found)] < [*map(int, wanted)]
    _refuse(old, f"this engine needs onnxruntime{least}, found {ort.__version__}")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    # Threads that spin for their next piece of work, not sleep, make a token a sixth faster.
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(threads > 1)))
    try:
        return ort.InferenceSession(str(path), options, providers=PROVIDERS[engine["target"]])
    except Exception as error:
        raise LoaderError(f"onnxruntime cannot open {path.name}: {error}") from error


class Model(AbstractContextManager["Model"]):
    """An opened artifact. ``manifest`` says what it takes and gives; ``session`` is the engine."""

    def __init__(self, root: Path, manifest: dict[str, Any], engine: Any, threads: int) -> None:
        self.path, self.manifest, self.threads = root, manifest, threads
        self.task, self.target, self.cache = manifest["task"], engine["target"], manifest["cache"]
        self.inputs = {spec["name"]: spec for spec in manifest["inputs"]}
        self.outputs = [spec["name"] for spec in manifest["outputs"]]
        self.vocabulary = (manifest["generation"] or {}).get("vocabulary")
        self.session = _open(root / engine["model"], engine, threads)

    def close(self, *_: object) -> None:
        """Let the engine and its buffers go."""
        self.session = None
        self.__dict__.pop("writer", None)

    __exit__ = close

    @cached_property
    def text(self) -> Any:
        """What turns text into ids and back, for this model: an object of loader_text.py."""
        return _sibling("loader_text").Text(self, LoaderError)

    @cached_property
    def writer(self) -> Any:
        """What continues prompts, and keeps its buffers for the next: of loader_generate.py."""
        return _sibling("loader_generate").Writer(self, LoaderError)

    def past(self, batch: int, length: int) -> Iterator[tuple[str, str, np.ndarray]]:
        """Names of past and present, and a zero buffer, for the key and value of each layer."""
        for number, layer in enumerate(self.cache["layers"] if self.cache else ()):
            shape = (batch, layer["heads"], length, layer["head_dim"])
            for at in ({"layer": number, "kind": kind} for kind in ("key", "value")):
                past, present = (self.cache[way].format(**at) for way in ("past", "present"))
                yield past, present, np.zeros(shape, self.cache["dtype"])

    def run(self, feeds: Mapping[str, Any], outputs: Iterable[str] = ()) -> dict[str, np.ndarray]:
        """Run the engine once: arrays by input name in, arrays by output name out.

        A missing attention_mask is all ones, missing token_type_ids are zero, a missing cache is
        empty. Left padding is moved aside where the engine wants rows packed to the left.
        """
        given, names, undo = self._prepare(feeds), [*(outputs or self.outputs)], None
        mask = given.get("attention_mask", np.ones((1, 1)))
        if self.cache and self.cache["shared"] and (mask[:, 1:] > mask[:, :-1]).any():
            order = np.argsort(mask == 0, axis=1, kind="stable")
            given["attention_mask"] = np.take_along_axis(mask, order, 1)
            if given["input_ids"].shape == mask.shape:
                given["input_ids"] = np.take_along_axis(given["input_ids"], order, 1)
                undo = np.argsort(order, axis=1)[:, -int(given.pop("logits_to_keep", 0)) :, None]
        try:
            results = dict(zip(names, self.session.run(names, given), strict=True))
        except Exception as error:
            raise LoaderError(f"the engine refused these inputs: {error}") from error
        if undo is not None and "logits" in results:
            results["logits"] = np.take_along_axis(results["logits"], undo, 1)
        return results

    def _prepare(self, feeds: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """``feeds`` as the arrays the inputs take, checked, and with what may be left out."""
        strange = sorted(feeds.keys() - self.inputs.keys())
        _refuse(strange, f"no input is called {strange}; there are {[*self.inputs]}")
        given = {name: self.fit(name, value) for name, value in feeds.items()}
        if (ids := given.get("input_ids")) is not None:
            past = {name: zeros for name, _, zeros in self.past(len(ids), 0)}
            given = {"token_type_ids": np.zeros_like(ids), **past, **given}
            total = ids.shape[1] + max((given[name].shape[2] for name in past), default=0)
            most = self.cache["max_length"] if self.cache else total
            _refuse(total > most, f"{total} tokens, and the cache holds {most}")
            mask = given.setdefault("attention_mask", np.ones((len(ids), total), np.int64))
            _refuse(mask.shape != (len(ids), total), f"attention_mask must be {len(ids)} x {total}")
        self._agree(given)
        missing = [n for n, s in self.inputs.items() if n not in given and not s["optional"]]
        _refuse(missing, f"no value for the inputs {missing}")
        return {name: value for name, value in given.items() if name in self.inputs}

    def _agree(self, given: Mapping[str, np.ndarray]) -> None:
        """A dimension of one name has one size in all inputs."""
        seen: dict[Any, tuple[str, int]] = {}
        for name in given.keys() & self.inputs.keys():
            for dim, size in zip(self.inputs[name]["shape"], given[name].shape, strict=True):
                other, expected = seen.setdefault(dim, (name, size))
                _refuse(size != expected, f"{dim} is {size} in {name} but {expected} in {other}")

    def fit(self, name: str, value: Any) -> np.ndarray:
        """``value`` as the array that input ``name`` takes: dtype, shape and ids checked."""
        _refuse(self.session is None, "this model is closed")
        dtype, shape = self.inputs[name]["dtype"], self.inputs[name]["shape"]
        takes, ranges = f"input {name} takes {dtype} {shape}", self.manifest["ranges"]
        try:
            array = np.asarray(np.asarray(value).astype(dtype, casting="same_kind"), order="C")
        except (TypeError, ValueError) as error:
            raise LoaderError(f"{takes}: {error}") from None
        _refuse(array.ndim != len(shape), f"{takes}, found {array.shape}")
        for size, dim in zip(array.shape, shape, strict=True):
            low, high = ranges.get(dim, (dim, dim) if isinstance(dim, int) else (0, sys.maxsize))
            _refuse(not low <= size <= high, f"{takes}, {dim} from {low} to {high}, found {size}")
        if name == "input_ids":
            low, high = ranges.get(name, (0, (self.vocabulary or sys.maxsize) - 1))
            bad = array[(array < low) | (array > high)]
            _refuse(bad.size, f"ids {bad[:3]} are outside the vocabulary, {low} to {high}")
        return array

    def logits(self, ids: Any, attention_mask: Any = None) -> np.ndarray:
        """Logits (batch, sequence, vocabulary) float32 of one row of ids, or rows of any length.

        Shorter rows are padded on the right; where the mask is zero the logits mean nothing.
        """
        feeds = _padded(ids if np.ndim(ids[0]) else [ids])
        mask = feeds["attention_mask"] if attention_mask is None else attention_mask
        return self.run({**feeds, "attention_mask": mask}, ["logits"])["logits"]

    def generate(
        self,
        prompt: Any = "",
        max_new_tokens: int | None = None,
        *,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        stop_tokens: Iterable[int] = (),
        stream: bool = False,
        chat: Any = False,
    ) -> Any:
        """Continue a prompt (text, token ids or chat messages), or a list of them.

        ``max_new_tokens`` is 128 unless given, or what the cache has room for if that is less.
        Temperature 0 takes the likeliest token; ``seed`` repeats a draw. A prompt ends at one of
        the model's own ending tokens or of ``stop_tokens``, or before a text of ``stop``. ``chat``
        puts the prompt through the chat template: True, or the messages that came before it.

        Returns a Generation (.tokens, .text, .finish, .timings), for a list of prompts a list of
        them; with ``stream`` the pieces of text as they come (ids without a tokenizer).
        """
        sampling = (temperature, top_k, top_p, min_p, repetition_penalty)
        ending = (max_new_tokens, [stop] if isinstance(stop, str) else list(stop), set(stop_tokens))
        return self.writer.generate(prompt, chat, sampling, ending, seed, stream)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """One vector per text, (texts, hidden) float32: the model's own pooling, or the mean."""
        return np.asarray(self.text.embed(texts))

    def classify(self, texts: Sequence[Any]) -> list[Any]:
        """Chance by label of each text or pair, likeliest first; of each token for token labels."""
        return list(self.text.classify(texts))


def _padded(rows: Sequence[Sequence[int]]) -> dict[str, Any]:
    """input_ids and attention_mask of rows of any length, padded on the right."""
    width = max(map(len, rows))
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
    return {"input_ids": [[*r, *[0] * (width - len(r))] for r in rows], "attention_mask": mask}


def _sibling(name: str) -> Any:
    """The module in the file ``name``.py beside this one."""
    if __package__:
        return import_module(f"{__package__}.{name}")
    path = Path(__file__).with_name(f"{name}.py")
    _refuse(not path.is_file(), f"{path.name} is missing: it belongs beside {__file__}")
    spec: Any = spec_from_file_location(name, path)
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(_sibling("loader_text").main(load, LoaderError))
