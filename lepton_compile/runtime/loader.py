"""Load and run a compiled model. Needs numpy and the engine's own runtime, nothing else.

    model = loader.load("path/of/this/folder")
    model.run({"input_ids": ids, "attention_mask": mask})     # dict of numpy in, dict of numpy out
    python loader.py --help                                   # the same from a shell

Besides ``run`` a model has what its task asks for: ``generate``, ``embed``, ``classify``,
``answer`` or ``fill``. Format, digests, sizes and paths are checked before a runtime opens
anything; every refusal is a LoaderError. An artifact may hold several engines: the best that runs
here is taken, and ``model.passed_over`` says why those before it were not. Text needs `tokenizers`,
a chat `jinja2`. The file has what its artifact needs, and no more.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_compile.runtime.loader_guard import LoaderError, UnfitError, manifest_of, refuse

if TYPE_CHECKING:
    import numpy as np

__all__ = ["LoaderError", "Model", "load"]

ORDER = ("trt", "trt-rtx", "ort-cuda", "ort-cpu")  # Which engine to take first.
CALLS = ("generate", "logits", "embed", "classify", "answer", "fill")  # Each for some tasks.


def load(path: Any, threads: int | None = None, target: str | None = None) -> Model:
    """Check the artifact in folder ``path``, then open the best of its engines that runs here.

    A ``target`` asked for by name is opened or refused, never replaced. ``threads`` is for the CPU;
    it defaults to the physical cores we may use.
    """
    root, threads = Path(path).resolve(), threads or _cores()
    try:
        manifest = manifest_of(root)
        engines = {engine["target"]: engine for engine in manifest["engines"]}
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise LoaderError(f"{root / 'manifest.json'} is damaged: {error!r}") from error
    able = [name for name in ORDER if name in engines and target in (None, name)]
    refuse(not able, f"no engine for {target or [*ORDER]} here; there is {[*engines]}")
    passed_over: dict[str, str] = {}
    globals()["np"] = import_module("numpy")  # most of what the imports at the top would take
    for name in able:
        try:
            session = _open(root, manifest, engines[name], threads)
        except UnfitError as reason:
            passed_over[name] = str(reason)
        else:
            return Model(root, manifest, engines[name], session, threads, passed_over)
    why = "; ".join(f"{name}: {reason}" for name, reason in passed_over.items())
    raise LoaderError(f"no engine that was asked for runs here. {why}")


def _open(root: Path, manifest: dict[str, Any], engine: dict[str, Any], threads: int) -> Any:
    """The engine's session: first what can be told without reading it, then its digests."""
    if engine["target"].startswith("trt"):
        from lepton_compile.runtime.loader_tensorrt import open_tensorrt

        return open_tensorrt(root, manifest, engine)
    if engine["target"].startswith("ort"):
        from lepton_compile.runtime.loader_ort import open_onnxruntime

        return open_onnxruntime(root, manifest, engine, threads)
    raise UnfitError("this loader.py came without what it needs; take the artifact's own")


def _cores() -> int:
    """Physical cores this process may use: hyperthreads of one core count once."""
    cpus = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
    files = [Path(f"/sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list") for n in cpus]
    return len({file.read_text() if file.exists() else str(file) for file in files})


