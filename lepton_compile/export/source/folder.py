"""What a Hugging Face folder must and must not hold."""

from __future__ import annotations

import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from lepton_compile.errors import SourceError
from lepton_compile.export.checkpoint.adapter_settings import ADAPTER_CONFIG
from lepton_compile.export.checkpoint.quantized import check_settings
from lepton_compile.export.checkpoint.safetensors import INDEX_NAME, SINGLE_NAME
from lepton_compile.export.source.modules import modules_of
from lepton_compile.export.source.no_model import adapter_alone, no_model
from lepton_compile.export.source.numbers import check_numbers
from lepton_compile.export.source.objects import read_object
from lepton_compile.export.source.rope import check_rope
from lepton_compile.export.source.tokenizer_files import TOKENIZER_FILES

__all__ = [
    "PICKLE_ENDINGS",
    "check_config",
    "check_weights",
    "has_tokenizer",
    "has_weights",
    "inputs",
    "pickled",
    "quantization",
    "read_config",
]

PICKLE_ENDINGS = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
PICKLE_INDEX = ".bin.index.json"
MODELOPT_NAME = "hf_quant_config.json"
# The same weights once more, as their makers name them.
DUPLICATES = "consolidated*.safetensors"
WORDS = ("*.txt", "*.model", "*.spm")
INPUTS = ("*.safetensors", "*.json", "*.jinja", *WORDS, "*/config.json", "*.py")
FAILED = ".failed.json"
MODULE_INPUTS = ("config.json", "*.safetensors")


def read_config(folder: Path) -> dict[str, Any]:
    """The contents of config.json. Raises SourceError."""
    path = folder / "config.json"
    if not path.is_file():
        raise no_model(folder)
    return read_object(path)


def quantization(folder: Path) -> dict[str, Any] | None:
    """How the weights are quantized already: of config.json, of the language model in it, or of the
    file that NVIDIA's Model Optimizer wrote beside it before. None where they are not.

    Raises:
        SourceError: it is not said in a form that is read.
    """
    return _quantization(folder)[0]


def _quantization(folder: Path) -> tuple[dict[str, Any] | None, str]:
    """The same, and where it is said."""
    config, place = read_config(folder), f"{folder / 'config.json'}: quantization_config"
    text = config.get("text_config")
    found = config.get("quantization_config")
    if not found and isinstance(text, dict):
        found = text.get("quantization_config")
    if not found:
        found, place = read_object(folder / MODELOPT_NAME), str(folder / MODELOPT_NAME)
    if found and not isinstance(found, dict):
        raise SourceError(
            "quantization_config is not an object.",
            where=str(folder / "config.json"),
            found=f"{found!s:.80}",
        )
    return found or None, place


def check_config(folder: Path, trust_remote_code: bool) -> None:
    """Refuse code that was not trusted by name, weights that are quantized in a way that is not
    read, architectures that name no classes, labels that are no text, rotary embeddings that
    cannot be computed, and numbers that no model has."""
    config = read_config(folder)
    where = str(folder / "config.json")
    if config.get("auto_map") and not trust_remote_code:
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

        if config.get("model_type") not in CONFIG_MAPPING_NAMES:
            raise SourceError(
                "The model needs Python code that comes with it.",
                where=where,
                found=f"auto_map: {json.dumps(config['auto_map'])}",
                hint="Read that code; if you trust it, set trust_remote_code: true; an artifact is "
                "compared or rebuilt with --trust-remote-code.",
            )
    settings, place = _quantization(folder)
    if settings:
        check_settings(settings, place)
    names = config.get("architectures") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SourceError(
            "architectures is no list of the names of classes.",
            where=where,
            found=f"{names!r:.60}",
            available=['["LlamaForCausalLM"]'],
        )
    _check_labels(config, where)
    check_rope(config, folder / "config.json")
    check_numbers(config, folder / "config.json")


def _check_labels(config: dict[str, Any], where: str) -> None:
    """Half a character stands in JSON, and in no file that holds text alone."""
    labels = config.get("id2label")
    for label in labels.values() if isinstance(labels, dict) else ():
        if isinstance(label, str) and any("\ud800" <= letter <= "\udfff" for letter in label):
            raise SourceError(
                "id2label has a name with half a character in it.",
                where=where,
                found=ascii(label)[:60],
                hint="Correct the name: it can be written to no file.",
            )


def has_weights(folder: Path) -> bool:
    """Whether the folder holds safetensors where transformers writes them."""
    return (folder / SINGLE_NAME).is_file() or (folder / INDEX_NAME).is_file()


def pickled(where: str, found: list[str]) -> SourceError:
    """The error for weights that are pickles, with the way to convert them."""
    return SourceError(
        "The weights are pickled, and loading a pickle can run any code.",
        where=where,
        found=", ".join(found),
        hint="Convert them where you trust them: "
        "AutoModel.from_pretrained(folder).save_pretrained(new_folder) writes safetensors.",
    )


def check_weights(folder: Path) -> None:
    """Refuse pickled weights, which run code when they are loaded, and folders without weights."""
    if has_weights(folder):
        return
    endings = (*PICKLE_ENDINGS, PICKLE_INDEX)
    if pickles := sorted(p.name for p in folder.iterdir() if p.name.endswith(endings)):
        raise pickled(str(folder), pickles)
    if (folder / ADAPTER_CONFIG).is_file():
        raise adapter_alone(folder)
    raise SourceError(
        "The folder holds no weights.",
        where=str(folder),
        available=sorted(p.name for p in folder.iterdir())[:20],
        hint=f"Expected {SINGLE_NAME} or {INDEX_NAME}; save_pretrained writes them. From a "
        "repository of pickled weights (pytorch_model.bin) none are fetched: convert them first.",
    )


def has_tokenizer(folder: Path) -> bool:
    """Whether the folder comes with a tokenizer."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def inputs(folder: Path) -> list[Path]:
    """The files that a build may read, in a fixed order."""
    own = (path for each in INPUTS for path in folder.glob(each) if not _of_a_build(path, folder))
    modules = (path for at in _module_folders(folder) for n in MODULE_INPUTS for path in at.glob(n))
    found = {path for path in (*own, *modules) if path.is_file()}
    return sorted(path for path in found if not fnmatch(path.name, DUPLICATES))


def _of_a_build(file: Path, folder: Path) -> bool:
    """Whether it is of an artifact in the model's folder, whole or not, or of what one lacked."""
    at = file.parent
    if at == folder:
        return file.name.endswith(FAILED)
    return (at / "manifest.json").is_file() or at.name.startswith(".")


def _module_folders(folder: Path) -> list[Path]:
    """Those of sentence-transformers; who reads a list that is wrong is told so, not here."""
    try:
        return [at for _, at in modules_of(folder)]
    except SourceError:
        return []
