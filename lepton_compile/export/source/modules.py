"""The modules of a sentence-transformers folder, which ``modules.json`` lists."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from lepton_compile.arguments import path_of
from lepton_compile.errors import SourceError, UsageError
from lepton_compile.export.json_file import read_json

__all__ = ["MODULES", "modules_of"]

MODULES = "modules.json"


def modules_of(folder: Path) -> list[tuple[str, Path]]:
    """Kind (``Pooling``, ``Dense`` …) and folder of each, in order; none where there is no list.

    Raises:
        SourceError: the list cannot be read, or names a folder outside the model's, or none that
            there can be.
    """
    file = folder / MODULES
    if not file.is_file():
        return []
    try:
        entries = read_json(file)
        found = [(str(each["type"]), str(each.get("path") or "")) for each in entries]
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise SourceError(
            "The modules of a sentence-transformers model cannot be read.",
            where=str(file),
            found=f"{type(error).__name__}: {error}",
            available=['[{"type": "…", "path": "…"}, …]'],
        ) from error
    pure = [PurePosixPath(path) for _, path in found]
    if outside := [str(path) for path in pure if path.is_absolute() or ".." in path.parts]:
        raise SourceError(
            "A module lies outside the model's folder.", where=str(file), found=", ".join(outside)
        )
    try:
        places = [path_of(folder / path, "the folder of a module") for path in pure]
    except UsageError as error:
        raise SourceError(
            "A module lies in no folder that there can be.", where=str(file), found=error.found
        ) from error
    return [(kind.rpartition(".")[2], at) for (kind, _), at in zip(found, places, strict=True)]