class Model(AbstractContextManager["Model"]):
    """An opened artifact.

    ``manifest`` says what it takes and gives, ``target`` which of its engines was opened,
    ``passed_over`` why those that come before it were not; ``session`` is the engine itself.
    """

    def __init__(
        self,
        root: Path,
        manifest: dict[str, Any],
        engine: dict[str, Any],
        session: Any,
        threads: int,
        passed_over: dict[str, str],
    ) -> None:
        self.path, self.manifest, self.engine, self.session = root, manifest, engine, session
        self.threads, self.passed_over = threads, passed_over
        self.task, self.target, self.cache = manifest["task"], engine["target"], manifest["cache"]
        own, hidden = engine.get("io") or {}, getattr(session, "hidden", ())
        self.inputs = {spec["name"]: spec for spec in manifest["inputs"]}
        if self.target.startswith("ort-"):  # other engines get what they take from these
            self.inputs |= {spec["name"]: spec for spec in own.get("inputs", ())}
        given = own.get("outputs") or manifest["outputs"]
        self.outputs = {spec["name"]: spec for spec in given if spec["name"] not in hidden}
        self.vocabulary = (manifest["generation"] or {}).get("vocabulary")

    if not TYPE_CHECKING:  # so that a name which does not exist stays an error there

        def __getattr__(self, name: str) -> Any:
            refuse(name in CALLS, f"this model does {self.task}: its loader.py has no {name}()")
            return super().__getattribute__(name)  # says what is missing

    def close(self, *_: object) -> None:
        """Let the engine and its buffers go."""
        if writer := self.__dict__.pop("writer", None):
            writer.close()
        if hasattr(self.session, "close"):
            self.session.close()
        self.session = None

    __exit__ = close

    def run(self, feeds: Mapping[str, Any], outputs: Iterable[str] = ()) -> dict[str, np.ndarray]:
        """Run the engine once: arrays by input name in, arrays by output name out.

        A missing attention_mask is all ones, missing token_type_ids are zero, a missing cache is
        empty, missing position_ids count what the mask has. Left padding is moved aside where the
        engine wants rows packed to the left.
        """
        given, names = self._prepare(feeds), [*(outputs or self.outputs)]
        if self.cache and (self.cache["shared"] or hasattr(self.session, "new_cache")):
            from lepton_compile.runtime.loader_past import run_packed

            return run_packed(self.execute, names, given)
        return self.execute(names, given)

    def execute(self, names: Sequence[str], given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs ``names`` for inputs that are right as they are."""
        try:
            return dict(zip(names, self.session.run(names, given), strict=True))
        except Exception as error:
            raise LoaderError(f"the engine refused these inputs: {error}") from error

    def _prepare(self, feeds: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """``feeds`` as the arrays the inputs take, checked, and with what may be left out."""
        strange = sorted(feeds.keys() - self.inputs.keys())
        refuse(strange, f"no input is called {strange}; there are {[*self.inputs]}")
        given = {name: self.fit(name, value) for name, value in feeds.items()}
        if (ids := given.get("input_ids")) is not None:
            given.setdefault("token_type_ids", np.zeros_like(ids))
            rows, total = ids.shape
            if self.cache:
                from lepton_compile.runtime.loader_past import add_past

                total += add_past(self, given)
            mask = given.setdefault("attention_mask", np.ones((rows, total), np.int64))
            refuse(mask.shape != (rows, total), f"attention_mask must be {rows} x {total}")
            if "position_ids" in self.inputs.keys() - given.keys():
                from lepton_compile.runtime.loader_positions import counted

                given["position_ids"] = counted(mask, ids.shape[1])
        missing = [n for n, s in self.inputs.items() if n not in given and not s["optional"]]
        refuse(missing, f"no value for the inputs {missing}")
        given = {name: value for name, value in given.items() if name in self.inputs}
        seen: dict[Any, tuple[str, int]] = {}
        for name, array in given.items():
            for dim, size in zip(self.inputs[name]["shape"], array.shape, strict=True):
                other, expected = seen.setdefault(dim, (name, size))
                refuse(size != expected, f"{dim} is {size} in {name} but {expected} in {other}")
        return given

    def fit(self, name: str, value: Any) -> np.ndarray:
        """``value`` as the array that input ``name`` takes: dtype, shape and range checked."""
        refuse(self.session is None, "this model is closed")
        dtype, shape = self.inputs[name]["dtype"], self.inputs[name]["shape"]
        takes, ranges = f"input {name} takes {dtype} {shape}", self.manifest["ranges"]
        try:
            array = np.asarray(np.asarray(value).astype(dtype, casting="same_kind"), order="C")
        except (TypeError, ValueError) as error:
            raise LoaderError(f"{takes}: {error}") from None
        refuse(array.ndim != len(shape), f"{takes}, found {array.shape}")
        for size, dim in zip(array.shape, shape, strict=True):
            low, high = ranges.get(dim, (dim, dim) if isinstance(dim, int) else (0, sys.maxsize))
            refuse(not low <= size <= high, f"{takes}, {dim} from {low} to {high}, found {size}")
        if name == "input_ids" or name in ranges:
            low, high = ranges.get(name, (0, (self.vocabulary or math.inf) - 1))
            where = "the vocabulary" if name == "input_ids" else "its range"
            bad = array[(array < low) | (array > high)]
            refuse(bad.size, f"{name}: {bad[:3]} are outside {where}, {low} to {high}")
        return array

    @cached_property
    def text(self) -> Any:
        """What turns text into ids and back, for this model."""
        from lepton_compile.runtime.loader_text import Text

        return Text(self)

    @cached_property
    def writer(self) -> Any:
        """What continues prompts, and keeps its buffers for the next."""
        from lepton_compile.runtime.loader_generate import Writer

        return Writer(self)

    def new_cache(self, batch: int, capacity: int) -> Any:
        """What holds the keys and values of ``batch`` rows while they are continued."""
        from lepton_compile.runtime.loader_generate import cache_for

        refuse(self.session is None, "this model is closed")
        return cache_for(self, batch, capacity)

    def logits(self, ids: Any, attention_mask: Any = None) -> np.ndarray:
        """Logits (batch, sequence, vocabulary) float32 of one row of ids, or rows of any length.

        Shorter rows are padded on the right; where the mask is zero the logits mean nothing.
        """
        from lepton_compile.runtime.loader_rows import padded

        feeds = padded(ids if np.ndim(ids[0]) else [ids])
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
        from lepton_compile.runtime.loader_sampling import Sampling

        how = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
        ending = (max_new_tokens, [stop] if isinstance(stop, str) else list(stop), set(stop_tokens))
        return self.writer.generate(prompt, chat, how, ending, seed, stream)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """One vector per text, (texts, hidden) float32: the model's own pooling, or the mean."""
        from lepton_compile.runtime.loader_embed import embed

        return embed(self, texts)

    def classify(self, texts: Sequence[Any]) -> list[Any]:
        """Chance by label of each text or pair, likeliest first; of each token for token labels."""
        from lepton_compile.runtime.loader_classify import classify

        return classify(self, texts)

    def answer(self, question: str, context: str, longest: int = 30) -> dict[str, Any]:
        """Where in ``context`` the answer stands: answer, score, start and end (characters).

        An answer has at most ``longest`` tokens. A long context is read in parts that overlap;
        ``score`` is the chance of the answer's start times that of its end, within its part.
        """
        from lepton_compile.runtime.loader_answer import answer

        return answer(self, question, context, longest)

    def fill(self, text: str, top_k: int = 5) -> list[list[dict[str, Any]]]:
        """For each mask token of ``text`` the likeliest: word, token, score, and the whole text."""
        from lepton_compile.runtime.loader_fill import fill

        return fill(self, text, top_k)
