"""Whisper, from a folder to an engine that writes down what it hears."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSpeechSeq2Seq, WhisperConfig, WhisperFeatureExtractor

import lepton_compile as lc
from lepton_compile.cli import main
from lepton_compile.errors import ArtifactError, RecipeError, SourceError
from lepton_compile.numerics.sample_sound import sounds
from lepton_compile.runtime import LoaderError
from lepton_compile.serving import export_genai, export_triton
from tests.export.zoo_pairs import HALVES
from tests.runtime.test_emit import imported
from tests.runtime.test_loader_forged import outcomes
from tests.small import byte_tokenizer

TASK = "automatic-speech-recognition"
RATE, NEW = 16_000, 8
START, PLAIN, LANGUAGES = 3, 22, {"en": 10, "fr": 11, "de": 12}
SIZES = {
    **HALVES,
    "vocab_size": 260,
    "num_mel_bins": 16,
    "max_source_positions": 50,
    "max_target_positions": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": START,
}
HEARS = {"feature_size": 16, "sampling_rate": RATE, "hop_length": 160, "chunk_length": 1}
TOLD = {
    "lang_to_id": {f"<|{name}|>": token for name, token in LANGUAGES.items()},
    "task_to_id": {"transcribe": 20, "translate": 21},
    "no_timestamps_token_id": PLAIN,
    "suppress_tokens": [30, 31],
    "begin_suppress_tokens": [2, 40],
}


def listening(folder: Path, **changes: Any) -> Any:
    """A Whisper whose answers depend on what it hears more than on what it has written."""
    torch.manual_seed(1)
    config = WhisperConfig(**{**SIZES, **changes})
    model = AutoModelForSpeechSeq2Seq.from_config(config).eval()
    loud = ("encoder_attn", "embed_tokens", "conv")
    with torch.no_grad():
        for path, weight in model.named_parameters():
            if weight.ndim > 1 and "embed_positions" not in path:
                weight.normal_(0, 1.0 if any(part in path for part in loud) else 0.3)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(HEARS))
    file = folder / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **TOLD}))
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("whisper")
    listening(place)
    byte_tokenizer(place)
    return place


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return AutoModelForSpeechSeq2Seq.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def built(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("speech") / "out"
    lc.build(model=str(folder), output=output, tactics="default")
    return output


@pytest.fixture(scope="module")
def heard() -> list[np.ndarray]:
    """Sounds of one window, of less than one, and of several."""
    made = sounds(RATE, 2.6)
    return [made[0][:RATE], made[1][:9000], made[2]]


def written(model: Any, features: np.ndarray, language: str | None, task: int) -> list[int]:
    """The language, where it is to be told, and what PyTorch writes."""
    source = torch.from_numpy(features[None])

    def scores(tokens: list[int]) -> torch.Tensor:
        with torch.no_grad():
            found = model(input_features=source, decoder_input_ids=torch.tensor([tokens]))
        return found.logits[0, -1]

    spoken = LANGUAGES.get(language or "")
    if spoken is None:
        of_languages = scores([START])[[*LANGUAGES.values()]]
        spoken = [*LANGUAGES.values()][int(of_languages.argmax())]
    tokens = [START, spoken, task, PLAIN]
    for place in range(NEW):
        found = scores(tokens)
        found[[30, 31, *([2, 40] if place == 0 else [])]] = -torch.inf
        tokens.append(int(found.argmax()))
        if tokens[-1] == 2:
            return [spoken, *tokens[4:-1]]
    return [spoken, *tokens[4:]]


def test_it_hears_what_transformers_hears(folder: Path, built: Path, heard: Any) -> None:
    extractor = WhisperFeatureExtractor.from_pretrained(folder)
    with lc.load(built) as opened:
        for sound in (*heard[:2], np.zeros(500, np.float32)):
            expected = extractor(sound, sampling_rate=RATE, return_tensors="np").input_features[0]
            np.testing.assert_allclose(opened.features(sound), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("language", "translate"), [(None, False), ("fr", False), (None, True)])
def test_it_writes_what_pytorch_writes(
    language: str | None, translate: bool, model: Any, built: Path, heard: Any
) -> None:
    names = {token: name for name, token in LANGUAGES.items()}
    with lc.load(built) as opened:
        how = {"translate": translate, "max_new_tokens": NEW}
        found = opened.transcribe(heard[:2], language, **how)
        for sound, transcript in zip(heard[:2], found, strict=True):
            task = 21 if translate else 20
            spoken, *tokens = written(model, opened.features(sound), language, task)
            assert (transcript.language, transcript.tokens) == (names[spoken], tokens)
        assert found[0].tokens != found[1].tokens
        assert opened.transcribe(heard[1], language, **how).tokens == found[1].tokens


def test_a_long_sound_is_cut_where_it_is_quiet(built: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 3 * RATE).astype(np.float32)
    sound = np.concatenate([noise[:12000], np.zeros(1700, np.float32), noise[:20000]])
    with lc.load(built) as opened:
        parts = [*opened._cut(sound)]
        assert len(parts) == 3
        assert all(len(part) <= RATE for part in parts)
        assert 12000 <= len(parts[0]) <= 13700
        np.testing.assert_array_equal(np.concatenate(parts), sound)
        found = opened.transcribe(sound, max_new_tokens=NEW)
        first = opened.transcribe(parts[0], max_new_tokens=NEW)
        rest = [opened.transcribe(p, first.language, max_new_tokens=NEW) for p in parts[1:]]
        assert found.tokens == [t for one in (first, *rest) for t in one.tokens]
        assert found.text == " ".join(filter(None, (one.text.strip() for one in (first, *rest))))


def test_from_a_file_and_from_a_shell(
    built: Path, heard: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "said.wav"
    with wave.open(str(file), "wb") as out:
        out.setnchannels(2)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes((heard[0] * 32767).astype("<i2").repeat(2).tobytes())
    with lc.load(built) as opened:
        expected = opened.transcribe(file, "de")
    command = [sys.executable, built / "loader.py", "--audio", file, "--language", "de", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = {"audio": str(file), "text": expected.text, "language": "de"}
    assert json.loads(done.stdout) == said
    asked = ["run", str(built), "--audio", str(file), "--language", "de"]
    assert main([*asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == said
    assert main(asked) == 0
    assert capsys.readouterr().out == f"{expected.text}\n"
    assert main([*asked, "--chat"]) == 2


@pytest.mark.parametrize(
    ("audio", "how", "words"),
    [
        ([], {}, "there is no sound"),
        (np.zeros((2, 9), np.float32), {}, "a sound is a path of a .wav file, or an array"),
        (np.zeros(0, np.float32), {}, "a sound is a path"),
        (np.zeros(9, np.int16), {}, "a sound is a path"),
        (7, {}, "a sound is a path"),
        (np.array([0.0, np.nan]), {}, "the samples are no numbers"),
        ("no/such.wav", {}, "is no .wav file"),
        (np.zeros(9), {"language": "xx"}, "no language is called 'xx'; there are"),
        (np.zeros(9), {"language": ["en"]}, r"no language is called \['en'\]; there are"),
        (np.zeros(9), {"max_new_tokens": 0}, "out of its range: max_new_tokens=0"),
        (np.zeros(9), {"max_new_tokens": 61}, "the cache holds 64"),
        (np.zeros(9), {"temperature": -1.0}, "out of its range: temperature"),
    ],
)
def test_calls_that_cannot_be_carried_out(
    audio: Any, how: dict[str, Any], words: str, built: Path
) -> None:
    with lc.load(built) as opened, pytest.raises(LoaderError, match=words):
        opened.transcribe(audio, **how)


@pytest.mark.parametrize(
    ("width", "rate", "words"), [(1, RATE, "samples of 8 bits"), (2, 44_100, "44100 samples")]
)
def test_files_of_another_kind(
    width: int, rate: int, words: str, built: Path, tmp_path: Path
) -> None:
    with wave.open(str(tmp_path / "a.wav"), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(width)
        out.setframerate(rate)
        out.writeframes(b"\0" * 400)
    with lc.load(built) as opened, pytest.raises(LoaderError, match=words):
        opened.transcribe(tmp_path / "a.wav")


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_quantized(precision: str, tmp_path: Path) -> None:
    from tests.export.harness import save

    save(lambda: WhisperConfig(**SIZES), TASK, tmp_path / "model")
    (tmp_path / "model" / "preprocessor_config.json").write_text(json.dumps(HEARS))
    how: dict[str, Any] = {"gates": {"perplexity": None}, "tactics": "default"}
    lc.build(model=str(tmp_path / "model"), quantize=precision, output=tmp_path / "q", **how)
    verified = json.loads((tmp_path / "q" / "report.json").read_text())["verify"]
    assert verified["cosine"] > {"int8": 0.99, "int4": 0.8}[precision]
    assert verified["sample"] == "what PyTorch transcribes of synthetic audio"
    with lc.load(tmp_path / "q") as opened:  # of one language, and without a tokenizer
        found = opened.transcribe(np.zeros(RATE), max_new_tokens=3)
        assert (len(found.tokens), found.language, found.text) == (3, None, None)
        with pytest.raises(LoaderError, match="knows one language"):
            opened.transcribe(np.zeros(RATE), "en")


def test_the_manifest_says_what_is_heard_and_written(built: Path) -> None:
    manifest = json.loads((built / "manifest.json").read_text())
    told = manifest["generation"]
    assert told["start"] == [START]
    assert (told["never"], told["first"], told["plain"]) == ([30, 31], [2, 40], [PLAIN])
    assert (told["languages"], told["tasks"]) == (LANGUAGES, TOLD["task_to_id"])
    sound = {"rate": RATE, "window": 400, "hop": 160, "samples": RATE, "filters": "mel_filters.npy"}
    assert told["sound"] == sound
    assert "mel_filters.npy" in manifest["files"]
    (features, *_) = manifest["inputs"]
    assert features == {
        "name": "encoder_input_features",
        "dtype": "float32",
        "shape": ["batch", 16, 100],
        "optional": False,
    }


@pytest.mark.parametrize("under", [("generation",), ("engines", 0, "encoder")])
def test_no_edit_of_the_manifest_ends_in_anything_but_a_refusal(
    under: tuple[Any, ...], built: Path, tmp_path: Path
) -> None:
    forged = Path(shutil.copytree(built, tmp_path / "forged"))
    refused, _ = outcomes(forged, imported(forged / "loader.py"), under)
    assert refused > 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (None, "no such file"),
        ({"feature_size": 20}, "20 bands and 100 frames"),
        ({"chunk_length": 2}, "16 bands and 200 frames"),
        ({"n_fft": 1 << 40}, "n_fft: 1099511627776"),
        ({"hop_length": 0}, "hop_length: 0"),
        ({"sampling_rate": "16k"}, "sampling_rate: '16k'"),
        ({"dither": 0.1}, "dither 0.1"),
    ],
)
def test_a_preprocessor_that_does_not_fit(
    change: dict[str, Any] | None, words: str, tmp_path: Path
) -> None:
    listening(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    if change is None:
        file.unlink()
    else:
        file.write_text(json.dumps(HEARS | change))
    with pytest.raises(SourceError, match=r"preprocessor_config\.json") as caught:
        lc.plan(model=str(tmp_path))
    assert words in str(caught.value)
    assert caught.value.where == str(file)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"target": "trt-rtx"}, "are for ONNX Runtime alone"),
        ({"quantize": "auto"}, "bits are chosen for encoders and for decoders"),
        ({"shapes": {"source": "1..9"}}, "only encoder-decoder models of text"),
        ({"verify": {"tokens": 9}}, "speech models on synthetic audio"),
    ],
)
def test_what_cannot_be_built(recipe: dict[str, Any], words: str, folder: Path) -> None:
    with pytest.raises(RecipeError, match=words):
        lc.plan(model=str(folder), **recipe)


def test_a_plan_and_the_bench(folder: Path, built: Path) -> None:
    plan = lc.plan(model=str(folder), quantize="int8")
    assert (plan.task, plan.engines[0].missing) == (TASK, [])
    assert plan.layers == "5 layers, 2 kinds traced once each"
    with pytest.raises(ArtifactError, match="runs decoders with a KV cache"):
        export_genai(built, built.parent / "genai")
    with pytest.raises(ArtifactError, match="not exported to Triton"):
        export_triton(built, built.parent / "repository")


@pytest.mark.parametrize("channels", [1, 2])
def test_a_file_that_ends_within_a_sample(channels: int, built: Path, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("whole.wav", "cut.wav")]
    for file in files:
        with wave.open(str(file), "wb") as out:
            out.setnchannels(channels)
            out.setsampwidth(2)
            out.setframerate(RATE)
            noise = np.random.default_rng(0).integers(-9999, 9999, 400 * channels, np.int16)
            out.writeframes(noise.tobytes() + bytes(2 * channels * (file is files[1])))
    files[1].write_bytes(files[1].read_bytes()[:-1])
    with lc.load(built) as opened:
        whole, cut = (opened.transcribe(file, max_new_tokens=4).tokens for file in files)
    assert whole == cut
