"""Load and run a compiled model. Needs numpy and the engine's own runtime, nothing else.

    model = loader.load("path/of/this/folder")
    model.run({"input_ids": ids, "attention_mask": mask})     # dict of numpy in, dict of numpy out
    python loader.py --prompt "The capital of France is"      # or --text, or --inputs file.npz

Format, digests, sizes and paths are checked before a runtime opens anything; every refusal is a
LoaderError. Text in or out takes loader_text.py, beside this file, and `tokenizers`.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from importlib.util import module_from_spec, spec_from_file_location
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Generation", "LoaderError", "Model", "load"]

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
        raise LoaderError(f"needs onnxruntime: pip install 'onnxruntime{least}'") from None
    found, wanted = (v.strip(">=").split(".")[:2] for v in (ort.__version__, least))
    old = [*map(int, found)] < [*map(int, wanted)]
    _refuse(old, f"this engine needs onnxruntime{least}, found {ort.__version__}")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    # Threads spin between the nodes of a run, where it pays, and sleep between two runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(threads > 1)))
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return ort.InferenceSession(str(path), options, providers=PROVIDERS[engine["target"]])
    except Exception as error:
        raise LoaderError(f"onnxruntime cannot open {path.name}: {error}") from error


class _Sampling(NamedTuple):
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def pick(self, row: np.ndarray, seen: list[int], draw: np.random.Generator) -> int:
        """One token id from ``row``, the (vocabulary,) logits, which may be overwritten."""
        if (penalty := self.repetition_penalty) != 1:
            old = row[seen]
            row[seen] = np.where(old > 0, old / penalty, old * penalty)
        if self.temperature == 0:
            return int(row.argmax())
        ids, weights = self.candidates(row)
        total = np.cumsum(weights)
        return int(ids[np.searchsorted(total[:-1], draw.random() * total[-1], "right")])

    def candidates(self, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids that may be drawn, and their weights: 1 for the likeliest, not summing to one."""
        ids = _largest(row, self.top_k) if self.top_k else np.arange(len(row))
        weights = np.exp((row[ids] - row.max()).astype(np.float64) / self.temperature)
        count, enough = 64, self.top_p * weights.sum()
        while self.top_p < 1:
            order = _largest(weights, count := 16 * count)
            size = 1 + int(np.searchsorted(np.cumsum(weights[order]), enough))
            if size <= len(order) or len(order) == len(ids):
                ids, weights = ids[order[:size]], weights[order[:size]]
                break
        return ids[weights >= self.min_p], weights[weights >= self.min_p]


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Positions of the ``count`` largest values, largest first."""
    blocks, ids = len(values) // 256, np.arange(len(values))
    if count < blocks:  # At least count values reach the count-th largest maximum of a block.
        maxima = values[: blocks * 256].reshape(blocks, 256).max(axis=1)
        ids = np.flatnonzero(values >= np.partition(maxima, blocks - count)[blocks - count])
    return ids[np.argsort(-values[ids], kind="stable")[:count]]


class _Cache:
    """Buffers that past and present share, written in place; rows are packed to the left."""

    def __init__(self, model: Model, batch: int, capacity: int) -> None:
        from onnxruntime import OrtValue

        self.batch, self.capacity, self.session = batch, capacity, model.session
        self.buffers, self.value = list(model.past(batch, capacity)), OrtValue.ortvalue_from_numpy
        self.logits = np.empty((batch, 1, model.vocabulary or 0), np.float32)

    def start(self, rows: list[list[int]]) -> np.ndarray:
        """Logits (batch, vocabulary) after the prompts; those of equal length go together."""
        self.lengths, at = np.array([len(row) for row in rows]), 0
        for _, group in groupby(rows, len):
            ids = np.array(list(group), np.int64)
            self._bind(ids, slice(at, at := at + len(ids)))
            self._run(np.ones_like(ids))
        self.ids = np.zeros((len(rows), 1), np.int64)
        self._bind(self.ids, slice(0, len(rows)))
        return self.logits[: len(rows), 0]

    def step(self, tokens: list[int], alive: list[bool]) -> np.ndarray:
        """Logits after one more token per row; a row that is not alive stays where it is."""
        self.lengths += alive
        self.ids[:, 0] = tokens
        self._run((np.arange(self.lengths.max()) < self.lengths[:, None]).astype(np.int64))
        return self.logits[: len(tokens), 0]

    def _bind(self, ids: np.ndarray, rows: slice) -> None:
        self.binding = self.session.io_binding()
        self.binding.bind_ortvalue_input("input_ids", self.value(ids))
        self.binding.bind_ortvalue_input("logits_to_keep", self.value(np.array(1, np.int64)))
        self.binding.bind_ortvalue_output("logits", self.value(self.logits[rows]))
        for past, present, buffer in self.buffers:
            self.binding.bind_ortvalue_input(past, shared := self.value(buffer[rows]))
            self.binding.bind_ortvalue_output(present, shared)

    def _run(self, mask: np.ndarray) -> None:
        self.binding.bind_ortvalue_input("attention_mask", self.value(mask))
        self.session.run_with_iobinding(self.binding)


class Generation:
    """``tokens``: the new ids, without one that ended it; ``text``: None without a tokenizer;
    ``finish``: "eos", "stop" or "length"; ``timings``: seconds and rates, of the whole batch."""

    def __init__(self, ids: list[int], words: Any, draw: np.random.Generator) -> None:
        self.ids, self.words, self.draw = ids, words, draw
        self.tokens, self.finish, self.timings = list[int](), "", dict[str, float]()

    @property
    def text(self) -> str | None:
        return self.words.text if self.words else None

    def push(self, token: int, ends: set[int], limit: int) -> str | int | None:
        """Take a token in; the text that is certain by now, or the token without a tokenizer."""
        new = [] if token in ends else [token]
        self.tokens += new
        self.finish = "length" if len(self.tokens) == limit else "" if new else "eos"
        if not self.words:
            return token if new else None
        piece: str = self.words.push(new, final=bool(self.finish))
        self.finish = "stop" if self.words.stopped else self.finish
        return piece or None


class Model(AbstractContextManager["Model"]):
    """An opened artifact. ``manifest`` says what it takes and gives; ``session`` is the engine."""

    def __init__(self, root: Path, manifest: dict[str, Any], engine: Any, threads: int) -> None:
        self.path, self.manifest, self.threads = root, manifest, threads
        self.task, self.target, self.cache = manifest["task"], engine["target"], manifest["cache"]
        self.inputs = {spec["name"]: spec for spec in manifest["inputs"]}
        self.outputs = [spec["name"] for spec in manifest["outputs"]]
        self.vocabulary = (manifest["generation"] or {}).get("vocabulary")
        self.session, self._spare = _open(root / engine["model"], engine, threads), list[_Cache]()

    def close(self, *_: object) -> None:
        """Let the engine and its buffers go."""
        self.session, self._spare = None, []

    __exit__ = close

    @cached_property
    def text(self) -> Any:
        """What turns text into ids and back, for this model: an object of loader_text.py."""
        return _sibling().Text(self, LoaderError)

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
        given = {name: self._fit(value, **self.inputs[name]) for name, value in feeds.items()}
        if (ids := given.get("input_ids")) is not None:
            past = {name: zeros for name, _, zeros in self.past(len(ids), 0)}
            given = {"token_type_ids": np.zeros_like(ids), **past, **given}
            total = ids.shape[1] + max((given[name].shape[2] for name in past), default=0)
            most = self.cache["max_length"] if self.cache else total
            _refuse(total > most, f"{total} tokens, and the cache holds {most}")
            mask = given.setdefault("attention_mask", np.ones((len(ids), total), np.int64))
            _refuse(mask.shape != (len(ids), total), f"attention_mask must be {len(ids)} x {total}")
        missing = [n for n, s in self.inputs.items() if n not in given and not s["optional"]]
        _refuse(missing, f"no value for the inputs {missing}")
        return {name: value for name, value in given.items() if name in self.inputs}

    def _fit(self, value: Any, name: str, dtype: str, shape: Any, **_: Any) -> np.ndarray:
        _refuse(self.session is None, "this model is closed")
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

    def generate(self, prompt: Any = "", max_new_tokens: int = 128, **options: Any) -> Any:
        """Continue a prompt (text, token ids or chat messages) or a list of them.

        Gives a Generation (a list of them for a list). Options: temperature (0 takes the likeliest
        token), top_k, top_p, min_p, repetition_penalty, seed; stop (texts) and stop_tokens, besides
        the model's own; stream=True to get pieces of text as they come (ids without a tokenizer);
        chat=True, or messages that came before, to put the prompt through the chat template.
        """
        names = ("seed", "stop", "stop_tokens", "stream", "chat")
        seed, stop, ends, stream, chat = (options.pop(name, None) for name in names)
        how, most = _Sampling(**options), self.cache["max_length"] if self.cache else 0
        bad = how.temperature < 0 or how.top_k < 0 or how.repetition_penalty <= 0
        bad = bad or not 0 < how.top_p <= 1 or not 0 <= how.min_p <= 1 or max_new_tokens < 1
        _refuse(bad, f"out of its range: {how} or max_new_tokens={max_new_tokens}")
        _refuse(not most or not self.cache["shared"], "this engine has no cache to generate with")
        first = None if isinstance(prompt, str) else next(iter(prompt), None)
        many = isinstance(first, str | list | tuple | np.ndarray)
        _refuse(stream and many, "stream=True takes one prompt")
        prompts = [self._ids(one, chat) for one in (prompt if many else [prompt])]
        self._fit(_padded(prompts)["input_ids"], **self.inputs["input_ids"])
        need = max(map(len, prompts)) + max_new_tokens
        _refuse(need > most, f"prompt and new tokens are {need}, and the cache holds {most}")
        worded, live = stop or self.manifest["tokenizer"], stop or stream
        words = [self.text.words(ids, stop, live) if worded else None for ids in prompts]
        draws = np.random.default_rng(seed).spawn(len(prompts))
        rows = [Generation(*row) for row in zip(prompts, words, draws, strict=True)]
        pieces = self._pieces(rows, max_new_tokens, how, set(ends or ()))
        if not stream:
            list(pieces)  # Each step happens as its piece is taken.
        return pieces if stream else rows if many else rows[0]

    def _ids(self, prompt: Any, chat: Any) -> list[int]:
        words = chat or isinstance(prompt, str) or isinstance(next(iter(prompt), 0), dict)
        ids = [int(token) for token in (self.text.encode(prompt, chat) if words else prompt)]
        _refuse(not ids, "the prompt is empty")
        return ids

    def _pieces(self, rows: list[Generation], limit: int, how: _Sampling, ends: set[int]) -> Any:
        """What each token completes, as it comes; the buffers serve the next call as well."""
        ends, need = ends.union(self.manifest["generation"]["eos"]), max(len(r.ids) for r in rows)
        cache = self._spare.pop() if self._spare else None
        if cache is None or cache.batch < len(rows) or cache.capacity < need + limit:
            room = -(-(need + limit) // 256) * 256
            cache = _Cache(self, len(rows), min(room, self.cache["max_length"]))
        begin = time.perf_counter()
        logits, middle = cache.start([row.ids for row in rows]), time.perf_counter()
        while True:
            for row, scores in zip(rows, logits, strict=True):
                if not row.finish:
                    token = how.pick(scores, row.ids + row.tokens, row.draw)
                    if (piece := row.push(token, ends, limit)) is not None:
                        yield piece
            alive = [not row.finish for row in rows]
            if not any(alive):
                break
            logits = cache.step([row.tokens[-1] if row.tokens else 0 for row in rows], alive)
        self._spare, seconds = [cache], time.perf_counter() - middle
        rate = sum(max(len(row.tokens) - 1, 0) for row in rows) / seconds
        for row in rows:
            row.timings = {"prefill_s": middle - begin, "decode_s": seconds, "tokens_per_s": rate}

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """One vector per text, (texts, hidden) float32: the model's own pooling, or the mean."""
        return np.asarray(self.text.embed(texts))

    def classify(self, texts: Sequence[Any]) -> list[Any]:
        """Chance by label of each text or pair, likeliest first; of each token for token labels."""
        return list(self.text.classify(texts))


def _padded(rows: Sequence[Sequence[int]]) -> dict[str, Any]:
    width = max(map(len, rows))
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
    return {"input_ids": [[*r, *[0] * (width - len(r))] for r in rows], "attention_mask": mask}


def _sibling() -> Any:
    path = Path(__file__).with_name("loader_text.py")
    _refuse(not path.is_file(), f"text needs loader_text.py beside {__file__}")
    spec: Any = spec_from_file_location("loader_text", path)
    spec.loader.exec_module(module := module_from_spec(spec))
    return module


if __name__ == "__main__":
    sys.exit(_sibling().main(load, LoaderError))
