"""Models that read one text and write another, from a folder to an engine that answers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, GenerationConfig

import lepton_compile as lc
from lepton_compile.cli import main
from lepton_compile.errors import ArtifactError, RecipeError, SourceError
from lepton_compile.runtime import LoaderError
from lepton_compile.serving import export_genai, export_triton
from lepton_plugins.native import why_not
from tests.export.harness import save
from tests.export.zoo_pairs import PAIRS
from tests.runtime.test_emit import imported
from tests.runtime.test_loader_forged import outcomes
from tests.small import byte_tokenizer

TASK = "text2text-generation"
SOURCES = [[5, 6, 7, 8, 9, 10, 11], [11, 12, 13], [20, 21, 22, 23, 24, 25, 26], [4]]
NEW = 8


@dataclass
class Case:
    name: str
    model: Any
    folder: Path
    built: Path

    def answers(self, start: list[int] | None = None) -> list[list[int]]:
        """What PyTorch writes, the likeliest token each time."""
        told = json.loads((self.built / "manifest.json").read_text())["generation"]
        begun = [told["start"][0], *(told["start"][1:] if start is None else start)]
        return [self._answer(source, begun, told) for source in SOURCES]

    def _answer(self, source: list[int], begun: list[int], told: dict[str, Any]) -> list[int]:
        written, last = list(begun), told.get("rules", {}).get("last")
        for count in range(1, NEW + 1):
            given = {"input_ids": [source], "decoder_input_ids": [written]}
            with torch.no_grad():
                tensors = {name: torch.tensor(ids) for name, ids in given.items()}
                scores = self.model(**tensors, use_cache=False).logits[0, -1]
            scores[told["never"]] = -torch.inf
            if last and count == NEW:  # what the model was released to end with
                scores[:], scores[last] = -torch.inf, 0.0
            written.append(int(scores.argmax()))
            if written[-1] in told["eos"]:
                return written[len(begun) : -1]
        return written[len(begun) :]


def listening(name: str, folder: Path) -> Any:
    """A model whose answers depend on what it reads more than on what it has written."""
    torch.manual_seed(1)
    model = AutoModelForSeq2SeqLM.from_config(PAIRS[name][0]()).eval()
    loud = ("encoder_attn", "EncDecAttention", "shared", "embed_tokens", "lm_head")
    with torch.no_grad():
        for path, weight in model.named_parameters():
            if weight.ndim > 1 and "embed_positions" not in path:
                weight.normal_(0, 1.0 if any(part in path for part in loud) else 0.3)
    model.save_pretrained(folder)
    return model


# Keys and values in place, growing, and with a token that is never written.
@pytest.fixture(scope="module", params=["bart", "t5", "marian"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    root = tmp_path_factory.mktemp(request.param)
    model = listening(request.param, root / "model")
    if request.param == "marian":
        told = root / "model" / "generation_config.json"
        likely = torch.tensor(SOURCES[:1])
        with torch.no_grad():
            out = model(input_ids=likely, decoder_input_ids=torch.tensor([[98]])).logits[0, -1]
        bad = {"bad_words_ids": [[int(out.argmax())], [3, 4]]}
        told.write_text(json.dumps(json.loads(told.read_text()) | bad))
    lc.build(model=str(root / "model"), output=root / "out", tactics="default")
    return Case(request.param, model, root / "model", root / "out")


def test_answers_as_pytorch_does(case: Case) -> None:
    """Texts of different lengths together, and again in the buffers of the first time."""
    expected = case.answers()
    assert len({tuple(answer) for answer in expected}) > 1
    with lc.load(case.built) as model:
        for _ in range(2):
            found = model.generate(SOURCES, max_new_tokens=NEW)
            assert [row.tokens for row in found] == expected
        assert model.generate(SOURCES[2], max_new_tokens=NEW).tokens == expected[2]
        assert list(model.generate(SOURCES[2], max_new_tokens=NEW, stream=True)) == expected[2]


def test_an_answer_may_be_begun(case: Case) -> None:
    with lc.load(case.built) as model:
        found = model.generate(SOURCES, max_new_tokens=NEW, start=[9, 17])
    assert [row.tokens for row in found] == case.answers([9, 17])


@pytest.mark.parametrize(("beams", "penalty"), [(2, 1.0), (4, 1.0), (3, 0.0), (4, 2.0)])
def test_the_likeliest_answer_is_that_of_transformers(
    case: Case, beams: int, penalty: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = json.loads((case.built / "manifest.json").read_text())["generation"]
    config = GenerationConfig(
        num_beams=beams,
        length_penalty=penalty,
        max_new_tokens=NEW,
        decoder_start_token_id=told["start"][0],
        eos_token_id=told["eos"],
        pad_token_id=told["pad"],
        bad_words_ids=[[token] for token in told["never"]] or None,
        forced_eos_token_id=told.get("rules", {}).get("last"),
    )
    monkeypatch.setattr(case.model, "generation_config", config)
    expected = []
    for source in SOURCES:
        made = case.model.generate(torch.tensor([source]), generation_config=config)[0, 1:]
        tokens = made.tolist()
        ended = next((at for at, token in enumerate(tokens) if token in told["eos"]), NEW)
        expected.append(tokens[:ended])
    with lc.load(case.built) as model:
        for _ in range(2):
            how = {"beams": beams, "length_penalty": penalty, "max_new_tokens": NEW}
            found = model.generate(SOURCES, **how)
            assert [row.tokens for row in found] == expected
        assert model.generate(SOURCES[1], **how).tokens == expected[1]


def test_the_manifest_says_what_is_opened_and_how_answers_begin(case: Case) -> None:
    manifest = json.loads((case.built / "manifest.json").read_text())
    (engine,) = manifest["engines"]
    assert manifest["task"] == TASK
    assert engine["encoder"] == "engines/ort-cpu/encoder.onnx"
    assert engine["encoder"] in engine["files"]
    assert engine["executed"] is True
    assert manifest["cache"]["shared"] == (case.name != "t5")
    assert "pieces" not in manifest["cache"]  # what was written depends on what is read
    assert manifest["ranges"]["source"][0] == 1
    told = manifest["generation"]
    assert told["start"] == [case.model.config.decoder_start_token_id]
    assert len(told["never"]) == (case.name == "marian")
    assert told["never"] != [3]


def test_arrays_in_and_out(case: Case) -> None:
    """Padded texts, and a mask left out where there is no padding."""
    ids = np.array([SOURCES[0], SOURCES[1] + [0] * 4])
    mask = np.array([[1] * 7, [1] * 3 + [0] * 4])
    written = np.array([[2, 5, 6], [2, 8, 9]])
    given = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": written}
    with torch.no_grad():
        tensors = {name: torch.from_numpy(array) for name, array in given.items()}
        expected = case.model(**tensors, use_cache=False).logits.numpy()
    feeds = {"encoder_input_ids": ids, "encoder_attention_mask": mask, "input_ids": written}
    with lc.load(case.built) as model:
        found = model.run(feeds)["logits"]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
        first = {"encoder_input_ids": ids[:1], "input_ids": written[:1]}
        np.testing.assert_allclose(model.run(first)["logits"], found[:1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["bart", "t5"])
def test_quantized(name: str, tmp_path: Path) -> None:
    """Weights of both halves; the table that both read is in the file once."""
    save(PAIRS[name][0], TASK, tmp_path / "model")
    sizes = {}
    for kind, least in (("none", 0.9999), ("int8", 0.99), ("int4", 0.8)):
        out = tmp_path / kind
        how: dict[str, Any] = {"gates": {"perplexity": None}} if kind != "none" else {}
        lc.build(model=str(tmp_path / "model"), quantize=kind, output=out, tactics="default", **how)
        verified = json.loads((out / "report.json").read_text())["verify"]
        assert verified["cosine"] > least
        assert verified["decode_tokens"] > 0
        sizes[kind] = (out / "engines" / "ort-cpu" / "weights.bin").stat().st_size
    assert sizes["int8"] < 0.5 * sizes["none"]
    assert sizes["int4"] < 0.4 * sizes["none"]


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of a BART with a tokenizer of bytes."""
    root = tmp_path_factory.mktemp("spoken")
    config = PAIRS["bart"][0]()
    config.vocab_size = 260
    save(lambda: config, TASK, root / "model")
    told = root / "model" / "generation_config.json"
    told.write_text(json.dumps(json.loads(told.read_text()) | {"forced_bos_token_id": 7}))
    byte_tokenizer(root / "model")
    lc.build(model=str(root / "model"), output=root / "out", tactics="default")
    return root / "out"


