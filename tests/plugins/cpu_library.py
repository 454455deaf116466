"""A session of one op of our library of CPU kernels."""

from __future__ import annotations

import atexit
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from lepton_plugins.native import EMULATED, LIBRARY, build_library, why_not
from lepton_plugins.spec import CPU_DOMAIN as DOMAIN
from lepton_plugins.toolchain.store import cache_folder
from lepton_plugins.workroom import Workroom

__all__ = ["DOMAIN", "OTHER_PROCESSORS", "Array", "library", "needs_library", "run"]

OTHER_PROCESSORS = ("LEPTON_WITHOUT_AVX512", EMULATED)
"""What makes a library run the kernels of one kind of processor on any."""

needs_library = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

Array = np.ndarray[Any, Any]


@cache
def library(*defines: str) -> Path:
    """The library, compiled once for all tests of a process."""
    room = Workroom("library")
    atexit.register(room.cleanup)
    path = Path(room.name) / LIBRARY
    path.write_bytes(build_library(cache_folder(), defines))
    return path


def _described(name: str, array: Array) -> onnx.ValueInfoProto:
    dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, dtype, [f"{name}_{d}" for d in range(array.ndim)])


def run(
    domain: str,
    op_type: str,
    inputs: Sequence[Array | None],
    outputs: int = 1,
    threads: int = 2,
    defines: Sequence[str] = (),
    in_place: Mapping[int, int] | None = None,
    left_out: Sequence[int] = (),
    halves: Sequence[int] = (),
    bytes_: Sequence[int] = (),
    **attributes: Any,
) -> list[Array]:
    """What the op gives for these inputs; ``None`` leaves one out. ``in_place`` has outputs that
    share the memory of an input; ``left_out`` are outputs without a name, ``halves`` in fp16,
    ``bytes_`` in int8."""
    import onnxruntime as ort

    feeds: Mapping[str, Array] = {f"i{n}": a for n, a in enumerate(inputs) if a is not None}
    names = [f"i{n}" if a is not None else "" for n, a in enumerate(inputs)]
    slots = ["" if n in left_out else f"o{n}" for n in range(outputs)]
    made = [name for name in slots if name]
    types = dict.fromkeys(made, onnx.TensorProto.FLOAT)
    types |= {f"o{n}": onnx.TensorProto.FLOAT16 for n in halves}
    types |= {f"o{n}": onnx.TensorProto.INT8 for n in bytes_}
    node = helper.make_node(op_type, names, slots, domain=domain, **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [_described(name, a) for name, a in feeds.items()],
        [helper.make_tensor_value_info(n, types[n], None) for n in made],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(domain, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    if domain == DOMAIN:
        options.register_custom_ops_library(str(library(*defines)))
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    if not in_place:
        return [np.asarray(a) for a in session.run(None, dict(feeds))]
    # Copies, as a value has the memory of its array.
    values = {n: ort.OrtValue.ortvalue_from_numpy(a.copy()) for n, a in feeds.items()}
    binding = session.io_binding()
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    for n, name in enumerate(made):
        if n in in_place:
            binding.bind_ortvalue_output(name, values[f"i{in_place[n]}"])
        else:
            binding.bind_output(name)
    session.run_with_iobinding(binding)
    return [np.array(value.numpy()) for value in binding.get_outputs()]


if __name__ == "__main__" and why_not() is None:  # compiled once, before tests of many processes
    for name in (None, *OTHER_PROCESSORS):
        build_library(cache_folder(), [name] if name else [])
