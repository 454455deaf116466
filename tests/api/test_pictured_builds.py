"""Vision-language models, from a folder to an artifact: bits, gates, reports, and a shell."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import lepton_compile as lc
from lepton_compile.cli import main
from lepton_compile.errors import (
    ArtifactError,
    ExportError,
    GateError,
    RecipeError,
    SourceError,
    UsageError,
)
from lepton_compile.runtime import LoaderError
from lepton_compile.serving import export_genai, export_triton
from tests.pictured import QUANTIZED, TOKEN, Case, Theirs, check_quantized, made, pictures, saved

NEW = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("llava", tmp_path_factory.mktemp("llava"))


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


def test_the_manifest_and_the_report_say_what_it_is(smolvlm: Case) -> None:
    manifest = json.loads((smolvlm.folder / "manifest.json").read_text())
    told = manifest["generation"]["pictures"]
    assert manifest["task"] == "image-text-to-text"
    assert (told["placeholder"], told["tokens"]) == (TOKEN, 4)
    assert manifest["image"]["tiles"] == {"kind": "longest-edge", "most": 4, "edge": 64}
    assert manifest["cache"]["shared"]
    assert manifest["cache"]["pieces"]
    (engine,) = manifest["engines"]
    assert engine["encoder"] in engine["files"]
    assert engine["compared"] == {"passes": True, "engine": True}
    verified = report(smolvlm.folder)["verify"]
    assert verified["sample"] == "the sample text, behind synthetic images"
    assert verified["decode_agreement"] == 1.0
    assert verified["perplexity"] == pytest.approx(verified["reference_perplexity"], rel=1e-4)
    assert verified["sample"] in (smolvlm.folder / "report.html").read_text()


@pytest.mark.parametrize(("quantize", "least"), QUANTIZED.values(), ids=QUANTIZED)
def test_quantized(quantize: Any, least: float, folder: Path, tmp_path: Path) -> None:
    check_quantized(folder, quantize, least, "<image>", tmp_path / "out")


def test_a_gate_that_is_missed(folder: Path, tmp_path: Path) -> None:
    how: dict[str, Any] = {"tactics": "default", "gates": {"perplexity": 1e-9}}
    with pytest.raises(GateError, match="perplexity"):
        lc.build(model=str(folder), quantize="int4", output=tmp_path / "out", **how)


def test_it_is_verified_benched_inspected_and_built_again(
    smolvlm: Case, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (found,) = lc.verify(smolvlm.folder).engines
    assert found.gates
    assert all(gate.passed for gate in found.gates)
    timed = lc.bench(smolvlm.folder, rounds=1, threads=1)
    assert [case["name"].split(",")[0] for case in timed["cases"]] == ["see", "decode 64"]
    assert main(["inspect", str(smolvlm.folder)]) == 0
    told = capsys.readouterr().out
    for words in ("image-text-to-text", "up to 5 tiles of 4 tokens: 20 of 320"):
        assert words in told
        assert words in (smolvlm.folder / "report.html").read_text()
    lc.rebuild(smolvlm.folder, output=tmp_path / "again")
    both = [
        (folder / "manifest.json").read_bytes() for folder in (smolvlm.folder, tmp_path / "again")
    ]
    assert both[0] == both[1]


def test_a_plan_says_what_a_build_would_make(
    smolvlm: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    found = lc.plan(model=str(smolvlm.source), quantize="int8")
    assert found.task == "image-text-to-text"
    assert found.layers == "4 layers, 2 kinds traced once each"
    assert found.verify is not None
    assert main(["plan", "--model", str(smolvlm.source)]) == 0
    assert "up to 5 tiles of 4 tokens: 20 of 320" in capsys.readouterr().out


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two pictures."""
    folder = tmp_path_factory.mktemp("seen")
    names = [str(folder / f"{number}.png") for number in range(2)]
    for name, picture in zip(names, pictures(2), strict=True):
        Image.fromarray(picture).save(name)
    return names


