"""The command line loads less, an import of somebody else's process loads it all."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

PROGRAM = """
import json, sys
from lepton_compile.api import libraries
if {own}:
    libraries.own_process()
with libraries.loading():
    import lepton_compile.api.building
import transformers
from transformers.utils import import_utils, is_scipy_available
print(json.dumps({{
    "loaded": [name for name in ("scipy", "triton") if name in sys.modules],
    "scipy": is_scipy_available(),
    "restored": import_utils.create_import_structure_from_path.__module__,
    "models": sorted(transformers.models.__dir__())[:400],
    "llama": transformers.models.llama.modeling_llama.LlamaModel.__name__,
}}))
"""


def loaded(*, own: bool) -> dict[str, object]:
    command = [sys.executable, "-c", PROGRAM.format(own=own)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def whole() -> dict[str, object]:
    return loaded(own=False)


def test_a_process_of_its_own_leaves_out_what_no_build_calls(whole: dict[str, object]) -> None:
    installed = [name for name in ("scipy", "triton") if find_spec(name) is not None]
    assert whole["loaded"] == installed
    lean = loaded(own=True)
    assert lean["loaded"] == []
    # What it was told while it loaded is taken back, and its models are all there.
    assert {**lean, "loaded": installed} == whole
    assert whole["llama"] == "LlamaModel"


def test_the_question_after_scipy_is_answered_truly(whole: dict[str, object]) -> None:
    assert whole["scipy"] == (find_spec("scipy") is not None)
    assert whole["restored"] == "transformers.utils.import_utils"


TOLD = """
from lepton_compile.api import libraries
class Told:
    def stage(self, name, detail=""): print(name, detail)
    def step(self, what, done, total): print(what)
for again in range(2):
    with libraries.loading(Told()):
        pass
"""


def test_the_seconds_of_loading_are_a_stage_and_only_where_there_is_something_to_load() -> None:
    """A display showed nothing for them: a third of a small build."""
    done = subprocess.run([sys.executable, "-c", TOLD], capture_output=True, text=True, check=True)
    assert done.stdout == "load torch and transformers\n"
