"""Addresses of the web in place of a model: none is downloaded. For a page of the hub the name that
a recipe takes is told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from lepton_compile.errors import SourceError

__all__ = ["on_the_hub", "refuse_address"]

HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
# Before a revision in the path of a page, and names that stand where an organization does.
PAGES = ("tree", "blob", "resolve", "raw", "commit", "commits", "discussions")
OTHERS = ("api", "blog", "collections", "datasets", "docs", "models", "papers", "spaces")
FILES = (".gguf", ".onnx")


def refuse_address(text: str, available: Sequence[str]) -> None:
    """Nothing is fetched from where anybody may put anything.

    Raises:
        SourceError: it is an address.
    """
    if re.match(r"[a-z][a-z0-9+.-]*://", text, re.IGNORECASE):
        raise SourceError(
            "Addresses are not downloaded.",
            found=text,
            available=available,
            hint=on_the_hub(text) or _here(text) or "Download it, and name the file or folder.",
        )


def on_the_hub(text: str) -> str | None:
    """What to write for the address of a model's page on the hub; None for all else, and for files
    that are not fetched by the name of a model."""
    try:
        parts = urlsplit(text if "://" in text else f"//{text}")
    except ValueError:
        return None
    path = [unquote(each) for each in parts.path.split("/") if each]
    if parts.hostname not in HOSTS or not path or path[0] in OTHERS or path[-1].endswith(FILES):
        return None
    # Old names have one part; a page stands behind a name, and has something behind it.
    end = next((at for at in (2, 1) if len(path) > at + 1 and path[at] in PAGES), 2)
    paged = len(path) > end + 1 and path[end] in PAGES and path[end] != "discussions"
    name = "/".join(path[:end])
    revision = path[end + 1] if paged else "commit"
    return None if ":" in name else f"For the hub, write hf:{name}@{revision}."


def _here(text: str) -> str | None:
    """What to write for the address of a file on this machine."""
    parts = text.partition("://")
    return f"Write {unquote(parts[2])}." if parts[0].lower() == "file" else None
