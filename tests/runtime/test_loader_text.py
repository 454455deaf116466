"""Text in and out: pieces that join to the whole, stop texts, chats, embeddings, labels."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_compile.runtime import LoaderError, Model, load
from lepton_compile.runtime.loader_guard import failing
from lepton_compile.runtime.loader_words import Words
from tests.runtime import tiny


class Source:
    """What Words needs of its owner: a tokenizer of bytes."""

    def __init__(self) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_str(tiny.tokenizer_json("bytes"))

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)


SOURCE = Source()


def pieces(ids: list[int], stop: list[str] | None = None, prompt: str = "a") -> tuple[str, ...]:
    """What comes out for ``ids``, token by token, up to a stop text."""
    words = Words(SOURCE, SOURCE.ids(prompt), stop or [])  # type: ignore[arg-type]
    found = []
    for number, token in enumerate(ids):
        found.append(words.push([token], final=number == len(ids) - 1))
        if words.stopped:
            break
    assert "".join(found) == words.text
    return tuple(found)


texts = st.text(alphabet="äöü€😀 abcxyz", min_size=1, max_size=30)


@settings(max_examples=150, deadline=None)
@given(text=texts)
def test_pieces_are_whole_characters_that_join_to_the_text(text: str) -> None:
    found = pieces(SOURCE.ids(text))
    assert "".join(found) == text
    assert not any("\ufffd" in piece for piece in found)


@settings(max_examples=200, deadline=None)
@given(text=texts, stop=st.lists(st.text(alphabet="äab😀 ", min_size=1, max_size=3), max_size=3))
def test_nothing_of_a_stop_text_ever_comes_out(text: str, stop: list[str]) -> None:
    cuts = [text.find(one) for one in stop if one in text]
    joined = "".join(pieces(SOURCE.ids(text), stop))
    if not cuts:
        assert joined == text
        return
    assert text.startswith(joined)
    assert not any(one in joined for one in stop)
    # The text ends where the stop text that is complete first begins.
    ends = {text.find(one) + len(one): text.find(one) for one in stop if one in text}
    assert len(joined) <= max(cuts)
    assert len(joined) in {*cuts, ends[min(ends)]}


@given(text=st.text(alphabet="abc", min_size=1, max_size=9))
def test_what_is_no_part_of_a_stop_text_comes_at_once(text: str) -> None:
    for stop in ([], ["xa", "zzz"]):
        assert pieces(SOURCE.ids(text), stop) == tuple(text)


def test_of_stop_texts_that_come_together_the_first_ends_the_text() -> None:
    words = Words(SOURCE, SOURCE.ids("a"), ["z", "y"])  # type: ignore[arg-type]
    assert words.push(SOURCE.ids("xyz"), final=False) == "x"
    assert words.stopped


def test_an_unfinished_character_at_the_end_is_left_out() -> None:
    assert "".join(pieces(SOURCE.ids("a😀")[:-1])) == "a"


def test_a_prompt_that_ends_within_a_character_harms_nothing() -> None:
    head, tail = SOURCE.ids("😀b")[:2], SOURCE.ids("b")
    words = Words(SOURCE, head, [])  # type: ignore[arg-type]
    assert words.push(tail, final=True) == "b"


def test_a_prompt_that_ends_in_characters_of_several_bytes() -> None:
    """Of these tokenizers one byte that is no character spoils all bytes beside it."""
    from tokenizers import Tokenizer, decoders, models

    words = ["▁I", "▁", "▁you", "▁are", *(f"<0x{byte:02X}>" for byte in range(256))]
    ids = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(ids, [], byte_fallback=True))
    steps = [decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), *steps])
    source = Source()
    source.tokenizer = tokenizer
    for said in ("你好", "😀", "a", "é你😀好"):
        prompt = [ids["▁I"], ids["▁"], *(ids[f"<0x{byte:02X}>"] for byte in said.encode())]
        made = Words(source, prompt, [])
        assert made.push([ids["▁you"], ids["▁are"]], final=True) == " you are", said
        begun = Words(source, prompt, [])
        for byte in "😀".encode():
            begun.push([ids[f"<0x{byte:02X}>"]], final=False)
        assert begun.text == "😀", said
        # Nor does one that an answer is cut off in, whether it comes at once or token by token.
        for cut in (0, 1, 2, 3):
            answer = [ids["▁you"], *prompt[2:], *(ids[f"<0x{b:02X}>"] for b in "😀".encode()[:cut])]
            whole, piece = Words(source, prompt[:1], []), Words(source, prompt[:1], [])
            assert whole.push(answer, final=True) == f" you{said}"
            for token in answer:
                piece.push([token], final=False)
            piece.push([], final=True)
            assert piece.text == whole.text


def test_streamed_pieces_join_to_the_text_of_the_whole(model: Model) -> None:
    for options in ({}, {"temperature": 1.2, "seed": 5}, {"stop": ["w1", "zz"]}):
        whole = model.generate("w5 w6 w7", max_new_tokens=20, **options)
        streamed = list(model.generate("w5 w6 w7", max_new_tokens=20, stream=True, **options))
        assert "".join(streamed) == whole.text
        assert all(streamed)


def test_generation_ends_before_a_stop_text(model: Model) -> None:
    whole = model.generate("w5 w6 w7", max_new_tokens=20).text
    stop = whole.split()[3]
    found = model.generate("w5 w6 w7", max_new_tokens=20, stop=stop)
    assert found.text == whole[: whole.index(stop)]
    assert found.finish == "stop"
    assert len(found.tokens) < 20


def test_a_special_token_ends_a_text_as_any_stop_text_does(model: Model) -> None:
    how: dict[str, Any] = {"max_new_tokens": 60, "temperature": 9.0}
    bos = model.tokenizer.token_to_id("<bos>")
    seed = next(n for n in range(99) if bos in model.generate("w5", seed=n, **how).tokens)
    whole = model.generate("w5", seed=seed, **how)
    found = model.generate("w5", seed=seed, stop=["<bos>", "never said"], **how)
    assert found.tokens == whole.tokens[: whole.tokens.index(bos)]
    assert found.finish == "eos"


def test_the_text_of_ids_is_there_when_asked_for(model: Model) -> None:
    from_text = model.generate("w5 w6 w7", max_new_tokens=8)
    from_ids = model.generate([5, 6, 7], max_new_tokens=8)
    assert from_ids.tokens == from_text.tokens
    assert from_ids.text == from_text.text


def test_ids_need_no_tokenizers_library(
    decoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with load(decoder_folder, threads=1) as model:
        found = model.generate([5, 6, 7], max_new_tokens=4)
        assert len(found.tokens) == 4 or found.finish == "eos"
        for call in (lambda: found.text, lambda: model.generate("w5", max_new_tokens=4)):
            with pytest.raises(LoaderError, match="pip install tokenizers"):
                call()


def test_a_chat_goes_through_the_template(model: Model) -> None:
    expected = model.generate([2, 5, 6, 9], max_new_tokens=8).tokens
    messages = [{"role": "user", "content": "w5"}, {"role": "assistant", "content": "w6"}]
    assert model.chat_text(messages) == "<bos> w5  w6  w9 "
    for options in (
        {"prompt": messages},
        {"prompt": "", "chat": messages},
        {"prompt": "w6", "chat": messages[:1]},
        {"prompt": "w5 w6", "chat": True},
    ):
        assert model.generate(**options, max_new_tokens=8).tokens == expected


def test_a_batch_of_chats(model: Model) -> None:
    together = model.generate(["w5 w6", "w7"], chat=True, max_new_tokens=5)
    alone = [model.generate(one, chat=True, max_new_tokens=5) for one in ("w5 w6", "w7")]
    assert [one.tokens for one in together] == [one.tokens for one in alone]


def test_a_template_may_refuse_and_cannot_escape(model: Model, tmp_path: Path) -> None:
    with pytest.raises(LoaderError, match="no aliens"):
        model.generate([{"role": "alien", "content": "w5"}], max_new_tokens=4)
    unsafe = "{{ messages.__class__.__mro__[1].__subclasses__() }}"
    tiny.decoder(tmp_path / "unsafe", template=unsafe)
    with load(tmp_path / "unsafe", threads=1) as other, pytest.raises(LoaderError, match="fails"):
        other.generate("w5", chat=True, max_new_tokens=4)


def test_without_a_template_or_jinja2_the_error_is_plain(
    decoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = load(tiny.decoder(tmp_path / "plain", template=None).path, threads=1)
    with pytest.raises(LoaderError, match="no chat template"):
        other.generate("w5", chat=True, max_new_tokens=4)
    monkeypatch.setitem(sys.modules, "jinja2.sandbox", None)
    with load(decoder_folder) as model, pytest.raises(LoaderError, match="pip install jinja2"):
        model.generate("w5", chat=True, max_new_tokens=4)


TEXTS = ["w5 w6 w7", "w9", " ".join(f"w{n}" for n in range(4, 12)), "w6"] * 10


def test_embeddings_are_those_of_each_text_alone(embedder: Model) -> None:
    found = embedder.embed(TEXTS)
    assert found.shape == (40, 32)
    alone = np.concatenate([embedder.embed([text]) for text in TEXTS[:4]])
    assert found == pytest.approx(np.tile(alone, (10, 1)), abs=1e-6)


def test_without_pooling_in_the_graph_the_mean_is_taken(embedder: Model, tmp_path: Path) -> None:
    tiny.encoder(tmp_path / "plain", pooled=False)
    with load(tmp_path / "plain", threads=1) as plain:
        assert plain.embed(TEXTS[:4]) == pytest.approx(embedder.embed(TEXTS[:4]), abs=1e-5)


def test_long_texts_are_cut_and_no_texts_are_refused(embedder: Model, tmp_path: Path) -> None:
    long = " ".join(["w5"] * 40)
    assert embedder.embed([long]) == pytest.approx(embedder.embed(["w5 " * 16]), abs=1e-6)
    other = load(tiny.encoder(tmp_path / "short", limit=5).path, threads=1)
    words = [f"w{n}" for n in range(4, 18)]
    found, short = other.embed([" ".join(words)]), " ".join(words[:5])
    assert found == pytest.approx(embedder.embed([short]), abs=1e-6)
    assert found != pytest.approx(embedder.embed([" ".join(words[:6])]), abs=1e-3)
    for other in ("w5", 5, None, [5], [b"w5"]):
        with pytest.raises(LoaderError, match="give a list of texts, not "):
            embedder.embed(other)  # type: ignore[arg-type]
    for other, why in (([], "it is empty"), ("", "it is empty"), ("w5 w6", "it is a text")):
        with pytest.raises(LoaderError, match=f"give a list of texts, not .*: {why}"):
            embedder.embed(other)  # type: ignore[arg-type]


HALF = "w5 \udcff"  # as a shell hands over a byte that is no text


def test_what_is_no_text_is_refused(model: Model, embedder: Model) -> None:
    for prompt in ([""], {"a": 1}, 3):
        with pytest.raises(LoaderError, match="there is no prompt"):
            embedder.embed(["w5"], prompt)  # type: ignore[arg-type]
    with pytest.raises(LoaderError, match="give a list of texts"):
        embedder.embed([HALF])
    for chat in (False, True):
        with pytest.raises(LoaderError, match="surrogates not allowed"):
            model.generate(HALF, chat=chat, max_new_tokens=2)


def test_labels_of_texts_and_pairs(tmp_path: Path) -> None:
    tiny.encoder(tmp_path / "labels", "text-classification")
    with load(tmp_path / "labels", threads=1) as model:
        found = model.classify(["w5 w6", ("w5", "w6")])
        ids, mask = [[5, 6]], [[1, 1]]
        alone = model.run({"input_ids": ids, "attention_mask": mask})["logits"][0]
        paired = model.run({"input_ids": ids, "token_type_ids": [[0, 1]]})["logits"][0]
    for one, logits in zip(found, (alone, paired), strict=True):
        assert list(one.values()) == sorted(one.values(), reverse=True)
        weights = np.exp(logits - logits.max())
        expected = dict(zip(("bad", "so so", "good"), weights / weights.sum(), strict=True))
        assert one == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("how", ["softmax", "sigmoid", "none"])
def test_scores_are_what_the_model_was_trained_to_give(how: str, tmp_path: Path) -> None:
    tiny.encoder(tmp_path / "labels", "text-classification", score=how)
    with load(tmp_path / "labels", threads=1) as model:
        (found,) = model.classify(["w5 w6"])
        logits = model.run({"input_ids": [[5, 6]]})["logits"][0]
    made = {
        "softmax": np.exp(logits) / np.exp(logits).sum(),
        "sigmoid": 1 / (1 + np.exp(-logits)),
        "none": logits,
    }
    assert found == pytest.approx(dict(zip(("bad", "so so", "good"), made[how], strict=True)))
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_labels_of_tokens(tmp_path: Path) -> None:
    tiny.encoder(tmp_path / "tokens", "token-classification")
    with load(tmp_path / "tokens", threads=1) as model:
        found = model.classify(["w5 w6 w7", "w6"])
    assert [len(one) for one in found] == [3, 1]
    assert found[0][1] == pytest.approx(found[1][0])
    assert set(found[1][0]) == {"bad", "so so", "good"}


def test_fewer_texts_than_the_engine_takes_are_filled_up(embedder: Model, tmp_path: Path) -> None:
    """Rows and tokens: the engine itself takes any, so that what it is fed can be compared."""
    with load(tiny.encoder(tmp_path / "four", least=4).path, threads=1) as model:
        with pytest.raises(LoaderError, match="batch from 4 to 64, found 1"):
            model.run({"input_ids": [[5, 6, 7, 8]]})
        for texts in (TEXTS[:1], TEXTS[:3], TEXTS[:4], TEXTS):
            assert model.embed(texts) == pytest.approx(embedder.embed(texts), abs=1e-6)
    labels = {"task": "text-classification"}
    alone = load(tiny.encoder(tmp_path / "labels", **labels).path, threads=1)  # type: ignore[arg-type]
    made = tiny.encoder(tmp_path / "three", least=3, **labels)  # type: ignore[arg-type]
    with load(made.path, threads=1) as model:
        (found,) = model.classify(["w5 w6"])
    assert found == pytest.approx(alone.classify(["w5 w6"])[0])


@pytest.mark.parametrize("shared", [True, False])
def test_fewer_prompts_than_the_engine_takes_are_filled_up(
    model: Model, tmp_path: Path, shared: bool
) -> None:
    hot = {"temperature": 1.3, "seed": 4, "max_new_tokens": 6}
    made = tiny.decoder(tmp_path / "three", shared=shared, least=3)
    with load(made.path, threads=1) as other:
        for how in ({"max_new_tokens": 6}, hot):
            expected = model.generate("w5 w6", **how)
            found = other.generate("w5 w6", **how)
            assert (found.tokens, found.text) == (expected.tokens, expected.text)
            assert "".join(other.generate("w5 w6", stream=True, **how)) == expected.text
            both = other.generate(["w7", "w5 w6 w8"], **how)
            wanted = model.generate(["w7", "w5 w6 w8"], **how)
            assert [row.tokens for row in both] == [row.tokens for row in wanted]


@pytest.mark.parametrize("kind", ["text-generation", "feature-extraction"])
def test_a_panic_of_the_tokenizers_library_is_an_error_of_ours(kind: str, tmp_path: Path) -> None:
    """Its template names a token that it has not, which the library finds out with the first text.
    What it raises is no Exception."""
    made = (
        tiny.decoder(tmp_path / "a") if kind == "text-generation" else tiny.encoder(tmp_path / "a")
    )
    with load(made.path) as model:
        whole = json.loads(model.tokenizer.to_str())
        parts = [
            {"SpecialToken": {"id": "<q>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ]
        template = {"single": parts, "pair": [], "special_tokens": {}}
        whole["post_processor"] = {"type": "TemplateProcessing", **template}
        model.tokenizer = type(model.tokenizer).from_str(json.dumps(whole))
        with pytest.raises(LoaderError) as caught:
            model.encode("w5") if kind == "text-generation" else model.embed(["w5"])
        assert type(caught.value.__cause__).__name__ == "PanicException"


def test_who_ends_it_ends_it() -> None:
    for kind in (KeyboardInterrupt, SystemExit, GeneratorExit):
        with pytest.raises(kind), failing("what"):
            raise kind
