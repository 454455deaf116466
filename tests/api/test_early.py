"""What a recipe shows to be wrong by itself is told before anything is captured."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

import lepton_compile as lc
from lepton_compile.api.texts import LARGEST, read_text
from lepton_compile.engines.probe import probe
from lepton_compile.errors import EngineError, RecipeError
from tests.small import bert, byte_tokenizer, llama, saved


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"compute_capabilities": ["9.0"]}, RecipeError, "builds no engine for .* 9.0"),
        ({"compute_capabilities": [8.65]}, RecipeError, "builds no engine for .* 8.65"),
        ({"compute_capabilities": [89]}, RecipeError, "'89' is no compute capability"),
        (
            {"compute_capabilities": ["7.5"], "compute": "bf16"},
            EngineError,
            "no arithmetic for BFLOAT16",
        ),
        ({"compute_capabilities": ["7.5"], "quantize": "int4"}, EngineError, "arithmetic for INT4"),
    ],
    ids=["gpu", "no gpu", "form", "arithmetic", "weights"],
)
def test_gpus_are_checked_before_the_capture(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    # No weights at all: whoever came as far as the capture would miss them.
    transformers.BertConfig(num_hidden_layers=1).save_pretrained(tmp_path)
    progress = _Stages()
    with pytest.raises(error, match=message) as caught:
        lc.plan(
            model=str(tmp_path),
            task="feature-extraction",
            target="trt-rtx",
            progress=progress,
            **options,
        )
    assert getattr(caught.value, "where", None) == "compute_capabilities"
    assert "capture" not in progress.seen


def test_a_pass_that_nobody_knows_is_told_before_the_model_is_looked_for() -> None:
    with pytest.raises(RecipeError, match="there is no pass 'gulu'"):
        lc.build(model="./not-there", passes={"disable": ["gulu"]})


@pytest.mark.parametrize(
    "options",
    [
        {"profiles": "joint"},
        {"target": ["ort-cpu", "ort-cuda"], "profiles": "joint"},
        {"target": ["ort-cpu", "trt"], "per_target": {"ort-cpu": {"profiles": "joint"}}},
    ],
    ids=["default target", "targets", "per target"],
)
def test_profiles_where_no_engine_has_them(options: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="only engines of TensorRT have profiles") as caught:
        lc.plan(model="./not-there", **options)
    place = "per_target.ort-cpu." if "per_target" in options else ""
    assert caught.value.where == f"{place}profiles"
    assert caught.value.available == ("target: trt-rtx", "target: trt")
    assert str(caught.value.found).startswith("joint, for ort-cpu")


@pytest.mark.parametrize("call", [lc.build, lc.plan])
@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"verify": {"text": "t"}}, "verify.text"),
        ({"gates": {"cosine": 0.9}}, "gates.cosine"),
        ({"pooling": "mean"}, "pooling"),
    ],
)
def test_what_a_call_says_is_held_to_the_same(
    call: Callable[..., object], options: dict[str, Any], where: str
) -> None:
    with pytest.raises(RecipeError, match="this changes nothing here: an ONNX file") as caught:
        call(model="./not-there.onnx", **options)
    assert caught.value.where == where


@pytest.mark.parametrize("call", [lc.build, lc.plan])
def test_what_the_model_has_no_use_for_is_told_before_the_capture(
    tmp_path: Path, call: Callable[..., object]
) -> None:
    """Its task is in the model's configuration, and not in the recipe."""
    model = saved("BertForMaskedLM", bert(), tmp_path / "model")
    progress = _Stages()
    options = {"pooling": "mean", "gates": {"perplexity": 0.1}, "progress": progress}
    with pytest.raises(RecipeError, match=r"(?s)2 mistakes.*fill-mask.*fill-mask") as caught:
        call(model=str(model), **options)
    assert "perplexity" in caught.value.message
    assert progress.seen == ["resolve"]


@pytest.mark.parametrize("call", [lc.build, lc.plan])
def test_an_embedding_that_is_not_made_is_not_normalized_in_silence(
    tmp_path: Path, call: Callable[..., object]
) -> None:
    model = saved("BertModel", bert(), tmp_path / "model")
    with pytest.raises(RecipeError, match="no sentence embedding to normalize") as caught:
        call(model=str(model), normalize=True)
    assert caught.value.where == "normalize"
    assert "pooling: mean" in caught.value.available
    lc.plan(model=str(model), normalize=True, pooling="mean")
    lc.plan(model=str(model), normalize=False)


@pytest.mark.skipif(probe("trt").builds, reason="this machine builds for TensorRT")
def test_a_target_that_cannot_be_built_is_told_before_the_others_are_made() -> None:
    progress = _Stages()
    with pytest.raises(EngineError, match="trt cannot be built on this machine") as caught:
        lc.build(model="./not-there", target=["ort-cpu", "trt"], progress=progress)
    assert caught.value.found == probe("trt").reason
    assert "ort-cpu" in caught.value.available
    assert "trt" not in caught.value.available
    assert progress.seen == []


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b" \n\n\t\n", "is empty"), (b"\xff", "cannot be read")],
    ids=["empty", "blank", "no text"],
)
@pytest.mark.parametrize("call", [lc.build, lc.plan])
def test_a_text_without_words_is_told_before_the_model_is_looked_for(
    tmp_path: Path, content: bytes, message: str, call: Callable[..., object]
) -> None:
    words = tmp_path / "words.txt"
    words.write_bytes(content)
    with pytest.raises(RecipeError, match=f"the text to verify on {message}") as caught:
        call(model="./not-there", verify={"text": str(words)})
    assert caught.value.where == "verify.text"
    assert str(words) in str(caught.value.found)


