"""The wheel: what is in it, and that it works in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.sources import REPOSITORY, SOURCE_ROOTS

pytestmark = pytest.mark.slow

# What `--help`, the recipes and the loader need; torch and the like only come in with a build.
LIGHT_REQUIREMENTS = ("numpy", "click", "rich", "pyyaml", "pydantic")


def run(*command: object) -> str:
    """Standard output of ``command``, run outside the checkout; its errors on failure."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(str(command[0])).parent,
        env=environment,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", folder, REPOSITORY)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment that holds the wheel and the light requirements."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=True)
    interpreter = folder / "bin" / "python"
    pins = ("--constraint", REPOSITORY / "constraints.txt")
    pip = (interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, "--no-deps", wheel)
    run(*pip, "--no-compile", *pins, *LIGHT_REQUIREMENTS)
    return interpreter


def test_it_holds_the_four_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert top == set(SOURCE_ROOTS)
    assert wheel.name.endswith("-py3-none-any.whl")
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_every_source_file_is_in_it(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for package, root in SOURCE_ROOTS.items():
        files = [p for p in (root / package).rglob("*") if p.suffix in {".py", ".yaml", ".typed"}]
        assert {str(path.relative_to(root)) for path in files} <= names


def test_the_packages_import(python: Path) -> None:
    run(python, "-c", f"import {', '.join(SOURCE_ROOTS)}")


def test_the_command_line_helps(python: Path) -> None:
    assert "build" in run(python.with_name("lepton-compile"), "--help")


def test_the_recipes_are_found(python: Path) -> None:
    program = (
        "from importlib.resources import files\n"
        "print(*[r.name for f in files('lepton_recipes').iterdir() if f.is_dir()"
        " for r in f.iterdir() if r.name.endswith('.yaml')])"
    )
    in_checkout = (REPOSITORY / "recipes" / "lepton_recipes").glob("*/*.yaml")
    assert sorted(run(python, "-c", program).split()) == sorted(path.name for path in in_checkout)
