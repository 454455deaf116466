"""Prompts on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from lepton_compile.runtime.loader_guard import refuse

__all__ = ["add_prompts", "continued"]


def add_prompts(parser: Any, what: Any) -> None:
    """Options for what is continued, and how."""
    what.add_argument("--prompt", nargs="+", action="extend", help="continue these texts")
    numbers: dict[str, Any] = {"--max-new-tokens": int, "--top-k": int, "--seed": int}
    numbers |= {"--beams": int, "--start": str}  # for text2text-generation
    numbers["--length-penalty"] = float  # for text2text-generation
    for name in ("--temperature", "--top-p", "--min-p", "--repetition-penalty", *numbers):
        parser.add_argument(name, type=numbers.get(name, float))
    parser.add_argument("--stop", action="append", default=[], help="end before this text")
    parser.add_argument("--stop-token", action="append", type=int, dest="stop_tokens", default=[])
    parser.add_argument("--chat", action="store_true", help="each prompt is a chat message")
    seen: Any = {"dest": "images", "help": "files the prompts ask about"}  # for image-text-to-text
    parser.add_argument("--image", nargs="+", action="extend", **seen)  # for image-text-to-text
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--stream", action="store_true", help="print text as it comes")
    how.add_argument("--json", action="store_true", dest="as_json", help="a document per prompt")


def continued(
    model: Any, prompt: list[str], stream: bool = False, as_json: bool = False, **how: Any
) -> Iterator[str]:
    """Continuations as text, or as JSON if that is asked for."""
    if stream:
        refuse(len(prompt) > 1, "--stream takes one prompt")
        yield from model.generate(prompt[0], stream=True, **how)
        yield "\n"
        return
    if model.task == "image-text-to-text":
        how["images"] = [how.get("images")] * len(prompt)  # each is of all
    for one, made in zip(prompt, model.generate(prompt, **how), strict=True):
        found = {name: getattr(made, name) for name in ("text", "tokens", "finish", "timings")}
        yield f"{json.dumps({'prompt': one, **found}) if as_json else made.text}\n"
