"""``config.pbtxt`` as a message of Triton's own protobuf, so that no field is misspelled."""

from __future__ import annotations

from typing import Any

from lepton_compile.errors import ArtifactError, LeptonError

__all__ = ["data_type", "messages", "text_of"]

_TYPES = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "int8": "TYPE_INT8",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "bfloat16": "TYPE_BF16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "str": "TYPE_STRING",
}


def messages() -> Any:
    """The module of Triton's messages, ``model_config_pb2``.

    Raises:
        LeptonError: tritonclient is not installed, or without its gRPC part.
    """
    try:
        from tritonclient.grpc import model_config_pb2
    except (ImportError, RuntimeError) as error:  # the latter where grpcio is missing
        raise LeptonError(
            "the configuration of a Triton model is written with Triton's own protobuf",
            found=str(error).partition("\n")[0],
            hint="pip install 'lepton-compile[serve]'",
        ) from error
    return model_config_pb2


def data_type(dtype: str) -> str:
    """Triton's name of a numpy dtype; ``str`` is TYPE_STRING.

    Raises:
        ArtifactError: Triton carries no such type.
    """
    try:
        return _TYPES[dtype]
    except KeyError:
        raise ArtifactError(
            "Triton has no type for this", found=dtype, available=list(_TYPES)
        ) from None


def text_of(config: Any) -> str:
    """The text of a ModelConfig, read back and compared before it is handed out."""
    from google.protobuf import text_format

    text = str(text_format.MessageToString(config))
    again = text_format.Parse(text, type(config)())
    if again != config:
        raise LeptonError("the configuration does not survive being written as text")
    return text