def test_text_in_text_out(spoken: Path) -> None:
    with lc.load(spoken) as model:
        ids = model.tokenizer.encode("Hello").ids
        assert model.manifest["generation"]["start"] == [2, 7]
        by_text = model.generate("Hello", max_new_tokens=5)
        assert by_text.tokens == model.generate(ids, max_new_tokens=5).tokens
        assert isinstance(by_text.text, str)
        named = model.generate("Hello", max_new_tokens=5, start="</s>").tokens
        assert named == model.generate(ids, max_new_tokens=5, start=2).tokens
    command = [sys.executable, spoken / "loader.py", "--prompt", "Hello", "--max-new-tokens", "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{by_text.text}\n"


def test_from_a_shell(spoken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    how = ["--prompt", "Hello", "--max-new-tokens", "5", "--start", "</s>"]
    how += ["--beams", "3", "--length-penalty", "2"]
    given: dict[str, Any] = {"max_new_tokens": 5, "start": "</s>"}
    with lc.load(spoken) as model:
        wanted = model.generate("Hello", beams=3, length_penalty=2.0, **given).text
    done = subprocess.run(
        [sys.executable, spoken / "loader.py", *how], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{wanted}\n"
    assert main(["run", str(spoken), *how]) == 0
    assert capsys.readouterr().out == f"{wanted}\n"
    assert main(["run", str(spoken), *how[:4], "--length-penalty", "2"]) == 2
    assert "nothing would come of --length-penalty here" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("--start", "no such"), ("--beams", "65")])
def test_options_of_a_shell_arrive(
    option: str, value: str, spoken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, spoken / "loader.py", "--prompt", "Hello", option, value]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode
    assert value in refused.stderr
    assert main(["run", str(spoken), *map(str, command[2:])])
    assert value in capsys.readouterr().err


@pytest.mark.parametrize(
    ("prompt", "how", "words"),
    [
        ("", {}, "the text is empty"),
        ([], {}, "the text is empty"),
        ([[5, 6], []], {}, "the text is empty"),
        (list(range(4, 69)), {}, "source from 1 to 64, found 65"),
        ([260], {}, "outside the vocabulary"),
        ([5], {"start": "no such token"}, "has no token 'no such token'"),
        ([5], {"start": 2.5}, "start takes names of tokens or ids"),
        ([5], {"start": [True]}, "start takes names of tokens or ids"),
        ([5], {"start": [300]}, "outside the vocabulary"),
        ([5], {"start": list(range(64))}, "65 tokens and 1 new, but the cache holds 64"),
        ([5], {"beams": 0}, "beams are 1 or more"),
        ([5], {"beams": 2.5}, "beams are 1 or more"),
        ([5], {"beams": 2, "length_penalty": float("nan")}, "length_penalty -50 to 50"),
        ([5], {"beams": 2, "length_penalty": 400.0}, "length_penalty -50 to 50"),
        ([5], {"beams": 2, "stop_tokens": range(260)}, "each token ends an answer"),
        ([5], {"beams": 2, "temperature": 0.5}, "beams go with none of temperature"),
        ([5], {"beams": 2, "stream": True}, "beams go with neither stream nor stop"),
        ([5], {"beams": 65}, "65 beams are 65 rows, and the engine takes 64"),
        ([5], {"max_new_tokens": 63}, "2 tokens and 63 new, but the cache holds 64"),
        ([{"role": "user", "content": "hi"}], {}, "no chat template"),
    ],
)
def test_calls_that_cannot_be_carried_out(
    prompt: Any, how: dict[str, Any], words: str, spoken: Path
) -> None:
    with lc.load(spoken) as model, pytest.raises(LoaderError, match=words):
        model.generate(prompt, **how)


def test_beams_of_numpy_are_as_many(spoken: Path) -> None:
    """One was a search, which takes no temperature."""
    how: dict[str, Any] = {"temperature": 0.9, "seed": 3, "max_new_tokens": 6}
    with lc.load(spoken) as model:
        wanted = model.generate([5, 6], **how).tokens
        assert model.generate([5, 6], beams=np.int64(1), **how).tokens == wanted  # type: ignore[call-overload]
        pieces = model.generate([5, 6], beams=np.int64(1), stream=True, **how)  # type: ignore[call-overload]
        assert "".join(pieces) == model.generate([5, 6], **how).text
        three = [model.generate([5, 6], beams=n, max_new_tokens=6) for n in (3, np.uint8(3))]  # type: ignore[call-overload]
        assert three[0].tokens == three[1].tokens


def test_an_encoder_that_was_changed_is_not_opened(spoken: Path, tmp_path: Path) -> None:
    shutil.copytree(spoken, tmp_path / "copy")
    file = tmp_path / "copy" / "engines" / "ort-cpu" / "encoder.onnx"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(LoaderError, match=r"encoder.onnx is damaged"):
        lc.load(tmp_path / "copy")


@pytest.mark.parametrize("under", [("generation",), ("engines", 0, "encoder")])
def test_no_edit_of_the_manifest_ends_in_anything_but_a_refusal(
    under: tuple[Any, ...], spoken: Path, tmp_path: Path
) -> None:
    forged = Path(shutil.copytree(spoken, tmp_path / "forged"))
    refused, _ = outcomes(forged, imported(forged / "loader.py"), under)
    assert refused > 4


def test_a_bias_of_positions_goes_with_a_cache_in_place(tmp_path: Path) -> None:
    """Answers that end at different times, and beams, are those of a cache that grows."""
    listening("t5", tmp_path / "model")
    answers: dict[str, list[list[list[int]]]] = {}
    for name in ("lower-native-norm", "lower-biased-cached-attention"):
        disable = [name, "lower-half-cache"]  # one that grows is not made of halves
        how: dict[str, Any] = {"tactics": "default", "passes": {"disable": disable}}
        how |= {"check": False, "verify": False, "output": tmp_path / name}
        artifact = lc.build(model=str(tmp_path / "model"), quantize="int8", **how)
        shared = json.loads((artifact.path / "manifest.json").read_text())["cache"]["shared"]
        assert shared == (name == "lower-native-norm" and why_not() is None)
        with lc.load(artifact.path) as model:
            first = model.generate(SOURCES[0], max_new_tokens=3).tokens[-1]
            asked: list[dict[str, Any]] = [{"stop_tokens": [first]}, {"beams": 3}]
            found = [model.generate(SOURCES, max_new_tokens=40, **more) for more in asked]
            answers[name] = [[row.tokens for row in rows] for rows in found]
    ours, grown = answers.values()
    assert ours == grown
    assert len({len(tokens) for tokens in ours[0]}) > 1


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
@pytest.mark.parametrize("name", ["t5", "bart"])
def test_beams_move_caches_of_halves_in_the_loader_of_an_artifact(
    name: str, tmp_path: Path
) -> None:
    listening(name, tmp_path / "model")
    how: dict[str, Any] = {"tactics": "default", "check": False, "verify": False}
    artifact = lc.build(
        model=str(tmp_path / "model"), quantize="int8", output=tmp_path / "out", **how
    )
    (engine,) = json.loads((artifact.path / "manifest.json").read_text())["engines"]
    assert engine["cache"] == {"dtype": "float16"}
    with lc.load(artifact.path) as model:
        wanted = [row.tokens for row in model.generate(SOURCES, max_new_tokens=40, beams=3)]
    with imported(artifact.path / "loader.py").load(artifact.path) as model:
        for _ in range(3):
            found = [row.tokens for row in model.generate(SOURCES, max_new_tokens=40, beams=3)]
            assert found == wanted


@pytest.mark.parametrize(
    ("recipe", "error", "words"),
    [
        ({"target": "trt-rtx"}, RecipeError, "for ONNX Runtime alone"),
        ({"quantize": "auto"}, RecipeError, "bits are chosen for encoders and for decoders"),
        ({"shapes": {"source": "1..65"}}, RecipeError, "longer sequences than the model can take"),
        ({"shapes": {"source": "1..6"}}, RecipeError, "shorter than what a model is traced with"),
        ({"pooling": "mean"}, RecipeError, "pooling"),
        ({"position_ids": True}, RecipeError, "positions are an input of decoders alone"),
    ],
)
def test_what_cannot_be_built(
    recipe: dict[str, Any], error: type[Exception], words: str, tmp_path: Path
) -> None:
    save(PAIRS["bart"][0], TASK, tmp_path / "model")
    with pytest.raises(error, match=words):
        lc.plan(model=str(tmp_path / "model"), **recipe)


def test_a_model_that_does_not_say_how_answers_begin(tmp_path: Path) -> None:
    save(PAIRS["t5"][0], TASK, tmp_path / "model")
    for name in ("config.json", "generation_config.json"):
        file = tmp_path / "model" / name
        told = json.loads(file.read_text())
        told.pop("decoder_start_token_id", None)
        file.write_text(json.dumps(told))
    with pytest.raises(SourceError, match="which token an answer begins with"):
        lc.plan(model=str(tmp_path / "model"))


def test_a_plan_has_both_graphs(tmp_path: Path) -> None:
    save(PAIRS["bart"][0], TASK, tmp_path / "model")
    plan = lc.plan(model=str(tmp_path / "model"), quantize="int4", shapes={"source": "1..32"})
    assert plan.task == TASK
    encoder, decoder = (plan.files[f"engines/ort-cpu/{x}.onnx"] for x in ("encoder", "model"))
    assert 0 < encoder < decoder
    assert plan.layers == "5 layers, 2 kinds traced once each"
    assert plan.engines[0].missing == []


def test_served_by_triton_and_not_by_genai(spoken: Path, tmp_path: Path) -> None:
    pytest.importorskip("tritonclient.grpc.model_config_pb2")
    from tests.serving.triton.backend import Server

    with lc.load(spoken) as model:
        expected = model.generate("Hello", max_new_tokens=5).text
    server = Server(export_triton(spoken, tmp_path / "repo", name="reader"))
    answer = server.infer(text_input="Hello", max_tokens=5)
    assert answer.responses == [{"text_output": [expected]}]
    with pytest.raises(ArtifactError, match="runs decoders with a KV cache"):
        export_genai(spoken, tmp_path / "genai")
