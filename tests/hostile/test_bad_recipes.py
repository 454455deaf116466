"""Wrong recipes: each mistake is named with its line, its key and what would have been right."""

from __future__ import annotations

from pathlib import Path

import pytest

from lepton_compile.errors import RecipeError
from lepton_compile.recipe import load_recipe


def error(tmp_path: Path, text: str | bytes) -> RecipeError:
    path = tmp_path / "r.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert caught.value.exit_code == 2
    return caught.value


# text -> line, part of the message, hint
MISTAKES = [
    ("model: m\ntaskk: x", 2, "Unknown key 'taskk'", "Did you mean 'task'?"),
    (
        "model: m\nquantize:\n  bits: 4\n  grup: 32",
        4,
        "Unknown key 'quantize.grup'",
        "Did you mean 'group'?",
    ),
    (
        "model: m\nquantize:\n  bits: 4\n  rules:\n  - match: a\n    bit: 4\n    bits: 4",
        6,
        "quantize.rules.0.bit",
        "Did you mean 'bits'?",
    ),
    (
        "model: m\ntask: text-genration",
        2,
        "'task' does not take",
        "Did you mean 'text-generation'?",
    ),
    ("model: m\ntarget: ort-gpu", 2, "'target.0' does not take", "Did you mean 'ort-cpu'?"),
    ("model: m\ntarget: [ort-cpu,\n  ort-cpu]", 2, "each once", None),
    ("model: m\ntarget: []", 2, "at least one target", None),
    ("model: m\ntarget: 5", 2, "'target' takes a list", None),
    ("model: m\ntarget:", 2, "'target' takes a list of names, or one name", None),
    ("model: 5", 1, "'model' takes text", None),
    ("model: ''", 1, "at least 1 character", None),
    ("model: m\nshapes: {batch: 8..1}", 2, "'shapes.batch'", None),
    ("model: m\nshapes: {batch: 1..999999999}", 2, "ends at 16777216 at the most", None),
    ("model: m\nshapes: {batch: 1..9999999999}", 2, "ends at 16777216 at the most", None),
    ("model: m\nshapes: [1, 2]", 2, "'shapes' takes a mapping", None),
    ("model: m\ncheck: 1", 2, "'check' takes true or false", None),
    ("model: m\ngates:\n  cosine: 2", 3, "less than or equal to 1", None),
    ("model: m\ngates:\n  cosine: high", 3, "'gates.cosine' takes a number", None),
    ("model: m\ngates:\n  perplexity: some", 3, "write a share", None),
    ("model: m\ngates:\n  perplexity: 6", 3, "written with its sign", "6 % is 6% or 0.06"),
    ("model: m\ngates:\n  perplexity: 600", 3, "written with its sign", "null is no demand at all"),
    ("model: m\ngates:\n  max_error: 2.5", 3, "written with its sign", "2.5 % is 2.5% or 0.025"),
    ("model: m\ngates:\n  argmax: 90", 3, "'gates.argmax': a share above", "90 % is 90% or 0.9"),
    ("model: m\ngates:\n  argmax: 150%", 3, "less than or equal to 1", None),
    (
        "model: m\nper_target: {ort-cpu: {gates: {argmax: 90}}}",
        2,
        "'per_target.ort-cpu.gates.argmax': a share above",
        "90 % is 90% or 0.9",
    ),
    ("model: m\nverify: {tokens: 1.5}", 2, "'verify.tokens' takes a whole number", None),
    ("model: m\nverify: {tokens: 0}", 2, "greater than or equal to 2", None),
    ("model: m\npasses: {expect: {attention: many}}", 2, "passes.expect.attention", None),
    ("model: m\npasses: {expect: {attention: -1}}", 2, "passes.expect.attention", None),
    (
        "model: m\npasses:\n  disable: [fuse-gelu]\n  expect:\n    fuse-gelu: 2",
        5,
        "passes.disable leaves out 'fuse-gelu', and passes.expect has it fire",
        "take it out of one of them",
    ),
    ('model: "m\\0"', 1, "no null character", None),
    ("model: m\nquantize: int5", 2, "unknown precision 'int5'", "Did you mean 'int8'?"),
    ("model: m\nquantize: INT4", 2, "unknown precision 'INT4'", "Did you mean 'int4'?"),
    ("model: m\nquantize: int4-awq", 2, "unknown", "quantize: {algorithm: awq, bits: 4}"),
    ("model: m\nquantize: 8", 2, "unknown precision 8", "Did you mean 'int8'?"),
    ("model: m\nquantize: 16", 2, "unknown precision 16", "Did you mean 'fp16'?"),
    ("model: m\nquantize: '4'", 2, "unknown precision '4'", "Did you mean 'int4'?"),
    ("model: m\nquantize: q8_0", 2, "unknown precision 'q8_0'", "Did you mean 'int8'?"),
    ("model: m\nquantize: off", 2, "unknown precision False", "quantize: none"),
    ("model: m\nquantize: 4.5", 2, "unknown precision 4.5", None),
    ("model: m\nquantize: [8]", 2, "'quantize' takes a mapping", None),
    (
        "model: m\nper_target: {trt: {quantize: 8}}",
        2,
        "'per_target.trt.quantize': unknown precision 8",
        "Did you mean 'int8'?",
    ),
    ("model: m\nverify: 5", 2, "'verify': write true, false, or a mapping", None),
    ("model: m\nverify:", 2, "'verify': write true, false, or a mapping", None),
    ("model: m\nquantize: {algorithm: rtn}", 2, "needs bits", None),
    ("model: m\nquantize: {algorithm: gptq, bits: 8}", 2, "gptq needs bits: 4", None),
    ("model: m\nquantize: {algorithm: awq, bits: 8}", 2, "awq needs bits: 4", None),
    ("model: m\nquantize: {algorithm: gptq}", 2, "gptq needs bits: 4", None),
    ("model: m\nquantize: {bits: 8, group: 32}", 2, "group is for bits: 4", None),
    ("model: m\nquantize: {algorithm: auto, group: 64}", 2, "auto has groups of its own", None),
    ("model: m\nquantize: {algorithm: fp16, group: 64}", 2, "fp16 have no groups", None),
    (
        "model: m\nquantize:\n  bits: 4\n  rules:\n  - {match: a, bits: none, group: 32}",
        5,
        "group is for bits: 4; weights in floating point have no groups",
        None,
    ),
    (
        "model: m\nquantize: {bits: '4'}",
        2,
        "'quantize.bits' takes a number",
        "write 4 without quotes",
    ),
    (
        "model: m\nquantize: {bits: 4, rules: [{match: a, bits: '8'}]}",
        2,
        "'quantize.rules.0.bits' takes a number",
        "write 8 without quotes",
    ),
    ("model: m\nquantize: {bits: 4, group: 48}", 2, "'quantize.group' does not take", None),
    ("model: m\nquantize: {algorithm: none, bits: 4}", 2, "bits is for algorithm: rtn", None),
    ("model: m\nquantize: fp16", 2, "cannot be built in this precision", None),
    ("model: m\nmax_memory: lots", 2, "amount of memory", None),
    ("model: m\nmodel: n", 2, "A key stands twice", None),
    ("model: m\nshapes:\n  batch: 1\n  batch: 2", 4, "A key stands twice", None),
    ("model: m\n5: x", 2, "A key of a recipe is a word", None),
    ("model: m\n? [a]\n: b", 2, "A key of a recipe is a word", None),
    ("model: [unclosed", 1, "not valid YAML", None),
    ("model: m\n\tcheck: true", 2, "not valid YAML", None),
    ("model: *nothing", 1, "not valid YAML", None),
    ("- model", 1, "a mapping", None),
    ("", 1, "a mapping", None),
]


