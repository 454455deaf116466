"""What a measurement holds for."""

from __future__ import annotations

import hashlib

import onnxruntime
import pytest

from lepton_compile.tactics.machine import _size, last_level_bytes, this_machine
from lepton_plugins.native import FEATURES
from tests.plugins.cpu_library import library, needs_library


def test_it_is_this_one() -> None:
    machine = this_machine(None)
    assert machine.processor
    assert machine.onnxruntime == onnxruntime.__version__
    assert machine.kernels == ""
    assert machine == this_machine(None)


@needs_library
def test_it_knows_the_library_and_what_that_needs() -> None:
    machine = this_machine(library())
    assert machine.kernels == hashlib.sha256(library().read_bytes()).hexdigest()
    assert {*FEATURES} <= {*machine.features}


@pytest.mark.parametrize(
    ("text", "size"), [("32768K\n", 32 << 20), ("1M", 1 << 20), ("", 0), ("many", 0), ("7", 0)]
)
def test_sizes_of_caches(text: str, size: int) -> None:
    assert _size(text) == size


def test_the_largest_cache_has_a_size() -> None:
    assert last_level_bytes() >= 1 << 18
