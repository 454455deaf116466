"""The emitted file: every name in it is defined, and what it cannot run here it passes over."""

from __future__ import annotations

import ast
import ctypes
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lepton_compile.runtime.emit import loader_source
from tests.runtime import plans, tiny
from tests.runtime.manifests import (
    FORMS,
    LOOKS,
    OF_TWO_PARTS,
    PAIRS,
    TARGETS,
    TASKS,
    all_loaders,
    all_manifests,
    manifest,
)


def faults(folder: Path) -> str:
    """What a linter says: names that are nowhere defined or defined twice, imports without use."""
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--select", "F"]
    done = subprocess.run([*command, folder], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout if done.returncode else ""


def write_all(folder: Path) -> None:
    """Every loader that there is, as modules of one folder."""
    assert len(all_loaders()) > 80
    for number, source in enumerate(all_loaders()):
        (folder / f"loader_{number}.py").write_text(source, "utf-8")


def test_none_has_what_is_for_type_checkers_alone() -> None:
    assert [source for source in all_loaders() if re.search("TYPE_CHECKING|overload", source)] == []


def test_what_a_task_always_does_asks_for_no_task() -> None:
    asks = re.compile(r"^ *if (?:self|model)\.task (?:[!=]=|in|not in) [^:]*:$", re.MULTILINE)
    kept = {found for source in all_loaders() for found in asks.findall(source)}
    assert {found for found in kept if " or " not in found} == set()
    assert asks.search('    if self.task not in ("text-generation",):\n')


def test_every_name_is_defined(tmp_path: Path) -> None:
    write_all(tmp_path)
    assert not faults(tmp_path)
    (tmp_path / "wrong.py").write_text("def f() -> None:\n    ctypes.CDLL('x')\n")
    assert "ctypes" in faults(tmp_path)


def test_each_is_imported_with_the_standard_library_alone(tmp_path: Path) -> None:
    write_all(tmp_path)
    names = {file.stem for file in tmp_path.iterdir()}
    program = (
        f"import sys; before = {{*sys.modules}}; sys.path.insert(0, {str(tmp_path)!r}); "
        f"import {', '.join(names)}; print(*{{*sys.modules}} - before)"
    )
    command = [sys.executable, "-I", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    added = {name.split(".")[0] for name in done.stdout.split()}
    assert names <= added
    assert added - names <= {*sys.stdlib_module_names}


def test_each_looks_like_the_sources_it_is_made_of(tmp_path: Path) -> None:
    write_all(tmp_path)
    ruff = [sys.executable, "-m", "ruff"]
    how = ["--isolated", "--no-cache", "--config", "line-length = 100"]
    for asked in (["format", "--check"], ["check", "--select", "E,I,W"]):
        command = [*ruff, *asked, *how, tmp_path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert not done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("task", TASKS)
def test_a_model_is_one_class_and_does_what_its_task_asks_for(task: str) -> None:
    source = loader_source(manifest(task))
    (model,) = (node for node in ast.parse(source).body if getattr(node, "name", "") == "Model")
    assert isinstance(model, ast.ClassDef)
    assert not model.bases
    found = {node.name for node in model.body if isinstance(node, ast.FunctionDef)}
    calls = {
        "feature-extraction": {"embed"},
        "question-answering": {"answer"},
        "fill-mask": {"fill", "logits"},
        "text-generation": {"generate", "logits"},
        "text2text-generation": {"generate"},
        "automatic-speech-recognition": set(),
        "token-classification": {"classify", "entities", "logits"},
        "image-classification": {"classify"},
        "image-feature-extraction": {"embed"},
        LOOKS: {"generate", "logits"},
        "other": set(),
    }
    assert {"run", "close"} <= found
    every = {"generate", "logits", "embed", "classify", "entities", "answer", "fill"}
    assert found & every == calls.get(task, {"classify", "logits"})
    told = [
        key for key in ("embedding", "labels", "entities", "words") if f'({{"{key}": ' in source
    ]
    kinds = {
        "feature-extraction": "embedding",
        "fill-mask": "words",
        "text-classification": "labels",
        "token-classification": "entities",
    }
    assert told == ([kinds[task]] if task in kinds else [])


def test_a_name_in_two_parts_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(loader_source.__globals__, "parts_for", lambda _: ("loader", "loader"))
    with pytest.raises(AssertionError, match="two parts"):
        loader_source({})


# Lines of the emitted file: what it may grow to before somebody has to look for words to save.
LINES = {
    ("feature-extraction", "ort-cpu"): 400,
    ("text-classification", "ort-cpu"): 428,
    ("fill-mask", "ort-cpu"): 444,
    ("question-answering", "ort-cpu"): 443,
    ("text-generation", "ort-cpu"): 928,
    ("text2text-generation", "ort-cpu"): 1198,
    ("automatic-speech-recognition", "ort-cpu"): 1116,
    ("text-generation", "ort-cpu", "ort-cuda"): 1107,
    ("feature-extraction", "ort-cpu", "trt-rtx"): 999,
    ("text-generation", "ort-cpu", "trt-rtx"): 1733,
    ("image-classification", "ort-cpu"): 453,
    ("image-feature-extraction", "ort-cpu"): 442,
    (LOOKS, "ort-cpu"): 1227,
    ("other", "ort-cpu"): 328,
}
LINES_OF_TILES = 86  # besides, where pictures come in them
LINES_OF_GRIDS = {"": 214, "grow": 223, "scale": 220, "fill": 138, "edge": 146}
"""Besides, where they are of any size, by the rule of that."""
MADE_BY = {
    "": ["between"],
    "grow": ["between", "grown"],
    "scale": ["between", "scaled"],
    "fill": ["filled"],
    "edge": ["bounded"],
}


@pytest.mark.parametrize("kind", LINES, ids="+".join)
def test_the_file_has_what_is_needed_and_no_more(kind: tuple[str, ...]) -> None:
    task, *targets = kind
    source = loader_source(manifest(task, tuple(targets), precision="int8", saturates=False))
    others = loader_source(manifest(task, tuple(targets), precision="int8", saturates=True))
    assert max(source.count("\n"), others.count("\n")) <= LINES[kind]
    assert ("class SharedCache" in source) == (task in ("text-generation", *OF_TWO_PARTS))
    assert ("class Pair" in source) == (task in PAIRS)
    assert ("start: Any" in source) == ("class Search" in source) == (task == PAIRS[0])
    assert ("beams" in source) == (task == PAIRS[0])
    assert ("def transcribe" in source) == (task == PAIRS[1])
    assert ("def embed" in source) == task.endswith("feature-extraction")
    assert ("PIL" in source) == task.startswith("image-")
    assert ("tokenizers" in source) == (
        task == LOOKS or (task != "other" and not task.startswith("image-"))
    )
    assert ("images: Any" in source) == ("class Seer" in source) == (task == LOOKS)
    assert ("bfloat16" in source) == bool({"ort-cuda", "trt", "trt-rtx"} & {*targets})
    assert ("class Cuda:" in source) == ("trt-rtx" in targets)


def test_what_looks_is_in_no_other_loader() -> None:
    words = re.compile(r"Seer|Pictured|def show|encoder_pixel_values|image-text-to-text|--image\b")
    sources = {given["task"]: loader_source(given) for given in all_manifests()}
    found = {task for task, source in sources.items() if words.search(source)}
    alone = {task for task in TASKS if task.startswith("image-")} - {LOOKS}  # have --image as well
    assert found == {LOOKS} | alone
    told = {task for task, source in sources.items() if "``images``: paths" in source}
    assert told == {LOOKS}
    assert not any("  # for " + task in source for task in TASKS for source in sources.values())
    others = re.compile(words.pattern.removesuffix(r"|--image\b"))
    assert not any(others.search(sources[task]) for task in alone)


def test_tiles_are_made_where_pictures_have_them() -> None:
    whole, cut = (loader_source(manifest(LOOKS, tiles=tiles)) for tiles in (False, True))
    assert "def tiled" not in whole
    assert "check_tiles" not in whole
    assert "def tiled" in cut
    assert cut.count("\n") - whole.count("\n") <= LINES_OF_TILES


@pytest.mark.parametrize("rule", FORMS)
def test_pictures_of_any_size_are_taken_where_there_are_such(rule: str) -> None:
    whole, cut = (loader_source(manifest(LOOKS, grid=grid)) for grid in (None, rule))
    assert not re.search("GridSeer|check_grids|position_offsets.*binding|def prepared", whole)
    assert "class GridSeer(Seer)" in cut
    assert "def prepared" in cut
    assert ("def offsets" in cut) == (rule in ("", "grow", "scale"))
    names = ("between", "grown", "scaled", "filled", "bounded")
    assert [name for name in names if f"def {name}(" in cut] == MADE_BY[rule]
    assert cut.count("\n") - whole.count("\n") <= LINES_OF_GRIDS[rule]


@pytest.mark.parametrize("precision", ["fp32", "int4", "int8", "auto"])
def test_engines_with_layers_in_int8_ask_whether_the_cpu_saturates(precision: str) -> None:
    for told in (None, True, False):  # what was built before engines said so goes by its precision
        source = loader_source(manifest("feature-extraction", precision=precision, saturates=told))
        asks = precision in ("int8", "auto") if told is None else told
        assert ("def saturates" in source) == ("x64quantprecision" in source) == asks


def test_rows_of_encoders_with_our_kernels_run_in_slices() -> None:
    for task in ("feature-extraction", "text-classification", "text-generation"):
        source = loader_source(manifest(task, precision="int8"))
        assert ("run_slices" in source) == (task != "text-generation")
    assert "run_slices" not in loader_source(manifest("feature-extraction", precision="int4"))


def test_positions_are_counted_for_engines_that_take_them() -> None:
    for positions in (True, False):
        source = loader_source(manifest("text-generation", positions=positions))
        assert ("def counted" in source) == ("= counted(" in source) == positions


def test_the_kind_of_cache_is_the_one_of_the_manifest() -> None:
    kinds = {True: "class SharedCache", False: "class PastCache", None: "class NoCache"}
    for shared, name in kinds.items():
        source = loader_source(manifest("text-generation", shared=shared))
        assert [other for other in kinds.values() if other in source] == [name]
        source = loader_source(manifest("text-generation", ("ort-cuda",), shared=shared))
        assert ("class GraphCache" in source) == bool(shared)


def test_calls_that_were_left_out_say_so(encoder_folder: Path, decoder_folder: Path) -> None:
    with imported(encoder_folder / "loader.py").load(encoder_folder) as model:
        for call in ("generate", "logits", "classify", "answer", "fill"):
            with pytest.raises(
                Exception,
                match=rf"no {call}\(\) for feature-extraction: call embed\(\) or run\(\)$",
            ) as caught:
                getattr(model, call)("w5")
            assert type(caught.value).__name__ == "LoaderError"
        with pytest.raises(AttributeError, match="'Model' object has no attribute 'sing'"):
            model.sing("w5")
    said = r"no embed\(\) for text-generation: call generate\(\) or logits\(\) or run\(\)$"
    decoder = imported(decoder_folder / "loader.py").load(decoder_folder)
    with decoder as model, pytest.raises(Exception, match=said):
        model.embed(["w5"])


def test_a_loader_of_another_artifact_says_that_it_lacks_the_call(
    encoder_folder: Path, decoder_folder: Path
) -> None:
    said = r"^loader.py has no generate\(\) for text-generation: call embed\(\) or run\(\)$"
    decoder = imported(encoder_folder / "loader.py").load(decoder_folder)
    with decoder as model, pytest.raises(Exception, match=said):
        model.generate("w5")


def test_an_engine_that_was_left_out_is_passed_over(tmp_path: Path) -> None:
    made = tiny.decoder(tmp_path / "both", plans={"trt-rtx": (plans.decoder_plan(), {})})
    other = tmp_path / "loader.py"
    other.write_text(loader_source(manifest("text-generation")), "utf-8")
    with imported(other).load(made.path, threads=1) as model:
        assert model.target == "ort-cpu"
        assert "take the artifact's own" in model.passed_over["trt-rtx"]


def test_each_task_and_target_is_there_to_be_tried() -> None:
    tried = {(given["task"], e["target"]) for given in all_manifests() for e in given["engines"]}
    every = {(task, target) for task in TASKS for target in TARGETS}
    assert every - tried == {(task, target) for task in OF_TWO_PARTS for target in TARGETS[1:]}


def imported(file: Path) -> Any:
    """The emitted file as a module of its own."""
    spec = importlib.util.spec_from_file_location("emitted_loader", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_a_driver_the_emitted_file_takes_the_engine_for_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cuda.bindings")
    if has_driver():
        pytest.skip("there is a driver here")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", plans.module("tensorrt_rtx", None))
    made = tiny.decoder(tmp_path / "both", plans={"trt-rtx": (plans.decoder_plan(), {})})
    with imported(made.path / "loader.py").load(made.path, threads=1) as model:
        assert model.target == "ort-cpu"
        assert "there is no NVIDIA driver here" in model.passed_over["trt-rtx"]
        assert model.generate([2, 7, 9], max_new_tokens=2).finish


def has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True
