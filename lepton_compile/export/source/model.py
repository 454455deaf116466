"""A model that was found: its configuration, weights, tokenizer and digests, read on demand."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from concurrent.futures import Future
from functools import cached_property, partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from lepton_compile.collection import uncollected
from lepton_compile.errors import SourceError, told_as
from lepton_compile.export.source import folder as folders
from lepton_compile.export.source.chat_template import chat_template
from lepton_compile.export.source.made_tokenizer import made_tokenizer, write_made_tokenizer
from lepton_compile.export.source.objects import COMPARE
from lepton_compile.export.source.package import sha256_of
from lepton_compile.export.source.tokenizer_files import (
    check_tokenizer_files,
    tokenizer_error,
    vocabulary_error,
)
from lepton_plugins.workroom import Workroom

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from lepton_compile.export.checkpoint import Checkpoint
    from lepton_compile.export.checkpoint.gguf_header import GGUFHeader
    from lepton_compile.export.source.adapter import Adapter
    from lepton_compile.export.source.made_tokenizer.base import Slow

__all__ = ["Kind", "Source"]

Kind = Literal["folder", "gguf", "onnx"]
Result = TypeVar("Result")


class Source:
    """A model in a known place.

    Attributes:
        spec: what the recipe said.
        kind: ``folder`` (Hugging Face layout), ``gguf`` or ``onnx``.
        path: the folder or file.
        revision: hub commit or package version; None for a plain path.
        trust_remote_code: whether Python files that come with the model may run.
        adapter: what is merged into the weights as they are bound.
    """

    adapter: Adapter | None = None

    def __init__(
        self,
        spec: str,
        kind: Kind,
        path: Path,
        revision: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        self.spec = spec
        self.kind = kind
        self.path = path
        self.revision = revision
        self.trust_remote_code = trust_remote_code
        self._digests: Future[dict[str, str]] | None = None
        self._vocabulary: Future[SourceError | None] | None = None

    def __repr__(self) -> str:
        return f"Source({self.spec!r}, kind={self.kind!r}, path={str(self.path)!r})"

    @property
    def folder(self) -> Path:
        """The folder of the model's files; a file's parent."""
        return self.path if self.kind == "folder" else self.path.parent

    def check_folder(self, *, weights: bool) -> None:
        """Refuse what must not, or cannot, be loaded. Raises SourceError."""
        folders.check_config(self.path, self.trust_remote_code)
        check_tokenizer_files(self.path)
        _ = self._made_tokenizer
        # The process waits for it: a library in Rust must not find the interpreter gone.
        self._vocabulary = _started(lambda: vocabulary_error(self.path), daemon=False)
        chat_template(self.path)
        if weights:
            folders.check_weights(self.path)

    def check_vocabulary(self) -> None:
        """Refuse a large vocabulary that the tokenizer's library does not take, which a thread has
        looked at meanwhile. Raises SourceError."""
        error = self._vocabulary.result() if self._vocabulary is not None else None
        if error is not None:
            raise error

    def config(self) -> PretrainedConfig:
        """The transformers configuration.

        Raises:
            SourceError: unknown architecture, unreadable, or the source has none (``.onnx``).
        """
        return self._config

    @cached_property
    def _config(self) -> PretrainedConfig:
        if self.kind == "onnx":
            raise SourceError("An ONNX file has no configuration.", found=str(self.path))
        if self.kind == "gguf":
            from lepton_compile.export.source.gguf import config_of

            return config_of(self._header)
        return self._folder_config()

    @cached_property
    def _header(self) -> GGUFHeader:
        """That of a GGUF file: reading it means going through its whole vocabulary."""
        from lepton_compile.export.checkpoint.gguf_header import read_header

        return read_header(self.path)

    def _folder_config(self) -> PretrainedConfig:
        from transformers import AutoConfig, PretrainedConfig

        try:
            config: PretrainedConfig = AutoConfig.from_pretrained(
                self.path, trust_remote_code=self.trust_remote_code, local_files_only=True
            )
            text = config.get_text_config()
            if not isinstance(text, PretrainedConfig):
                raise TypeError(f"what it says of its language model is {text!r:.60}")
        except Exception as error:  # whatever the library or the model's own code raises
            model_type = str(folders.read_config(self.path).get("model_type"))
            raise _config_error(self.path, model_type, error) from error
        # Of how weights are stored, which the checkpoint sees to; transformers replaces layers.
        for each in (config, text):
            vars(each).pop("quantization_config", None)
        # Of how its makers ran it, and what calls gave them: numbers and parts are the same.
        if config._attn_implementation not in (None, "eager", "sdpa"):
            config._attn_implementation = None
        config.return_dict = True
        return config

    @property
    def quantization(self) -> dict[str, Any] | None:
        """What a folder says of weights that are quantized already; None where they are not."""
        return folders.quantization(self.path) if self.kind == "folder" else None

    @property
    def architecture(self) -> str:
        """Class name of the model, such as ``BertModel``."""
        names = getattr(self.config(), "architectures", None)
        if names:
            return str(names[0])
        from transformers import AutoModel

        mapping = AutoModel._model_mapping  # no public way from a configuration to its class
        return str(mapping[type(self.config())].__name__)

    def checkpoint(self) -> Checkpoint:
        """The weights, those that are quantized already as the values that they stand for, without
        the adapter.

        Raises:
            CheckpointError: damaged, or tensors that do not fit each other.
            SourceError: quantized in a way that is not read; an ONNX file, which has none.
        """
        from lepton_compile.export.checkpoint import GGUFCheckpoint, SafetensorsCheckpoint
        from lepton_compile.export.checkpoint.quantized import read_quantized

        stored: Checkpoint
        if self.kind == "gguf":
            stored = GGUFCheckpoint(self._header)
        elif self.kind == "folder":
            stored, settings = SafetensorsCheckpoint(self.path), self.quantization
            if settings is not None:
                stored = read_quantized(stored, settings)
        else:
            raise SourceError("The weights of an ONNX file are part of it.", found=str(self.path))
        return stored

    def tokenizer_folder(self) -> Path | None:
        """The folder that holds the tokenizer's files; None without one. Raises SourceError."""
        if self.kind == "gguf":
            from lepton_compile.export.source.gguf_tokenizer import tokenizer_folder

            return tokenizer_folder(self._header)
        if self._made_tokenizer is not None:
            return Path(self._made_folder.name)
        if self.kind == "onnx" or not folders.has_tokenizer(self.path):
            return None
        return self.path

    @cached_property
    def _made_tokenizer(self) -> Slow | None:
        """That of a folder whose tokenizer has no fast form of its own."""
        return made_tokenizer(self.path) if self.kind == "folder" else None

    @cached_property
    def _made_folder(self) -> Workroom:
        """Where it is written; gone with the source."""
        assert self._made_tokenizer is not None
        room = Workroom("tokenizer")
        write_made_tokenizer(self._made_tokenizer, Path(room.name))
        return room

    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The tokenizer; None if the model comes without one. Raises SourceError."""
        folder = self.tokenizer_folder()
        if folder is None:
            return None
        from transformers import AutoTokenizer

        # Whatever the library or the model's own code raises.
        with told_as(partial(tokenizer_error, folder)), uncollected():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                folder, trust_remote_code=self.trust_remote_code, local_files_only=True
            )
        return tokenizer

    def start_digests(self) -> None:
        """Begin to read the files for ``digests``, in a thread that ends with the process."""
        if self._digests is None:
            self._digests = _started(self._digest)

    def digests(self) -> dict[str, str]:
        """SHA-256 of each file a build reads, by path relative to the source. Reads them whole."""
        self.start_digests()
        assert self._digests is not None
        return self._digests.result()

    def _digest(self) -> dict[str, str]:
        files = folders.inputs(self.path) if self.kind == "folder" else self._own_files()
        digests = {f.relative_to(self.folder).as_posix(): sha256_of(f) for f in files}
        if self.adapter is not None:
            digests |= {f"adapter/{f.name}": sha256_of(f) for f in self.adapter.files()}
        return digests

    def _own_files(self) -> list[Path]:
        """A file, and the files that an ONNX file keeps its weights in."""
        if self.kind != "onnx":
            return [self.path]
        from lepton_compile.export.external import weight_files
        from lepton_compile.export.onnx_embedded import load_onnx

        return list(dict.fromkeys([self.path, *weight_files(load_onnx(self.path), self.path)]))


def _started(make: Callable[[], Result], *, daemon: bool = True) -> Future[Result]:
    """What ``make`` gives, which runs in a thread that ends with the process, or before it."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(make())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, daemon=daemon).start()
    return future


def _config_error(path: Path, model_type: str, error: Exception) -> SourceError:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    if model_type in CONFIG_MAPPING_NAMES:
        return SourceError(
            "transformers cannot make a configuration of config.json.",
            where=str(path / "config.json"),
            found=f"{type(error).__name__}: {error}",
            hint=COMPARE,
        )
    return SourceError(
        "The installed transformers does not know this model type.",
        where=str(path / "config.json"),
        found=model_type,
        available=difflib.get_close_matches(model_type, CONFIG_MAPPING_NAMES, n=3),
        hint="Update transformers, or correct model_type.",
    )
