"""What the tests of the attention kernels share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.plugins.attention.interpreted import Interpreter


@pytest.fixture(scope="session")
def interpreter() -> Iterator[Interpreter]:
    """One process that interprets kernels: it imports torch and triton before it runs the first."""
    made = Interpreter()
    yield made
    made.close()