@pytest.mark.parametrize(("text", "line", "message", "hint"), MISTAKES)
def test_named_with_its_line(
    text: str, line: int, message: str, hint: str | None, tmp_path: Path
) -> None:
    found = error(tmp_path, text)
    assert message in found.message
    assert found.where == f"{tmp_path / 'r.yaml'}:{line}"
    if hint is not None:
        assert found.hint == hint


@pytest.mark.parametrize("given", [8, True, 4.5, "int5"])
def test_what_is_no_precision_is_told_as_it_was_given(given: object) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe({"model": "m", "quantize": given})
    assert caught.value.found == repr(given)
    assert {"int4", "int8", "none"} <= {*caught.value.available}


def test_missing_model(tmp_path: Path) -> None:
    assert "'model' is missing" in error(tmp_path, "task: fill-mask").message


def test_all_mistakes_at_once_in_the_order_of_lines(tmp_path: Path) -> None:
    found = error(tmp_path, "model: m\ngates: {cosine: x}\ntusk: a\nchekc: true\n").message
    assert "3 mistakes" in found
    positions = [found.index(f"r.yaml:{line}") for line in (2, 3, 4)]
    assert positions == sorted(positions)


def test_a_bomb_of_aliases(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert "too large" in error(tmp_path, "\n".join(lines)).message


@pytest.mark.parametrize("depth", [100, 100_000])
def test_a_deep_recipe(depth: int, tmp_path: Path) -> None:
    found = error(tmp_path, "model: " + "[" * depth + "]" * depth)
    assert "too large" in found.message or "not valid YAML" in found.message


def test_an_alias_inside_itself(tmp_path: Path) -> None:
    assert "too large" in error(tmp_path, "model: &a [*a]").message


def test_a_large_file(tmp_path: Path) -> None:
    assert "too large" in error(tmp_path, "model: " + "m" * (2 << 20)).message


def test_not_text(tmp_path: Path) -> None:
    assert "cannot be read" in error(tmp_path, b"model: \xff\xfe").message


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="a folder, not a recipe") as caught:
        load_recipe(tmp_path)
    assert f"--model {tmp_path}" in str(caught.value.hint)


def test_a_folder_with_the_name_of_a_shipped_recipe_is_not_in_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "minilm" / "ort-cpu-int8").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert load_recipe("minilm/ort-cpu-int8").quantize.bits == 8
    with pytest.raises(RecipeError, match="a folder, not a recipe"):
        load_recipe("minilm")
