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
    for texts, at in (([""], 0), (["w5", " "], 1)):
        with pytest.raises(LoaderError, match=rf"the text at \[{at}\] is empty"):
            embedder.embed(texts)


BAD: tuple[Any, ...] = (None, 3, b"w5", float("nan"), "w5 \udcff", {}, object())


def test_of_one_text_among_many(embedder: Model, tmp_path: Path) -> None:
    """What is wrong with it is told with its place: who has thousands looks there."""
    pairs = (["w5", None], ("w5", "w6 \udcff"), [["w5"], "w6"])
    with load(tiny.encoder(tmp_path / "labels", "text-classification").path, threads=1) as model:
        for bad in (*BAD[:5], *BAD[6:], *pairs):
            with pytest.raises(LoaderError, match=r"give a list of texts.*: number 40 of them is "):
                model.classify(["w5 w6"] * 40 + [bad, "w7"])
    with load(tiny.encoder(tmp_path / "tokens", "token-classification").path, threads=1) as model:
        for call in (embedder.embed, model.entities):
            for bad in (*BAD, *pairs, ["w5", "w6"], ("w5", "w6"), ["w5"]):  # a pair is no text
                with pytest.raises(LoaderError, match=": number 40 of them is "):
                    call(["w5 w6"] * 40 + [bad, "w7"])


def test_of_texts_in_other_containers(embedder: Model) -> None:
    texts, several = ["w5 w6", "w7"], (tuple, iter, np.array, dict.fromkeys)
    for made in several:
        assert np.array_equal(embedder.embed(made(texts)), embedder.embed(texts))  # type: ignore[operator]
    assert tried(embedder.embed, np.array([texts]))


def test_numbers_of_numpy_are_numbers(model: Model) -> None:
    """Of eight bits they had sums and negatives of eight bits."""
    usual: dict[str, Any] = {"temperature": 0.9, "top_k": 5, "seed": 3, "max_new_tokens": 6}
    usual |= {"top_p": 0.75, "min_p": 0.125, "repetition_penalty": 1.25}
    expected = model.generate([5] * 40, **usual).tokens
    whole, real = (np.uint8, np.int8, np.int64, np.array), (np.float16, np.float32, np.float64)
    for name, value in usual.items():
        for kind in real if isinstance(value, float) else whole:
            if name == "temperature":
                value = float(kind(value))
            found = model.generate([5] * 40, **usual | {name: kind(value)}).tokens
            wanted = model.generate([5] * 40, **usual | {name: value}).tokens
            assert found == wanted, (name, kind)
            assert name == "temperature" or wanted == expected


def test_what_float32_has_no_room_for_is_refused(model: Model) -> None:
    for given in ({"repetition_penalty": 5e-324}, {"repetition_penalty": 1e300}):
        with pytest.raises(LoaderError, match="out of its range: repetition_penalty="):
            model.generate([5], **given)
    with pytest.raises(LoaderError, match="out of its range: temperature="):
        model.generate([5], temperature=1e300)


def test_true_is_no_number(model: Model, tmp_path: Path) -> None:
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")
    for name in (*names, "max_new_tokens"):
        for value in (True, np.True_):
            with pytest.raises(LoaderError, match=f"out of its range: {name}="):
                model.generate([5], **{name: value})
    with pytest.raises(LoaderError, match="stop_tokens takes token ids"):
        model.generate([5], stop_tokens=[True])
