"""Arguments of another type than a call takes: a LoaderError, whatever they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton_compile.runtime import LoaderError, Model, load
from tests.runtime import tiny

STRANGE: tuple[Any, ...] = (
    *(3, -1, 1.5, True, b"w5", object(), "", "w5 \ud800", 10**30),
    *([], [[]], [5, [6]], [[5], "w"], [None], {}, {1: 2}, {"input_ids": 3}),
    *(np.zeros((2, 2)), np.array(["a", "b"]), np.array(5), range(3), print),
)


def tried(call: Any, *arguments: Any, **named: Any) -> bool:
    """Whether it was refused as a call is; anything else but a result is raised."""
    try:
        call(*arguments, **named)
    except LoaderError:
        return True
    except Exception as error:
        raise AssertionError(f"{call.__name__} {arguments} {named}: {error!r}") from error
    return False


def test_of_paths(tmp_path: Path) -> None:
    made = tiny.encoder(tmp_path / "made")
    with load(made) as opened:  # what a build gives is a path
        assert opened.path == made.path
    assert all(tried(load, value) for value in STRANGE)
    with pytest.raises(LoaderError, match=r"^3 is no path"):
        load(3)


def test_of_every_model(embedder: Model) -> None:
    feeds = {"input_ids": [[5, 6]]}
    refused = [tried(embedder.run, value) for value in STRANGE]
    refused += [tried(embedder.run, {"input_ids": value}) for value in STRANGE]
    refused += [tried(embedder.run, {**feeds, "attention_mask": value}) for value in STRANGE]
    refused += [tried(embedder.run, {**feeds, value: 1}) for value in (3, None, (1, 2))]
    refused += [tried(embedder.run, feeds, value) for value in STRANGE]
    assert sum(refused) > 80
    for outputs in (3, "strange", ["strange"]):
        with pytest.raises(LoaderError, match=r"outputs are names of outputs|[Oo]utput [Nn]ame:s"):
            embedder.run(feeds, outputs)  # type: ignore[arg-type]
    assert [*embedder.run(feeds, "sentence_embedding")] == ["sentence_embedding"]


def test_of_encoders(embedder: Model, tmp_path: Path) -> None:
    refused = [tried(embedder.embed, value) for value in STRANGE]
    with load(tiny.encoder(tmp_path / "labels", "text-classification").path, threads=1) as model:
        refused += [tried(model.classify, value) for value in STRANGE]
    assert sum(refused) > 35


def test_of_decoders(model: Model) -> None:
    refused = [tried(model.generate, value, 2) for value in STRANGE]
    refused += [tried(model.generate, value, 2, chat=True) for value in STRANGE]
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")
    for name in (*names, "max_new_tokens", "stop", "stop_tokens", "chat"):
        how = {"max_new_tokens": 2}
        refused += [tried(model.generate, [5], **how | {name: value}) for value in STRANGE]
    assert tried(model.generate, [5], 2, start=np.array([1, 2]))
    assert tried(model.generate, [5], 2, beams=np.array([1, 2]))
    refused += [tried(model.encode, value) for value in STRANGE]
    assert tried(model.generate, "w5", 2, chat={"messages": []})
    assert not tried(model.generate, "w5", 2, chat={"self": 1})
    refused += [tried(model.chat_text, value) for value in STRANGE]
    refused += [tried(model.logits, value) for value in STRANGE]
    refused += [tried(model.logits, [5, 6], value) for value in STRANGE]
    assert sum(refused) > 200


@pytest.mark.parametrize("how", [{"threads": "x"}, {"threads": [1]}, {"target": 3}], ids=str)
def test_of_load(encoder_folder: Path, how: dict[str, Any]) -> None:
    with pytest.raises(LoaderError):
        load(encoder_folder, **how)
    for path in (5, None, b"there", ["a"]):
        with pytest.raises(LoaderError, match="is no path"):
            load(path, **how)


def test_of_load_where_links_go_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    with pytest.raises(LoaderError, match=r"no manifest\.json"):
        load(tmp_path / "one")


def test_of_a_text_without_a_token(embedder: Model) -> None:
    """Its mean was not a number."""
    for texts in ([""], ["w5", " "]):
        with pytest.raises(LoaderError, match="a text is empty"):
            embedder.embed(texts)
