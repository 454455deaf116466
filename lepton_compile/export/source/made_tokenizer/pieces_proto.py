"""The form of a sentencepiece file, as much of it as is read.

It is told to protobuf here, in a pool of its own: the module that sentencepiece comes with needs
that library, in a version that goes with the installed protobuf, and a process takes one such
module alone.
"""

from __future__ import annotations

from functools import cache
from typing import Any

__all__ = ["model_class"]

PACKAGE = "pieces"
# Fields by message: name, number, type, and what it is where a file does not say.
FORM = {
    "Piece": [("piece", 1, "STRING", ""), ("score", 2, "FLOAT", "0"), ("type", 3, "INT32", "1")],
    "Training": [
        ("model_type", 3, "INT32", "1"),
        ("treat_whitespace_as_suffix", 24, "BOOL", "false"),
        ("byte_fallback", 35, "BOOL", "false"),
    ],
    "Normalizing": [
        ("precompiled_charsmap", 2, "BYTES", ""),
        ("add_dummy_prefix", 3, "BOOL", "true"),
        ("remove_extra_whitespaces", 4, "BOOL", "true"),
        ("escape_whitespaces", 5, "BOOL", "true"),
    ],
}
PARTS = {"pieces": "Piece", "trainer_spec": "Training", "normalizer_spec": "Normalizing"}


@cache
def model_class() -> Any:
    """The class of the whole message."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    form = descriptor_pb2.FileDescriptorProto(name="pieces.proto", package=PACKAGE, syntax="proto2")
    for message, fields in FORM.items():
        made = form.message_type.add(name=message)
        for name, number, kind, default in fields:
            told = {"type": f"TYPE_{kind}", "default_value": default, "label": "LABEL_OPTIONAL"}
            made.field.add(name=name, number=number, **told)
    whole = form.message_type.add(name="Model")
    for number, (name, kind) in enumerate(PARTS.items(), 1):
        label = kinds.LABEL_REPEATED if name == "pieces" else kinds.LABEL_OPTIONAL
        told = {"type": "TYPE_MESSAGE", "type_name": f".{PACKAGE}.{kind}", "label": label}
        whole.field.add(name=name, number=number, **told)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(form)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.Model"))
