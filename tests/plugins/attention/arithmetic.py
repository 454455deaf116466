"""Kernels that add, subtract and multiply two integers: what the interpreter makes of them."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

__all__ = ["add", "multiply", "subtract"]


@triton.jit
def add(numbers: Any) -> None:
    tl.store(numbers + 2, tl.load(numbers) + tl.load(numbers + 1))


@triton.jit
def subtract(numbers: Any) -> None:
    tl.store(numbers + 2, tl.load(numbers) - tl.load(numbers + 1))


@triton.jit
def multiply(numbers: Any) -> None:
    tl.store(numbers + 2, tl.load(numbers) * tl.load(numbers + 1))
