"""Linear layers behind the pooling of a sentence-transformers model, as EmbeddingGemma has two.

A ``Dense`` module is a folder: ``config.json`` with its sizes and its activation, and
``model.safetensors`` with ``linear.weight`` and, where it has one, ``linear.bias``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from lepton_compile.errors import CheckpointError, SourceError
from lepton_compile.export.checkpoint import SafetensorsCheckpoint
from lepton_compile.export.json_file import read_json
from lepton_compile.export.source import folder as folders
from lepton_passes.tensors import StreamedTensor

__all__ = ["EMBEDDING", "TOKENS", "UNPOOLED", "Dense", "read_dense"]

UNPOOLED = "Set pooling: none to compile the encoder alone."
# By name: sentence-transformers makes them without arguments.
_KINDS = (
    nn.ELU,
    nn.GELU,
    nn.Identity,
    nn.LeakyReLU,
    nn.Mish,
    nn.ReLU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Tanh,
)
ACTIVATIONS: dict[str, type[nn.Module]] = {kind.__name__: kind for kind in _KINDS}
EMBEDDING, TOKENS = "sentence_embedding", "token_embeddings"
_PREFIX = "linear."


@dataclass(frozen=True)
class Dense:
    """One of them: ``inner`` numbers become ``outer``, then comes the activation."""

    folder: Path
    inner: int
    outer: int
    bias: bool
    activation: str

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return self.outer * (self.inner + self.bias)

    def module(self) -> nn.Sequential:
        """Without weights, on the device that is the default where this is called."""
        linear = nn.Linear(self.inner, self.outer, bias=self.bias)
        return nn.Sequential(linear, ACTIVATIONS[self.activation]())

    def tensors(self) -> dict[str, StreamedTensor]:
        """The weights, by their names in ``module``.

        Raises:
            CheckpointError: they are not there, or of another shape than ``config.json`` says.
        """
        checkpoint = SafetensorsCheckpoint(self.folder)
        bias = {"bias": (self.outer,)} if self.bias else {}
        shapes: dict[str, tuple[int, ...]] = {"weight": (self.outer, self.inner), **bias}
        found = {name: info.shape for name, info in checkpoint.names().items()}
        if found != {_PREFIX + name: shape for name, shape in shapes.items()}:
            raise CheckpointError(
                "The weights of a Dense module are not those that its configuration describes.",
                where=str(self.folder),
                found=", ".join(f"{name} {list(shape)}" for name, shape in found.items()),
                available=[f"{_PREFIX}{name} {list(shape)}" for name, shape in shapes.items()],
            )
        return {f"0.{name}": checkpoint.tensor(_PREFIX + name) for name in shapes}


def read_dense(folder: Path, place: str = EMBEDDING) -> Dense:
    """What ``config.json`` of a Dense module says; its weights are not read.

    Args:
        place: what it is to take and to give back: the pooled vector, or those of all tokens.

    Raises:
        SourceError: it cannot be read, has an activation that is not known here, or its weights are
            pickled.
    """
    file = folder / "config.json"
    folders.check_weights(folder)
    try:
        found = read_json(file)
        inner, outer = int(found["in_features"]), int(found["out_features"])
        activation = str(found["activation_function"]).rpartition(".")[2]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SourceError(
            "A Dense module cannot be read.",
            where=str(file),
            found=f"{type(error).__name__}: {error}",
        ) from error
    if activation not in ACTIVATIONS:
        raise SourceError(
            "This activation of a Dense module cannot be compiled.",
            where=str(file),
            found=activation,
            available=list(ACTIVATIONS),
            hint=UNPOOLED,
        )
    _check_place(found, file, place)
    return Dense(folder, inner, outer, bool(found.get("bias", True)), activation)


def _check_place(settings: dict[str, Any], file: Path, place: str) -> None:
    """That it takes what it should, and gives nothing but its own."""
    known = {"module_input_name": place, "module_output_name": place, "use_residual": False}
    other = {k: settings[k] for k, usual in known.items() if settings.get(k) not in (None, usual)}
    if other:
        raise SourceError(
            "A Dense module does what cannot be compiled.",
            where=str(file),
            found=", ".join(f"{key}: {value}" for key, value in other.items()),
            available=[f"{key}: {value}" for key, value in known.items()],
            hint=UNPOOLED,
        )
