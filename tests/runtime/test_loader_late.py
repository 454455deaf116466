"""Files that are read with the first text: still those of the artifact that was opened."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lepton_compile.runtime import LoaderError, Model, load
from tests.runtime import tiny

IDS = [2, 5, 9]
SAID = [{"role": "user", "content": "w5 w9"}]
CHANGED = "is damaged, or was replaced"


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """A decoder in a folder of its own, of which no text was asked for yet."""
    return load(tiny.decoder(tmp_path / "live").path, threads=1)


def replace(name: str, model: Model) -> None:
    """Another file of that name, as a newer artifact in the same place has it."""
    newer = model.path / f"{name}.new"
    newer.write_text((model.path / name).read_text("utf-8").replace("w9", "w7"), "utf-8")
    newer.replace(model.path / name)


def test_a_tokenizer_that_took_the_place_of_the_models_own_is_refused(model: Model) -> None:
    expected = model.generate(IDS, max_new_tokens=4).tokens
    replace("tokenizer.json", model)
    with pytest.raises(LoaderError, match=rf"encoded: tokenizer\.json {CHANGED}"):
        model.generate("w5 w9", max_new_tokens=4)
    assert model.generate(IDS, max_new_tokens=4).tokens == expected


@pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer_config.json"])
def test_so_is_what_a_chat_is_written_with(name: str, model: Model) -> None:
    with (model.path / name).open("a") as file:
        file.write("\n")
    with pytest.raises(LoaderError, match=f"^{name} {CHANGED}"):
        model.generate(SAID, max_new_tokens=4)
    assert model.generate("w5 w9", max_new_tokens=4).finish


def test_what_was_read_once_is_not_asked_for_again(model: Model) -> None:
    text, chat = (model.generate(asked, max_new_tokens=4).text for asked in ("w5 w9", SAID))
    shutil.rmtree(model.path)
    assert model.generate("w5 w9", max_new_tokens=4).text == text
    assert model.generate(SAID, max_new_tokens=4).text == chat


def test_an_artifact_that_is_gone_is_told(model: Model) -> None:
    shutil.rmtree(model.path)
    with pytest.raises(LoaderError, match=r"tokenizer\.json cannot be read: .*No such file"):
        model.generate("w5 w9", max_new_tokens=4)
    with pytest.raises(LoaderError, match=r"^chat_template\.jinja cannot be read: .*No such file"):
        model.generate(SAID, max_new_tokens=4)
    assert model.generate(IDS, max_new_tokens=4).finish


def test_a_prompt_that_is_too_long_is_told_in_tokens_and_room(model: Model) -> None:
    with pytest.raises(LoaderError, match=r"^500 tokens and 4 new, but the cache holds 96$"):
        model.generate(" ".join(["w5"] * 500), max_new_tokens=4)
