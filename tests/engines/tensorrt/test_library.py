"""The folder of links through which the parser finds the library's other name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lepton_compile.engines.tensorrt.child.library import MISSING, PARSER, RUNTIME, link, trt

pytest.importorskip("tensorrt_rtx")

LOAD = """
import sys
from pathlib import Path
from lepton_compile.engines.tensorrt.child.library import PARSER, load, trt
load("tensorrt_rtx", "tensorrt_rtx_libs", Path(sys.argv[1]))
maps = Path("/proc/self/maps").read_text().splitlines()
print(sum(PARSER.split(".so")[0] in line for line in maps) > 0, trt.Builder.__name__)
"""


def test_every_name_leads_to_a_file(tmp_path: Path) -> None:
    folder = link("tensorrt_rtx_libs", tmp_path / "links")
    assert {each.name for each in folder.iterdir()} == {RUNTIME, PARSER, MISSING}
    assert (folder / MISSING).resolve() == (folder / RUNTIME).resolve()
    assert all((folder / name).is_file() for name in (RUNTIME, PARSER))
    assert (folder.stat().st_mode & 0o077) == 0
    assert link("tensorrt_rtx_libs", folder) == folder


def test_a_package_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ImportError, match="tensorrt_nowhere"):
        link("tensorrt_nowhere", tmp_path / "links")
    assert not (tmp_path / "links").exists()


def test_nothing_of_it_is_used_before_it_is_loaded() -> None:
    with pytest.raises(RuntimeError, match="load\\(\\) comes before"):
        _ = trt.Builder


def test_it_is_loaded_through_the_links(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "links")],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(filter(None, sys.path)), "PATH": ""},
    )
    assert done.stdout.split() == ["True", "Builder"]
