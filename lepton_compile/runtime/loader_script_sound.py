"""Sounds on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

__all__ = ["add_sounds", "document", "timed", "written"]


def add_sounds(parser: Any, what: Any) -> None:
    """Options for what is heard, and how it is written."""
    what.add_argument("--audio", nargs="+", action="extend", help="transcribe .wav files")
    parser.add_argument("--language", help="such as en; left out, it is detected")
    parser.add_argument("--translate", action="store_true", help="into English")
    parser.add_argument("--timestamps", action="store_true", help="with timestamps")
    parser.add_argument("--json", action="store_true", dest="as_json", help="a document per sound")


def written(model: Any, audio: list[str], as_json: bool = False, **how: Any) -> Iterator[str]:
    """What is said in each sound, as text, or as JSON if that is asked for."""
    for one, made in zip(audio, model.transcribe(audio, **how), strict=True):
        said = [json.dumps(document(one, made))] if as_json else timed(made) or [made.text]
        yield "".join(f"{line}\n" for line in said)


def document(audio: str, made: Any) -> dict[str, Any]:
    """A transcript for programs."""
    found = {"audio": audio, "text": made.text, "language": made.language}
    timed = made.segments is not None
    return found | ({"segments": [each._asdict() for each in made.segments]} if timed else {})


def timed(made: Any) -> list[str]:
    """Its segments for people, a line for each."""
    return [f"{start:9.2f} {end:9.2f}  {text}" for start, end, text in made.segments or ()]
