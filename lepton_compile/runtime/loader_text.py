"""Text in and out for loader.py, which lies beside this file and opens it when text is asked for.

Holds what needs a tokenizer: prompts and chat templates into ids, ids into text as they come,
embeddings and labels of texts, and the command line. Needs `tokenizers`; chat templates `jinja2`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Text", "Words", "main"]

BROKEN = "\ufffd"  # What a tokenizer decodes the first bytes of an unfinished character to.
TOGETHER = 32  # Texts that are run at a time.


class Words:
    """Text of tokens as they come: whole characters only, and nothing of a stop text.

    Without ``live`` tokens are kept until ``text`` is asked for, so that a caller who deals in ids
    never waits for a tokenizer.
    """

    def __init__(self, source: Text, ids: list[int], stop: list[str], live: bool) -> None:
        self.stopped, self._text, self._held = False, "", ""
        self._source, self._stop, self._live = source, stop, live
        self._later, self._window, self._read = list[int](), ids[-4:], -1

    @property
    def text(self) -> str:
        """All the text that is certain by now."""
        if not self._live:
            self._live = True
            self.push(self._later, final=True)
        return self._text

    def push(self, tokens: list[int], final: bool) -> str:
        """The piece of text that is certain once ``tokens`` are known; all of it if ``final``."""
        if not self._live:
            self._later += tokens
            return ""
        if self._read < 0:
            # The end of the prompt decides about a leading space; _read counts the tokens shown.
            self._window = [] if self._decode(self._window).endswith(BROKEN) else self._window
            self._read = len(self._window)
        self._window = self._window + tokens
        before, now = self._decode(self._window[: self._read]), self._decode(self._window)
        if now.endswith(BROKEN):
            now = now.rstrip(BROKEN) if final else before
        if len(now) > len(before):
            self._window, self._read = self._window[self._read :], len(self._window) - self._read
        return self._release(self._held + now[len(before) :], final)

    def _decode(self, tokens: list[int]) -> str:
        return str(self._source.tokenizer.decode(tokens))

    def _release(self, text: str, final: bool) -> str:
        """Hold back an end that may become a stop text; drop all that follows a whole one."""
        hits = [at for stop in self._stop if (at := text.find(stop)) >= 0]
        held = [n for stop in self._stop for n in range(len(stop)) if text.endswith(stop[:n])]
        cut = len(text) - (0 if final else max(held, default=0))
        if hits:
            cut, self.stopped = min(hits), True
        self._text, self._held = self._text + text[:cut], text[cut:]
        return text[:cut]


class Text:
    """The tokenizer of ``model`` and what it is used for; refuses with the class ``error``."""

    def __init__(self, model: Any, error: type[Exception]) -> None:
        self.model, self.error = model, error
        self.files: dict[str, str | None] = model.manifest["tokenizer"] or {}

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer; for encoders it cuts texts at the longest sequence they take."""
        name = self.files.get("file")
        if not name:
            raise self.error("this artifact has no tokenizer: give token ids instead of text")
        tokenizer = self._need("tokenizers", "text").Tokenizer.from_file(
            str(self.model.path / name)
        )
        self.pad = (tokenizer.padding or {}).get("pad_id", 0)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        if not self.model.cache:
            tokenizer.enable_truncation(self.model.manifest["ranges"]["sequence"][1])
        return tokenizer

    def words(self, ids: list[int], stop: str | Sequence[str] | None, live: Any = True) -> Words:
        """What turns the tokens that follow ``ids`` into text."""
        stops = [stop] if isinstance(stop, str) else [text for text in stop or () if text]
        return Words(self, ids, stops, bool(live))

    def encode(self, prompt: Any, chat: Any = False) -> list[int]:
        """Ids of a text, or of chat messages (dicts with role and content) in their template."""
        messages = [] if isinstance(prompt, str) else list(prompt)
        if isinstance(prompt, str) and not chat:
            return list(self.tokenizer.encode(prompt).ids)
        if isinstance(prompt, str) and prompt:
            messages = [{"role": "user", "content": prompt}]
        before = [] if chat in (None, True, False) else list(chat)
        text = self.chat([*before, *messages])
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def chat(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The chat template over ``messages``, rendered in a sandbox, ready for the answer."""
        name = self.files.get("chat_template")
        if not name:
            raise self.error("this artifact has no chat template: give the prompt as plain text")
        sandbox = self._need("jinja2.sandbox", "a chat template")

        def refuse(why: str) -> None:
            raise self.error(f"the chat template refuses these messages: {why}")

        environment = sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        template = environment.from_string((self.model.path / name).read_text(encoding="utf-8"))
        given = {"messages": messages, "add_generation_prompt": True, "raise_exception": refuse}
        try:
            return str(template.render(**self._special(), **given))
        except import_module("jinja2").TemplateError as error:
            raise self.error(f"the chat template fails on these messages: {error}") from error

    def _special(self) -> dict[str, Any]:
        """bos_token, eos_token and their like, which templates refer to."""
        name = self.files.get("config")
        config = json.loads((self.model.path / name).read_text(encoding="utf-8")) if name else {}
        tokens = {key: value for key, value in config.items() if key.endswith("_token") and value}
        return {k: v["content"] if isinstance(v, dict) else v for k, v in tokens.items()}

    def _need(self, module: str, why: str) -> Any:
        try:
            return import_module(module)
        except ImportError:
            package = module.partition(".")[0]
            raise self.error(f"{why} needs {package}: pip install {package}") from None

    def outputs(self, texts: Sequence[Any], name: str) -> list[np.ndarray]:
        """Output ``name`` of each text or pair of texts, without padding."""
        if isinstance(texts, str) or not len(texts):
            raise self.error("no texts are given" if len(texts) == 0 else "give a list of texts")
        encoded = self.tokenizer.encode_batch(list(texts))
        order = sorted(range(len(encoded)), key=lambda number: len(encoded[number]))
        found: dict[int, np.ndarray] = {}
        for at in range(0, len(order), TOGETHER):
            part = order[at : at + TOGETHER]
            for number, row in zip(
                part, self._batch([encoded[n] for n in part], name), strict=True
            ):
                found[number] = row[: len(encoded[number])] if row.ndim == 2 else row
        return [found[number] for number in range(len(encoded))]

    def _batch(self, encoded: Sequence[Any], output: str) -> np.ndarray:
        shape = len(encoded), max(map(len, encoded))
        feeds = {"input_ids": np.full(shape, self.pad), "attention_mask": np.zeros(shape, np.int64)}
        if "token_type_ids" in self.model.inputs:
            feeds["token_type_ids"] = np.zeros(shape, np.int64)
        for number, text in enumerate(encoded):
            columns = {"input_ids": text.ids, "attention_mask": 1, "token_type_ids": text.type_ids}
            for name, array in feeds.items():
                array[number, : len(text)] = columns[name]
        return np.asarray(self.model.run(feeds, [output])[output])

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """One vector per text, (texts, hidden) float32: the model's own pooling, or the mean."""
        output = (self.model.manifest["embedding"] or {}).get("output", "last_hidden_state")
        rows = self.outputs(texts, output)
        return np.stack([row.mean(axis=0) if row.ndim == 2 else row for row in rows])

    def classify(self, texts: Sequence[Any]) -> list[Any]:
        """Chance by label of each text or pair, likeliest first; of each token for token labels."""
        labels = self.model.manifest["labels"] or {}
        rows = self.outputs(texts, "logits")
        if rows and rows[0].ndim == 2:
            return [[_chances(token, labels) for token in row] for row in rows]
        return [_chances(row, labels) for row in rows]


def _chances(logits: np.ndarray, labels: Mapping[str, str]) -> dict[str, float]:
    weights = np.exp(logits - logits.max())
    chances = weights / weights.sum() if len(logits) > 1 else 1 / (1 + np.exp(-logits))
    return {labels.get(str(n), str(n)): float(chances[n]) for n in np.argsort(-chances)}


def main(load: Callable[..., Any], error: type[Exception], arguments: Any = None) -> int:
    """The command line of loader.py: run the artifact that this file lies in."""
    import argparse
    import sys

    parser = argparse.ArgumentParser(description="Run the compiled model in this folder.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--prompt", help="continue this text")
    what.add_argument("--text", nargs="+", help="embed or classify these texts")
    what.add_argument("--inputs", metavar="FILE.npz", help="run these arrays")
    parser.add_argument("--output", metavar="FILE.npz", help="keep what --inputs leads to")
    parser.add_argument("--threads", type=int)
    numbers = {"--max-new-tokens": int, "--top-k": int, "--seed": int}
    for name in ("--temperature", "--top-p", "--min-p", "--repetition-penalty", *numbers):
        parser.add_argument(name, type=numbers.get(name, float), default=argparse.SUPPRESS)
    parser.add_argument("--stop", action="append", default=[], help="end before this text")
    parser.add_argument("--chat", action="store_true", help="the prompt is a chat message")
    parser.add_argument("--stream", action="store_true", help="print text as it comes")
    options = vars(parser.parse_args(arguments))
    try:
        with load(Path(__file__).parent, options.pop("threads")) as model:
            for piece in _answer(model, **options):
                print(piece, end="", flush=True)
    except error as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        return 1
    return 0


def _answer(model: Any, **options: Any) -> Iterator[str]:
    """The lines to print: a continuation as text, everything else as JSON."""
    prompt, texts, inputs = (options.pop(name) for name in ("prompt", "text", "inputs"))
    output = options.pop("output")
    if prompt is not None:
        made = model.generate(prompt, **options)
        yield from made if options["stream"] else [str(made.text)]
        yield "\n"
    elif texts is not None:
        key = "embedding" if model.task == "feature-extraction" else "labels"
        rows = model.embed(texts).tolist() if key == "embedding" else model.classify(texts)
        for text, row in zip(texts, rows, strict=True):
            yield json.dumps({"text": text, key: row}) + "\n"
    else:
        try:
            with np.load(str(inputs), allow_pickle=False) as arrays:
                feeds = dict(arrays)
        except (OSError, TypeError, ValueError) as error:
            raise model.text.error(f"{inputs} holds no arrays: {error}") from error
        results = model.run(feeds)
        if output:
            np.savez(output, **results)
        for name, array in results.items():
            yield json.dumps({"name": name, "dtype": str(array.dtype), "shape": array.shape}) + "\n"