def test_from_a_shell(smolvlm: Case, files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with lc.load(smolvlm.folder) as model:
        one = model.generate("w7 w8", images=files[:1], chat=True, max_new_tokens=NEW)
        texts = ["<image> w7 <image>", "<image> w9 <image>"]
        both = model.generate(texts, images=[files] * 2, max_new_tokens=NEW)
    script, room = [sys.executable, str(smolvlm.folder / "loader.py")], ["--max-new-tokens", "6"]
    calls = [["--prompt", "w7 w8", "--image", files[0], "--chat"], ["--prompt", "w20 w21"]]
    for call, wanted in zip(calls, (one.text, None), strict=True):
        done = subprocess.run([*script, *call, *room], capture_output=True, text=True, check=True)
        assert wanted in (None, done.stdout.removesuffix("\n"))
        assert main(["run", str(smolvlm.folder), *call, *room]) == 0
        assert capsys.readouterr().out == done.stdout
    together = ["--prompt", *texts, "--image", *files]
    call = [f"--prompt={text}" for text in texts] + [f"--image={file}" for file in files]
    for each in (together, call):
        shell = [*script, *each, "--json", *room]
        done = subprocess.run(shell, capture_output=True, text=True, check=True)
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert [row["tokens"] for row in found] == [row.tokens for row in both]
    assert main(["run", str(smolvlm.folder), *call, *room, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["tokens"] for row in found] == [row.tokens for row in both]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (["--image", "FILE"], "image-text-to-text does not take --image alone"),
        (["--text", "w7"], "does not take --text\n"),
        (["--prompt", "w7", "--image", "https://a.b/c.png"], "https://a.b/c.png is an address"),
        (
            ["--prompt", "w7", "--image", "FILE"],
            "images are given, and the prompt has <image> 0 times",
        ),
        (["--prompt", "w7", "--image", "none.png"], "none.png"),
    ],
)
def test_what_a_shell_asks_wrongly(
    call: list[str], words: str, smolvlm: Case, files: list[str], capsys: Any
) -> None:
    asked = [files[0] if word == "FILE" else word for word in call]
    assert main(["run", str(smolvlm.folder), *asked]) != 0
    assert words in capsys.readouterr().err


def test_servers_that_cannot_have_it_say_so(smolvlm: Case, tmp_path: Path) -> None:
    for call in (export_genai, export_triton):
        with pytest.raises(ArtifactError, match="image-text-to-text") as caught:
            call(smolvlm.folder, tmp_path / "served")
        assert "loader.py" in str(caught.value)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"target": "trt-rtx"}, "ONNX Runtime alone\n(.*\n)+.*task: text-generation takes the"),
        ({"quantize": "auto"}, "bits are chosen for (.*\n)+.*task: text-generation takes the"),
        ({"shapes": {"sequence": "1..17"}}, "no picture has room .*\n.*17 tokens\n.*18 on"),
    ],
)
def test_what_cannot_be_built(
    recipe: dict[str, Any], words: str, folder: Path, tmp_path: Path
) -> None:
    for call in (lc.plan, lc.build):
        with pytest.raises(RecipeError) as caught:
            call(model=str(folder), **recipe)
        assert re.search(words, str(caught.value))


@pytest.mark.parametrize(("kind", "need"), [("smolvlm", 14), ("internvl", 6), ("llava", 18)])
def test_a_picture_just_has_room(kind: str, need: int, tmp_path: Path) -> None:
    """The fewest tiles a picture has; it is compared, measured, and refused where it has more."""
    case = made(kind, tmp_path, shapes={"sequence": [1, need], "batch": [1, 2]})
    assert report(case.folder)["verify"]["segments"] > 0
    assert lc.bench(case.folder, rounds=1, threads=1, eager=False)["cases"]
    with pytest.raises(RecipeError, match=f"an end from {need} on"):
        lc.plan(model=str(case.source), shapes={"sequence": [1, need - 1]})
    with lc.load(case.folder, threads=1) as model, pytest.raises(LoaderError, match="cache holds"):
        model.generate(f"{case.mark} {case.mark} w7", images=pictures(2), max_new_tokens=4)


def test_an_engine_of_more_rows_than_one(folder: Path, tmp_path: Path) -> None:
    """Rows that nobody asked for have the picture of the last."""
    shapes = {"batch": [2, 4], "sequence": [1, 96]}
    built = lc.build(model=str(folder), output=tmp_path / "out", tactics="default", shapes=shapes)
    assert report(built.path)["verify"]["decode_agreement"] == 1.0
    assert lc.bench(built.path, rounds=1, threads=1, eager=False)["cases"]
    with lc.load(built.path, threads=1) as model:
        images = [[one] for one in pictures(3)]
        rows = model.generate(["<image> w7"] * 3, images=images, max_new_tokens=NEW)
        for row, own in zip(rows, images, strict=True):
            alone = model.generate("<image> w7", images=own, max_new_tokens=NEW)
            assert alone.tokens == row.tokens


