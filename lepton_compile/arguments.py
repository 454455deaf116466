"""What callers from Python hand over, checked as the command line checks what is typed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lepton_compile.errors import UsageError

__all__ = ["LARGEST", "flag_of", "keys_of", "names_of", "number_of", "path_of", "placed"]

# The largest integer that Triton's configuration holds, and more than any of these can mean.
LARGEST = (1 << 31) - 1


def path_of(value: object, name: str) -> Path:
    """A path, given as text or as a ``pathlib.Path``.

    Raises:
        UsageError: it is neither, is empty, or no file system has such a name.
    """
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str) or "\0" in text or not text:
        raise UsageError(
            f"{name} is no path", found=f"{value!r:.80}", available=["text", "pathlib.Path"]
        )
    try:
        os.lstat(text)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass
    except (OSError, ValueError) as error:  # too long, links in a circle, half a character
        raise UsageError(f"{name} is no path", found=f"{text!r:.80}: {_reason(error)}") from error
    return Path(text)


def placed(text: str, base: Path, name: str) -> Path:
    """The absolute path that ``text`` means, seen from ``base``; it may begin with a ``~``.

    Raises:
        UsageError: nobody has that home, or no file system has such a name.
    """
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{name} is no path", found=f"{text!r:.80}: {error}") from error
    return path_of((base / path).absolute() if text else text, name)


def flag_of(value: object, name: str) -> bool:
    """True or False: any text, ``"false"`` too, would count as yes.

    Raises:
        UsageError: it is neither.
    """
    if isinstance(value, bool):
        return value
    raise UsageError(f"{name} is yes or no", found=f"{value!r:.80}", available=["True", "False"])


def number_of(value: object, name: str) -> int:
    """A whole number from 1 on.

    Raises:
        UsageError: it is none, or beyond what 32 bits hold.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST:
        return value
    raise UsageError(f"{name} is a number from 1 to {LARGEST}", found=f"{value!r:.80}")


def keys_of(value: object, name: str) -> Mapping[str, Any]:
    """A mapping of text; None stands for an empty one.

    Raises:
        UsageError: it is none, or a key is no text.
    """
    given = {} if value is None else value
    if isinstance(given, Mapping) and all(isinstance(key, str) for key in given):
        return given
    raise UsageError(
        f"{name} is a mapping of dotted keys", found=f"{value!r:.80}", available=['{"a.b": 1}']
    )


def names_of(value: object, name: str) -> list[str] | None:
    """One name or several; None where nothing is said.

    Raises:
        UsageError: it is neither, or names nothing.
    """
    given = [value] if isinstance(value, str) else value
    if given is None:
        return None
    if isinstance(given, list | tuple) and given and all(isinstance(each, str) for each in given):
        return [*given]
    raise UsageError(
        f"{name} is a name or several", found=f"{value!r:.80}", available=["text", "a list of text"]
    )


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
