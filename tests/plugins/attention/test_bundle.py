"""Several modules as one."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from lepton_plugins.attention import bundle as bundling
from lepton_plugins.attention.bundle import bundle
from lepton_plugins.spec import PluginError

FIRST = '''"""Adds."""

from __future__ import annotations

import math

__all__ = ["add"]


# Why it adds.
def add(a: int, b: int) -> int:
    return math.floor(a + b)
'''
SECOND = '''"""Doubles.

With what adds.
"""

from __future__ import annotations

import math
from small.first import add

__all__ = ["double"]

ZERO: int = math.floor(0.5)


def double(a: int) -> int:
    from small.first import add

    return add(add(a, a), ZERO)
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "first.py").write_text(FIRST)
    (folder / "second.py").write_text(SECOND)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "small", raising=False)  # another test's, elsewhere
    monkeypatch.setattr(bundling, "_PACKAGE", "small")
    return folder


def test_one_module_does_what_the_two_did(package: Path) -> None:
    text = bundle("small.second", "Both.", ("double",))
    assert "small.first" not in sys.modules, "sources are read, not imported"
    module = ModuleType("bundled")
    exec(compile(text, "bundled.py", "exec"), module.__dict__)
    assert module.double(21) == 42
    assert module.__doc__ == "Both."
    assert module.__all__ == ["double"]
    assert text.index("def add") < text.index("def double"), "what is needed comes first"
    assert "# Why it adds." in text
    assert "# With what adds." in text
    assert "from small" not in text
    assert text.count("import math") == 1


def test_a_name_that_means_two_things_is_refused(package: Path) -> None:
    (package / "first.py").write_text(FIRST + "\n\nZERO = 1\n")
    with pytest.raises(PluginError, match="two modules define one name") as caught:
        bundle("small.second", "Both.", ("double",))
    assert caught.value.found == "ZERO"
