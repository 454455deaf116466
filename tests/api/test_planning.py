"""A plan is what a build does: its passes, what they decline, its ops, files, and what is told."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

import lepton_compile as lc
from lepton_compile.api import estimates, planning
from tests.export.harness import save
from tests.export.zoo_pairs import PAIRS
from tests.small import bert, byte_tokenizer, llama, saved

PAIR = "text2text-generation"
HOW: dict[str, Any] = {"verify": False, "check": False, "tactics": "default"}


def _written(folder: Path) -> Counter[str]:
    """How often each op occurs in graphs that a build wrote."""
    found: Counter[str] = Counter()
    for file in folder.rglob("*.onnx"):
        model = onnx.load(file, load_external_data=False)
        functions = {(f.domain, f.name): f.node for f in model.functions}
        assert not functions, "layers are inlined"
        found.update(
            f"{n.domain}::{n.op_type}" if n.domain else n.op_type for n in model.graph.node
        )
    return found


# Of masks and positions, which both graphs of a pair read.
MADE_TWICE = {
    "Add", "Cast", "Concat", "Constant", "Expand", "GatherND", "Range", "Shape", "Squeeze",
    "Unsqueeze",
}  # fmt: skip
ONE_KIND = "2 layers, 1 kind traced once each"
MODELS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "decoder": (lambda folder: saved("LlamaForCausalLM", llama(), folder), ONE_KIND),
    "encoder": (lambda folder: saved("BertModel", bert(), folder), ONE_KIND),
    "bart": (
        lambda folder: save(PAIRS["bart"][0], PAIR, folder),
        "5 layers, 2 kinds traced once each",
    ),
    "t5": (
        lambda folder: save(PAIRS["t5"][0], PAIR, folder),
        "traced whole, attention not captured",
    ),
}


@pytest.mark.parametrize("quantize", ["none", "int8", "int4"])
@pytest.mark.parametrize("kind", MODELS)
def test_a_plan_is_what_a_build_does(kind: str, quantize: str, tmp_path: Path) -> None:
    make, layers = MODELS[kind]
    make(tmp_path / "model")
    named = {"model": str(tmp_path / "model"), "quantize": quantize, **HOW}
    plan = lc.plan(**named, output=tmp_path / "out")
    built = lc.build(**named, output=tmp_path / "out")
    report = json.loads((built.path / "report.json").read_text())
    (engine,), (made,) = plan.engines, report["engines"]
    assert plan.output == str(built.path)
    assert (plan.task, plan.how) == (report["task"], report["capture"]["how"])
    assert plan.architecture == report["model"]["architecture"]
    assert plan.parameters == report["model"]["parameters"]
    assert plan.layers == layers
    assert (engine.target, engine.precision) == (made["target"], made["precision"])
    assert engine.passes == {p["name"]: p["fired"] for p in report["passes"] if p["fired"]}
    declined = [
        (p["name"], r["node"], r["reason"]) for p in report["passes"] for r in p["refusals"]
    ]
    assert [(r["pass"], r["node"], r["reason"]) for r in engine.refusals] == declined
    assert engine.missing == []
    written = _written(built.path)
    if report["task"] == PAIR:
        written = Counter({op: n for op, n in written.items() if op not in MADE_TWICE})
    assert {op: n for op, n in engine.ops.items() if op in written} == written
    assert engine.ops.keys() - written.keys() <= MADE_TWICE
    sizes = {f["name"]: f["size"] for f in report["files"] if f["name"] in made["files"]}
    assert plan.files == pytest.approx(sizes, rel=0.15)
    remarks = [said for said in report["remarks"] if "left out as asked" not in said]
    assert plan.notes == [*report["capture"]["notes"], *remarks]


@pytest.mark.parametrize("sampled", [{"activations": "static"}, {"cache": "int8"}])
def test_a_plan_has_the_memory_of_a_sample_that_is_run(
    sampled: dict[str, str], tmp_path: Path
) -> None:
    llama().save_pretrained(tmp_path)
    more, plain = (
        lc.plan(model=tmp_path, task="text-generation", target="trt-rtx", quantize=quantize)
        for quantize in ({"bits": 8, **sampled}, {"bits": 8})
    )
    assert more.peak_memory_bytes > plain.peak_memory_bytes


def test_a_plan_has_the_memory_of_scores_by_which_bits_are_chosen(tmp_path: Path) -> None:
    """And of their derivatives, of as many tokens as are looked at."""
    words = 50_000
    llama(vocab_size=words, max_position_embeddings=256).save_pretrained(tmp_path)
    byte_tokenizer(tmp_path)
    short, longer, longest = (
        lc.plan(
            model=tmp_path, task="text-generation", quantize="auto", shapes={"sequence": length}
        ).peak_memory_bytes
        for length in (8, 128, 256)
    )
    assert longer - short == 2 * 4 * (128 - 8) * words
    assert longest == longer


def test_a_plan_adds_up_its_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And compares those alone that run here."""
    bert().save_pretrained(tmp_path)
    monkeypatch.setattr(planning, "PARAMETERS_PER_SECOND", 1e-6)  # a capture takes no time beside
    refused = {"trt-rtx": "there is no GPU", "ort-cpu": ""}
    monkeypatch.setattr(planning, "runnable", lambda targets: {t: refused[t] for t in targets})
    given: dict[str, Any] = {"model": tmp_path, "task": "feature-extraction"}
    alone, gpu, both = (
        lc.plan(**given, target=target) for target in ("ort-cpu", "trt-rtx", ["ort-cpu", "trt-rtx"])
    )
    assert both.files == alone.files | gpu.files
    assert both.seconds == pytest.approx(2e6 * both.parameters)
    assert both.peak_memory_bytes == max(alone.peak_memory_bytes, gpu.peak_memory_bytes)
    assert alone.peak_memory_bytes != gpu.peak_memory_bytes
    assert (gpu.verify, both.verify) == (None, alone.verify)


@pytest.mark.parametrize(
    ("tokens", "own", "compared"),
    [(100, False, 100), (9_000, False, planning.SAMPLE_TOKENS), (9_000, True, 9_000)],
)
def test_a_plan_compares_as_many_tokens_as_there_are(
    tokens: int, own: bool, compared: int, tmp_path: Path
) -> None:
    llama().save_pretrained(tmp_path)
    (tmp_path / "mine.txt").write_text("A text.")
    text = {"text": str(tmp_path / "mine.txt")} if own else {}
    plan = lc.plan(model=tmp_path, task="text-generation", verify={"tokens": tokens, **text})
    assert plan.verify is not None
    seconds = plan.parameters * compared / estimates.COMPARED_PER_SECOND
    assert plan.verify.seconds == pytest.approx(seconds)


def test_a_plan_tells_what_a_ceiling_has_no_room_for(tmp_path: Path) -> None:
    """It said nothing of the ceiling, which a build keeps to."""
    model = str(saved("BertModel", bert(), tmp_path / "model"))

    def told(ceiling: int | None) -> list[str]:
        return lc.plan(model=model, tactics="default", max_memory=ceiling).notes

    assert told(None) == told(10**12)
    below, check, verification = told(4)
    assert below.endswith("more than the ceiling of 4 bytes, and may fail: raise --max-memory")
    assert check.startswith("passes will not be compared: the fp32 model needs about")
    assert verification.startswith("engines will not be verified: the fp32 model needs about")
