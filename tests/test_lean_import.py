"""Importing the light parts loads none of the heavy libraries: checked in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "onnx", "onnxruntime", "onnx_ir", "onnxscript", "optimum")

LIGHT = (
    "lepton_compile",
    "lepton_compile.errors",
    "lepton_compile.artifact",
    "lepton_compile.recipe",
    "lepton_compile.runtime",
    "lepton_compile.runtime.loader",
    "lepton_compile.cli",
)


def loaded_by(statement: str) -> list[str]:
    """The heavy libraries that are in ``sys.modules`` after ``statement``."""
    program = f"""
{statement}
import json, sys
print(json.dumps([name for name in {HEAVY} if name in sys.modules]))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def test_what_a_script_catches_is_light() -> None:
    names = ("LeptonError", "GateError", "LoaderError", "Model", "Artifact")
    assert loaded_by("import lepton_compile as lc; " + "; ".join(f"lc.{n}" for n in names)) == []


@pytest.mark.parametrize("name", LIGHT)
def test_import_is_light(name: str) -> None:
    assert loaded_by(f"import {name}") == []


def test_a_model_that_is_not_there_is_told_before_torch_is_loaded() -> None:
    program = """
import lepton_compile as lc
for call in (lc.build, lc.plan):
    try:
        call(model="no/such/model")
    except lc.LeptonError as error:
        assert "does not exist" in error.message
"""
    assert not {"torch", "transformers"} & {*loaded_by(program)}


def test_a_manifest_is_read_again_before_torch_is_loaded() -> None:
    """``loading`` comes after it, and leaves out of torch what nobody here needs."""
    assert not {"torch", "transformers"} & {*loaded_by("import lepton_compile.api.recorded")}


def test_the_check_sees_a_heavy_library() -> None:
    assert "onnx" in loaded_by("import onnx")
