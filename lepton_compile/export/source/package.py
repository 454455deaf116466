"""Models that ship inside installed Python packages.

``package:module/path`` names a file or folder of the package, found without running its code.
``package:module`` alone is for a weight file that is split over several packages: the module's own
``assemble(path)`` joins it, once, into the user's cache.
"""

from __future__ import annotations

import hashlib
import os
from importlib import import_module
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

from lepton_compile.errors import SourceError
from lepton_plugins.toolchain.store import user_cache
from lepton_plugins.workroom import Workroom

__all__ = ["locate_package", "sha256_of"]


def locate_package(spec: str) -> tuple[Path, str | None]:
    """The file or folder that ``module/path`` names, and the version of its distribution.

    Raises:
        SourceError: the package is not installed, has no such file, or cannot join its parts.
    """
    module, _, inside = spec.partition("/")
    roots = _module_folders(spec, module)
    if not inside:
        return _assembled(module), _version(module)
    for root in roots:
        path = (root / inside).resolve()
        if path.is_relative_to(root.resolve()) and path.exists():
            return path, _version(module)
    raise SourceError(
        "The package holds no such file or folder.",
        found=f"package:{spec}",
        available=sorted(name for root in roots for name in _inside(root)),
    )


def _inside(root: Path) -> list[str]:
    """What a folder that may not be there holds, without what is hidden or compiled."""
    paths = root.iterdir() if root.is_dir() else ()
    return [path.name for path in paths if path.name[0] not in "._"]


def _check_name(spec: str, module: str) -> None:
    """What is no name would be looked up as one, and then be told to be installed."""
    if not all(part.isidentifier() for part in module.split(".")):
        meant = module.replace("-", "_")
        dashed = meant != module and meant.isidentifier()
        raise SourceError(
            "This is no name of a package, as an import has it.",
            found=f"package:{spec}",
            available=["package:module/path"],
            hint=f"write package:{meant}{spec[len(module) :]}" if dashed else None,
        )


def _module_folders(named: str, module: str) -> list[Path]:
    """Folders of a package. Only the first part is looked up: a parent's code would be run."""
    top, *rest = module.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        _check_name(named, module)
        raise SourceError(
            f"The package {top!r} is not installed.",
            hint=f"pip install {top.replace('_', '-')}",
        )
    if not spec.submodule_search_locations:
        raise SourceError(
            f"The module {top!r} is no package that could hold a model.",
            found=spec.origin,
            available=["package:module/path"],
            hint="name the package that ships the model",
        )
    return [Path(location, *rest) for location in spec.submodule_search_locations]


def _version(module: str) -> str | None:
    top = module.partition(".")[0]
    for distribution in packages_distributions().get(top, ()):
        try:
            return f"{distribution}=={version(distribution)}"
        except PackageNotFoundError:
            continue
    return None


def _assembled(module: str) -> Path:
    """The joined file in the cache; joined again if its digest is not the recorded one."""
    try:
        package = import_module(module)
    except ImportError as error:
        raise SourceError(
            "The package cannot be imported.", found=f"package:{module}: {error}"
        ) from error
    assemble = getattr(package, "assemble", None)
    if assemble is None:
        raise SourceError(
            "The package does not say where its model is.",
            found=f"package:{module}",
            hint=f"Name the folder: package:{module}/PATH",
        )
    name = Path(getattr(package, "MODEL_NAME", f"{module}.gguf")).name
    folder = user_cache() / "packages" / (_version(module) or module)
    target, record = folder / name, folder / f"{name}.sha256"
    if target.is_file() and record.is_file() and record.read_text().strip() == sha256_of(target):
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        room = Workroom("joined", folder)
    except OSError as error:
        raise SourceError(
            "The model of a package cannot be kept in the user's cache.",
            where=str(folder),
            found=error.strerror,
            hint="XDG_CACHE_HOME names another folder for caches.",
        ) from error
    with room as partial:
        path = Path(partial) / name
        try:
            assemble(path)
        except (OSError, ValueError, ImportError) as error:
            raise SourceError(
                "The package cannot join the parts of its model.",
                found=f"package:{module}: {error}",
                hint="Install the package and its parts again.",
            ) from error
        (Path(partial) / record.name).write_text(sha256_of(path) + "\n")
        os.replace(path, target)
        os.replace(Path(partial) / record.name, record)
    return target


def sha256_of(path: Path) -> str:
    """The digest of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
