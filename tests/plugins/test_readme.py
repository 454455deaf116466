"""What a plugin's README promises: fixed headings, and every name of its spec."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import lepton_plugins
from lepton_plugins.spec import PLUGINS, plugin_spec

FOLDER = Path(lepton_plugins.__path__[0])
HEADINGS = ["What", "Inputs", "Outputs", "Parameters", "Limits", "Faces", "Tests"]


def readme(plugin: str) -> dict[str, str]:
    """Sections by heading."""
    text = (FOLDER / plugin / "README.md").read_text("utf-8")
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("plugin", PLUGINS)
def test_the_headings_are_those_of_every_plugin(plugin: str) -> None:
    found = list(readme(plugin))
    assert found[: len(HEADINGS)] == HEADINGS
    assert found[len(HEADINGS) :] in ([], ["Not executed yet"])


@pytest.mark.parametrize("plugin", PLUGINS)
def test_every_name_of_the_spec_is_under_its_heading(plugin: str) -> None:
    sections, spec = readme(plugin), plugin_spec(plugin)
    for heading, names in (
        ("Inputs", spec.inputs),
        ("Outputs", spec.outputs),
        ("Parameters", spec.attributes),
    ):
        said = set(re.findall(r"`(\w+)`", sections[heading]))
        assert {each.name for each in names} <= said, heading


@pytest.mark.parametrize("plugin", PLUGINS)
def test_every_file_that_is_named_exists(plugin: str) -> None:
    sections = readme(plugin)
    folder, tests = FOLDER / plugin, Path(__file__).parent / plugin
    faces = re.findall(r"`((?:csrc/)?\w+\.(?:py|cpp))`", sections["Faces"])
    assert len(faces) >= 2
    assert [name for name in faces if not (folder / name).is_file()] == []
    named = re.findall(r"`(test_\w+\.py)`", sections["Tests"])
    assert named
    assert [name for name in named if not (tests / name).is_file()] == []
