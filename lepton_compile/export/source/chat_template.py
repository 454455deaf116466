"""The chat template of a model, read as the emitted loader reads it, and never rendered here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lepton_compile.errors import SourceError
from lepton_compile.export.source.objects import read_object
from lepton_compile.runtime.loader_template import environment

__all__ = ["CONFIG", "TEMPLATE", "chat_template"]

CONFIG, TEMPLATE = "tokenizer_config.json", "chat_template.jinja"
PROCESSOR, OLDER = "processor_config.json", "chat_template.json"
"""Where processors of models that see keep it, or kept it before."""
LARGEST = 1 << 18  # far beyond any released one; jinja2 reads this much in two seconds
HINT = "Correct it, or remove it: without one, prompts are plain texts."


def chat_template(folder: Path, *, processor: bool = False) -> str | None:
    """The text of it, from its file, or from a configuration.

    Args:
        processor: read what transformers reads for texts with pictures among them, whose template
            may be another than the tokenizer's. For others an older processor's comes last.

    Raises:
        SourceError: it is no text, or none that jinja2 reads.
    """
    own = (TEMPLATE, CONFIG)
    names = (PROCESSOR, OLDER, *own) if processor else (*own, OLDER)
    file = next(filter(_says, (folder / name for name in names)), folder / CONFIG)
    try:
        found: Any = file.read_text("utf-8") if file.name == TEMPLATE else _setting(file)
        if isinstance(found, list):  # several by name; chatting uses the default
            found = next((e.get("template") for e in found if e.get("name") == "default"), None)
        if not isinstance(found, str | None):
            raise TypeError(f"{found!r:.60}")
        (found or "").encode("utf-8")  # half a character is no text, either
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise SourceError(
            "The chat template is no text.", where=str(file), found=str(error), hint=HINT
        ) from error
    if found and (fault := _fault(found)):
        raise SourceError(
            "The chat template cannot be read.", where=str(file), found=fault, hint=HINT
        )
    return found or None


def _says(file: Path) -> bool:
    return file.is_file() and (file.name == TEMPLATE or _setting(file) is not None)


def _setting(file: Path) -> Any:
    return read_object(file).get("chat_template")


def _fault(text: str) -> str | None:
    """What jinja2 says of it. It is not compiled, which computes what is constant in it."""
    from jinja2 import TemplateSyntaxError

    if len(text) > LARGEST:
        return f"{len(text):,} characters, of {LARGEST:,} at most"
    try:
        environment().parse(text)
    except TemplateSyntaxError as error:
        return f"line {error.lineno}: {error.message}"
    except RecursionError as error:
        return str(error)
    return None