def test_without_a_tokenizer_ids_have_every_place(folder: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(folder, tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (bare / name).unlink(missing_ok=True)
    built = lc.build(model=str(bare), output=tmp_path / "out", tactics="default")
    assert report(built.path)["verify"]["sample"] == "random ids, as there is no tokenizer"
    assert lc.bench(built.path, rounds=1, threads=1, eager=False)["cases"]
    with lc.load(built.path, threads=1) as model:
        (one,) = pictures(1)
        row = model.generate([*[TOKEN] * 16, 7], images=[one], max_new_tokens=NEW)
        assert (len(row.tokens), row.text) == (NEW, None)
        with pytest.raises(LoaderError, match=r"has token \d+ 1 times, and 1 images take 16"):
            model.generate([TOKEN, 7], images=[one])
        with pytest.raises(LoaderError, match="no tokenizer"):
            model.generate("<image> w7", images=[one])


def test_without_a_preprocessor_run_takes_pixels(folder: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(folder, tmp_path / "model")
    (bare / "preprocessor_config.json").unlink()
    built = lc.build(model=str(bare), output=tmp_path / "out", tactics="default")
    assert report(built.path)["verify"]["segments"] > 0
    assert lc.bench(built.path, rounds=1, threads=1, eager=False)["cases"]
    with lc.load(built.path, threads=1) as model:
        assert model.generate("w7 w8", max_new_tokens=NEW).tokens
        with pytest.raises(LoaderError, match=r"without preprocessor_config\.json"):
            model.generate("<image> w7", images=pictures(1))


def writing_placeholders(folder: Path, copy: Path, sign: int) -> Path:
    """A copy of a model that writes two tokens alone, one of which stands for pictures."""
    from safetensors.torch import load_file, save_file

    twisted = shutil.copytree(folder, copy)
    weights = load_file(twisted / "model.safetensors")
    (name,) = (name for name in weights if name.endswith("lm_head.weight"))
    torch.manual_seed(0)
    direction = sign * torch.randn(weights[name].shape[1])
    weights[name] = torch.zeros_like(weights[name])
    weights[name][TOKEN], weights[name][7] = direction, -direction
    save_file(weights, twisted / "model.safetensors", metadata={"format": "pt"})
    return twisted


@pytest.mark.parametrize("sign", [1, -1])
def test_a_model_that_writes_what_stands_for_pictures_is_verified(
    sign: int, folder: Path, tmp_path: Path
) -> None:
    """One of the two writes it first: the reference would look for a picture that nobody gave."""
    twisted = writing_placeholders(folder, tmp_path / "model", sign)
    built = lc.build(model=str(twisted), output=tmp_path / "out", tactics="default")
    verified = report(built.path)["verify"]
    assert verified["decode_tokens"] > 0
    assert verified["decode_agreement"] == 1.0


def test_what_stands_for_pictures_may_be_written(folder: Path, tmp_path: Path) -> None:
    """It is a token as any other then, in each row of a batch."""
    twisted = writing_placeholders(folder, tmp_path / "model", 1)
    how: dict[str, Any] = {"tactics": "default", "verify": False}
    built = lc.build(model=str(twisted), output=tmp_path / "out", **how)
    theirs, texts = Theirs("llava", twisted), ["w12", "w10 w11", "w12", "<image> w9"]
    seen = [Image.fromarray(picture) for picture in pictures(1)]
    images = [seen if "<" in text else [] for text in texts]
    wanted = [theirs.tokens(text, own, NEW) for text, own in zip(texts, images, strict=True)]
    assert sum(TOKEN in tokens for tokens in wanted) > 1
    with lc.load(built.path, threads=1) as model:
        rows = model.generate(texts, images=images, max_new_tokens=NEW)
        assert [row.tokens for row in rows] == wanted


def test_a_text_of_nothing_but_pictures_is_none_to_compare_on(
    smolvlm: Case, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("<image> <image> <image>")
    with pytest.raises(UsageError, match="nothing in this text to compare on"):
        lc.verify(smolvlm.folder, text=text)


def test_marks_that_a_tokenizer_does_not_know(smolvlm: Case, tmp_path: Path) -> None:
    other = shutil.copytree(smolvlm.source, tmp_path / "model")
    for file in (other / "tokenizer.json", other / "tokenizer_config.json"):
        file.write_text(file.read_text().replace("<fake_token_around_image>", "<fake>"))
    with pytest.raises(SourceError, match="no tokens of their own for what stands for images"):
        lc.build(model=str(other), output=tmp_path / "out")


def test_a_kind_that_places_pictures_otherwise(folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "model")
    file = other / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": "vipllava"}))
    with pytest.raises(ExportError, match="this kind of vision-language model") as caught:
        lc.plan(model=str(other), task="image-text-to-text")
    assert "smolvlm" in str(caught.value)
