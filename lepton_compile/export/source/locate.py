"""From the text of ``model:`` in a recipe to a ``Source``.

hf:org/name@commit      huggingface-hub, honouring its cache and offline mode
package:module/path     a folder or file inside an installed package
anything else           a path, relative to the recipe
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from lepton_compile.arguments import placed
from lepton_compile.errors import SourceError
from lepton_compile.export.source.adapter import locate_adapter
from lepton_compile.export.source.address import on_the_hub, refuse_address
from lepton_compile.export.source.hub import download
from lepton_compile.export.source.model import Source
from lepton_compile.export.source.package import locate_package

__all__ = ["resolve"]

FORMS = ("hf:org/name@commit", "package:module/path", "a folder", "a .gguf or .onnx file")
HUB_NAME = re.compile(r"^\w[\w.-]*/[\w.-]+(@\w+)?$")
BARE_NAME = re.compile(r"^\w[\w.-]*$")


def resolve(
    model: str,
    base: Path,
    trust_remote_code: bool = False,
    *,
    adapter: str | None = None,
    weights: bool = True,
) -> Source:
    """Find the model and check that it can be trusted. Reads no weights.

    Args:
        model: the recipe's ``model``.
        base: folder that relative paths start from, usually the recipe's.
        trust_remote_code: whether Python files that come with the model may run.
        adapter: the recipe's ``adapter``, to merge into the weights.
        weights: they have to be there; without them the hub's are not fetched either.

    Raises:
        SourceError: not found, holds only pickled weights, needs code that is not trusted, or an
            adapter that cannot be merged.
        UsageError: one of them is a path that no file system has.
    """
    source = _located(model, base, trust_remote_code, weights)
    if adapter is not None:
        source.adapter = locate_adapter(adapter, base, weights=weights)
    return source


def _located(model: str, base: Path, trust_remote_code: bool, weights: bool) -> Source:
    scheme, _, rest = model.partition(":")
    if scheme == "hf":
        path, revision = download(rest, with_code=trust_remote_code, weights=weights)
        return _open(model, path, revision, trust_remote_code, weights)
    if scheme == "package":
        path, version = locate_package(rest)
        return _open(model, path, version, trust_remote_code, weights)
    refuse_address(model, FORMS)
    path = placed(model, base, "model")
    if not path.exists():
        raise SourceError(
            "The model does not exist.",
            found=str(path),
            available=FORMS,
            hint=on_the_hub(model) or _as_others_take_it(model),
        )
    return _open(model, path, None, trust_remote_code, weights)


def _as_others_take_it(model: str) -> str | None:
    """What to write where a name looks like one of the hub, as other tools take it."""
    if HUB_NAME.match(model):
        return f"For the hub, write hf:{model}."
    bare = BARE_NAME.match(model) and not model.endswith((".gguf", ".onnx", ".safetensors"))
    return f"For the hub, write hf:org/{model}, with its organization." if bare else None


def _open(spec: str, path: Path, revision: str | None, trusted: bool, weights: bool) -> Source:
    if path.is_dir():
        source = Source(spec, "folder", path, revision, trusted)
        source.check_folder(weights=weights)
        return source
    if not path.is_file():  # a pipe or a device, which may never end
        raise SourceError("The model is neither a folder nor a file.", found=str(path))
    if path.suffix == ".gguf":
        if find_spec("gguf") is None:
            raise SourceError(
                "Reading a GGUF file takes the gguf package.",
                found=str(path),
                hint="pip install 'lepton-compile[gguf]'",
            )
        return Source(spec, "gguf", path, revision, trusted)
    if path.suffix == ".onnx":
        return Source(spec, "onnx", path, revision, trusted)
    raise SourceError(
        "This file is not a model that can be compiled.",
        found=str(path),
        available=["a folder with config.json", "a .gguf file", "a .onnx file"],
        hint="For .safetensors weights, name the folder that also holds config.json."
        if path.suffix == ".safetensors"
        else None,
    )
