"""Paths on the command line, refused as they are where Python calls."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from lepton_compile.arguments import path_of

__all__ = ["PathType"]


class PathType(click.Path):
    """``click.Path`` that gives a ``pathlib.Path``, and refuses names that no file can have."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As click does it, once it is a path.

        Raises:
            UsageError: it is none.
            BadParameter: it is an address; as a path it would lose one of its slashes.
        """
        hint = param.get_error_hint(ctx) if param is not None else "the argument"
        if isinstance(value, str) and re.match(r"https?://", value):
            self.fail(f"{value} is an address: download it, and name the file.", param, ctx)
        return super().convert(path_of(value, hint), param, ctx)
