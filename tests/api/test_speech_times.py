"""When what is said was said: Whisper's tokens for times, under transformers' rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSpeechSeq2Seq, GenerationConfig
from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor

import lepton_compile as lc
from lepton_compile.cli import main
from lepton_compile.runtime import LoaderError
from lepton_compile.runtime.loader_times import rule_times
from tests.api.test_speech import PLAIN, RATE, START, listening, wave
from tests.runtime.test_emit import imported
from tests.small import byte_tokenizer

EOS, FIRST, LATEST, NEW = 2, PLAIN + 1, 20, 10
TOLD = {
    "eos": [EOS],
    "plain": [PLAIN],
    "times": {"first": FIRST, "step": 320, "latest": LATEST},
}
VOCABULARY = 60


def _rules(latest: int | None, begun: int) -> WhisperTimeStampLogitsProcessor:
    """transformers' own, for answers behind so many tokens."""
    config = GenerationConfig(
        eos_token_id=EOS, bos_token_id=1, no_timestamps_token_id=PLAIN,
        max_initial_timestamp_index=latest,
    )  # fmt: skip
    return WhisperTimeStampLogitsProcessor(config, begin_index=begun)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(3, VOCABULARY - 1), max_size=6),
    st.integers(0, 2**32 - 1),
    st.sampled_from([None, LATEST]),
    st.floats(0.5, 8.0),
)
def test_rules_are_those_of_transformers(
    written: list[int], seed: int, latest: int | None, spread: float
) -> None:
    scores = np.random.default_rng(seed).normal(0, spread, VOCABULARY).astype(np.float32)
    rules = _rules(latest, 1)
    expected = rules(torch.tensor([[START, *written]]), torch.from_numpy(scores)[None].clone())[0]
    found = scores.copy()
    rule_times({**TOLD, "times": {**TOLD["times"], "latest": latest}}, found, written)
    np.testing.assert_array_equal(np.isneginf(found), torch.isneginf(expected).numpy())
    np.testing.assert_array_equal(found[~np.isneginf(found)], expected[~torch.isneginf(expected)])


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    root = tmp_path_factory.mktemp("timed")
    (root / "model").mkdir()
    listening(root / "model", suppress_tokens=None, begin_suppress_tokens=None)
    file = root / "model" / "generation_config.json"
    told = json.loads(file.read_text()) | {"max_initial_timestamp_index": LATEST}
    file.write_text(json.dumps(told | {"suppress_tokens": [], "begin_suppress_tokens": []}))
    byte_tokenizer(root / "model")
    built = lc.build(model=str(root / "model"), output=root / "out", tactics="default")
    return AutoModelForSpeechSeq2Seq.from_pretrained(root / "model").eval(), built.path


def _written(model: Any, features: np.ndarray) -> list[int]:
    """What PyTorch writes, the likeliest token each time, under transformers' rules."""
    rules, source = _rules(LATEST, 3), features[None]
    tokens = [START, 11, 20]
    for _ in range(NEW):
        given = {"input_features": torch.from_numpy(source), "decoder_input_ids": [tokens]}
        given["decoder_input_ids"] = torch.tensor(given["decoder_input_ids"])
        with torch.no_grad():
            scores = rules(given["decoder_input_ids"], model(**given).logits[:, -1])[0]
        tokens.append(int(scores.argmax()))
        if tokens[-1] == EOS:
            return tokens[3:-1]
    return tokens[3:]


def test_times_are_written_as_pytorch_writes_them(timed: tuple[Any, Path]) -> None:
    model, built = timed
    assert json.loads((built / "manifest.json").read_text())["generation"]["times"] == {
        "first": FIRST,
        "step": 320,
        "latest": LATEST,
    }
    sound = np.random.default_rng(3).uniform(-0.5, 0.5, 2 * RATE + 4000).astype(np.float32)
    for opened in (lc.load(built), imported(built / "loader.py").load(built)):
        with opened as loaded:
            made = loaded.transcribe(sound, "fr", timestamps=True, max_new_tokens=NEW)
            parts = [*loaded._cut(sound)]
            expected = [_written(model, loaded.features(part)) for part in parts]
            assert made.tokens == [token for tokens in expected for token in tokens]
            assert any(token >= FIRST for token in made.tokens)
            plain = loaded.transcribe(sound, "fr", max_new_tokens=NEW)
            assert plain.segments is None
    assert made.segments, "nothing was said"
    ends = np.cumsum([len(part) for part in parts]) / RATE
    for start, end, text in made.segments:
        assert 0 <= start <= end <= ends[-1] + 1e-9
        assert isinstance(text, str)
    starts = [segment.start for segment in made.segments]
    assert starts == sorted(starts)
    assert made.text == " ".join(s.text for s in made.segments if s.text)


def test_from_a_shell(
    timed: tuple[Any, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, built = timed
    file = tmp_path / "said.wav"
    samples = np.random.default_rng(3).uniform(-0.5, 0.5, RATE)
    with wave.open(str(file), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes((samples * 32767).astype("<i2").tobytes())
    given = ["run", str(built), "--audio", str(file), "--timestamps", "--language", "fr"]
    assert main([*given, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [*found] == ["audio", "text", "language", "segments"]
    assert main(given) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [float(line.split()[0]) for line in lines if line.strip()[:1].isdigit()][:1] == [
        round(found["segments"][0]["start"], 2)
    ]


def test_a_model_without_times_says_so(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    listening(tmp_path / "model")
    file = tmp_path / "model" / "generation_config.json"
    told = {**json.loads(file.read_text()), "no_timestamps_token_id": None}
    file.write_text(json.dumps(told))
    made = lc.build(
        model=str(tmp_path / "model"),
        output=tmp_path / "out",
        verify=False,
        check=False,
        tactics="default",
    )
    assert "rule_times" not in (made.path / "loader.py").read_text()
    with lc.load(made.path) as model, pytest.raises(LoaderError, match="has no timestamps"):
        model.transcribe(np.zeros(RATE, np.float32), timestamps=True)