@pytest.mark.parametrize("call", [lc.build, lc.plan])
def test_a_text_that_never_ends_is_refused(tmp_path: Path, call: Callable[..., object]) -> None:
    """A device was read until memory was full, a pipe was waited for."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero"), tmp_path):
        with pytest.raises(RecipeError, match="the text to verify on cannot be read") as caught:
            call(model="./not-there", verify={"text": str(path)})
        assert caught.value.where == "verify.text"
        assert caught.value.found == f"{path}: it is no regular file"
        assert "a sample ships" in str(caught.value.hint)


@pytest.mark.parametrize("call", [lc.build, lc.plan])
def test_a_text_of_more_than_can_be_compared_is_refused(
    tmp_path: Path, call: Callable[..., object]
) -> None:
    words = tmp_path / "words.txt"
    words.write_text("ab")
    os.truncate(words, LARGEST)
    assert read_text(words).startswith("ab")
    os.truncate(words, 10**12)
    with pytest.raises(RecipeError, match="the text to verify on cannot be read") as caught:
        call(model="./not-there", verify={"text": str(words)})
    assert caught.value.where == "verify.text"
    assert "it has 1,000,000 MB; at most 16 MB" in str(caught.value.found)


def test_a_decoder_needs_a_token_and_the_next(tmp_path: Path) -> None:
    # No weights, as above.
    llama(vocab_size=260, architectures=["LlamaForCausalLM"]).save_pretrained(tmp_path)
    byte_tokenizer(tmp_path)
    words = tmp_path / "words.txt"
    words.write_text("a")
    progress = _Stages()
    with pytest.raises(RecipeError, match="no token that follows another") as caught:
        lc.plan(model=str(tmp_path), verify={"text": str(words)}, progress=progress)
    assert caught.value.found == str(words)
    assert progress.seen == ["resolve"]
    words.write_text("ab")
    lc.plan(model=str(tmp_path), verify={"text": str(words)})


def test_a_build_of_a_text_of_one_token_ends_before_the_capture(tmp_path: Path) -> None:
    model = saved("LlamaForCausalLM", llama(vocab_size=260), tmp_path / "model")
    byte_tokenizer(model)
    (tmp_path / "words.txt").write_text("a")
    progress, text = _Stages(), {"text": str(tmp_path / "words.txt")}
    with pytest.raises(RecipeError, match="no token that follows another"):
        lc.build(model=str(model), verify=text, output=tmp_path / "out", progress=progress)
    assert progress.seen == ["resolve"]
    assert not (tmp_path / "out").exists()


class _Stages:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def stage(self, name: str, detail: str = "") -> None:
        self.seen.append(name)

    def step(self, what: str, done: int, total: int) -> None:
        """Not needed."""


def test_each_target_is_checked_with_what_is_its_own() -> None:
    """ort-cuda has no fp8, and does not need it where int8 is its own."""
    from lepton_compile.api.early import check_early
    from lepton_compile.recipe import load_recipe

    mixed = {
        "model": "./m",
        "target": ["ort-cuda", "trt-rtx"],
        "quantize": "fp8",
        "per_target": {"ort-cuda": {"quantize": "int8"}},
    }
    check_early(load_recipe(mixed))
    check_early(load_recipe({**mixed, "profiles": "joint"}))
    with pytest.raises(RecipeError, match="ort-cuda has no passes for this precision"):
        check_early(load_recipe({**mixed, "per_target": {}}))


# What a recipe says after its model and task -> what is told, at its last line.
LATE = [
    ("shapes:\n  batch: 4\n  sequence: 1..65", "asks for longer sequences than the model can take"),
    ("shapes:\n  batch: 4\n  sequence: 1..4", "shorter than what a model is traced with"),
    ("target: trt-rtx\ncompute_capabilities: [8.65]", "builds no engine for compute capability"),
    (
        "target: trt-rtx\nper_target:\n  trt-rtx:\n    compute_capabilities: [8.65]",
        "builds no engine for compute capability",
    ),
    (
        "quantize:\n  bits: 8\n  rules:\n  - {match: '*.query.*', bits: 4}\n  - bits: 4\n"
        "    match: '*.qury.weight'",
        "a rule matches no parameter that BertModel reads",
    ),
    ("verify:\n  tokens: 40\n  text: nowhere.txt", "the text to verify on cannot be read"),
]


@pytest.mark.parametrize("call", [lc.build, lc.plan])
@pytest.mark.parametrize(("said", "message"), LATE)
def test_what_shows_beside_the_model_is_told_at_its_line(
    tmp_path: Path, said: str, message: str, call: Callable[..., object]
) -> None:
    saved("BertModel", bert(), tmp_path / "model")
    text = f"model: ./model\ntask: feature-extraction\n{said}\n"
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(RecipeError, match=message) as caught:
        call(tmp_path / "r.yaml", output=tmp_path / "out")
    assert caught.value.where == f"{tmp_path / 'r.yaml'}:{len(text.splitlines())}"
    assert not (tmp_path / "out").exists()
