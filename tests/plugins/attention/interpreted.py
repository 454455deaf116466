"""The Triton kernels on the CPU, under Triton's interpreter, in a process of their own.

``TRITON_INTERPRET`` counts when triton is imported, and the other tests need the compiler.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_plugins.attention.launch import KERNELS, arguments, dimensions, grid, steps
from lepton_plugins.attention.source import constants
from lepton_plugins.attention.tiles import Tiles
from tests.plugins.attention.cases import SMALL_TILES, Case, inputs, numpy_dtype

__all__ = ["Interpreter", "run"]


class Interpreter:
    """A process in which kernels are interpreted; ``run`` gives what they wrote."""

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=_interpret)

    def run(self, case: Case, tiles: Mapping[str, Tiles] = SMALL_TILES) -> dict[str, NDArray[Any]]:
        return self._pool.submit(run, case, dict(tiles)).result()

    def computed(self, operation: str, left: int, right: int) -> int:
        """Two integers of 32 bits, added, subtracted or multiplied by the interpreter."""
        return self._pool.submit(_computed, operation, left, right).result()

    def close(self) -> None:
        self._pool.shutdown()


def run(case: Case, tiles: Mapping[str, Tiles]) -> dict[str, NDArray[Any]]:
    """One call of the op, kernel after kernel; partials start as not-a-number."""
    import torch

    from lepton_plugins.attention import kernels

    variant, arrays = case.variant, inputs(case)
    rows = case.sequence * variant.group
    lines = (case.batch, variant.kv_num_heads, case.splits, rows)
    arrays["output"] = np.zeros(arrays["query"].shape, numpy_dtype(variant.dtype))
    arrays["partial"] = np.full((*lines, variant.head_dim), np.nan, np.float32)
    arrays["partial_lse"] = np.full(lines, np.nan, np.float32)
    tensors = {name: _tensor(array, torch) for name, array in arrays.items()}
    tensors["present_key"] = tensors["key_cache"]
    tensors["present_value"] = tensors["value_cache"]
    for name in steps(case.sequence):
        sizes = dimensions(
            variant,
            tiles[name],
            batch=case.batch,
            sequence=case.sequence,
            capacity=case.capacity,
            splits=case.splits,
        )
        given = {
            argument: tensors.get(argument, sizes.get(argument))
            for argument in arguments(name, variant)
        }
        kernel = getattr(kernels, KERNELS[name].entry)
        kernel[grid(name, sizes)](**given, **constants(name, variant, tiles[name]))
    return {
        "output": arrays["output"],
        "present_key": arrays["key_cache"],
        "present_value": arrays["value_cache"],
    }


def _computed(operation: str, left: int, right: int) -> int:
    import torch

    from tests.plugins.attention import arithmetic

    given = torch.tensor([left, right, 0], dtype=torch.int32)
    getattr(arithmetic, operation)[(1,)](given)
    return int(given[2])


def _tensor(array: NDArray[Any], torch: Any) -> Any:
    """A tensor over the array's own memory."""
    types = {
        "bfloat16": (np.int16, torch.bfloat16),
        "float8_e4m3fn": (np.int8, torch.float8_e4m3fn),
    }
    if array.dtype.name not in types:
        return torch.from_numpy(array)
    bits, dtype = types[array.dtype.name]
    return torch.from_numpy(array.view(bits)).view(dtype)


def _interpret() -> None:
    os.environ["TRITON_INTERPRET"] = "1"
    _mend_interpreter()
    _patch_once()
    _know_types()
    _check_overflow_at_once()


def _mend_interpreter() -> None:
    """Arithmetic that Triton 3.9's interpreter gets wrong, as the hardware does it.

    It multiplies the bit patterns of bfloat16 matrices, truncates where the hardware rounds to
    even, and casts integers to the bit patterns of bfloat16.
    """
    import triton.language as tl
    from triton.runtime import interpreter

    builder: Any = interpreter.InterpreterBuilder
    names = {"bf16": "bfloat16", "fp8e4nv": "float8_e4m3fn", "fp16": "float16", "fp32": "float32"}
    plain_dot, plain_cast = builder.create_dot, builder.cast_impl

    def convert(data: Any, source: Any, target: Any, rounding: Any) -> Any:
        found = data.view(numpy_dtype(names[source.name]))
        numbers = found.astype(numpy_dtype(names[target.name]))
        return numbers.view(f"uint{target.primitive_bitwidth}")

    def widened(handle: Any) -> Any:
        is_bfloat16 = handle.dtype.scalar == tl.bfloat16
        return plain_cast(None, handle, tl.float32) if is_bfloat16 else handle

    def dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return plain_dot(self, widened(a), widened(b), *rest)

    def cast(self: Any, source: Any, target: Any) -> Any:
        if target.scalar == tl.bfloat16 and source.dtype.scalar.is_int():
            source = plain_cast(self, source, tl.float32)
        return plain_cast(self, source, target)

    interpreter._convert_float = convert
    builder.create_dot, builder.cast_impl = dot, cast


def _patch_once() -> None:
    """Device functions patch Triton's language once for each module that they come from.

    The interpreter does it at every call, ``tl.max`` and ``tl.sum`` included: half of its time.
    What a call in a kernel patches is never put back, so once is enough.
    """
    from triton.runtime import interpreter

    patched: set[int] = set()

    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        if id(self.fn.__globals__) not in patched:
            patched.add(id(self.fn.__globals__))
            interpreter._patch_lang(self.fn)
        return self.rewrite()(*arguments, **named)

    interpreter.InterpretedFunction.__call__ = call


def _know_types() -> None:
    """numpy's type of each of Triton's is looked up once: the interpreter makes the whole table of
    them for each thing that it computes."""
    from triton.runtime import interpreter

    plain, known = interpreter._get_np_dtype, dict[str, Any]()

    def numpy_type(dtype: Any) -> Any:
        name = str(dtype.scalar)
        if name not in known:
            known[name] = plain(dtype)
        return known[name]

    interpreter._get_np_dtype = numpy_type


def _check_overflow_at_once() -> None:
    """Whether 32 bits hold what integers come to, asked of numpy: the interpreter asks it of
    itself, in six steps that take half of its time."""
    from triton.language.semantic import TritonSemantic

    operations = {"add": np.add, "sub": np.subtract, "mul": np.multiply}

    def check(self: Any, left: Any, right: Any, operation: Any) -> None:
        scalar = left.type.scalar
        if scalar.int_bitwidth >= 64 or not self.builder.options.sanitize_overflow:
            return
        assert scalar == right.type.scalar
        assert scalar.is_int()
        both = (each.handle.data.astype(np.int64) for each in (left, right))
        found = operations[operation.__name__](*both)
        fits = (found >= scalar.get_int_min_value()) & (found <= scalar.get_int_max_value())
        assert fits.all(), f"int{scalar.int_bitwidth} overflow detected for {operation.__name__}"

    TritonSemantic.binary_op_sanitize_overflow_impl = check
