"""``run`` on text: answers, words for masks, and the ways to ask wrongly."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton_compile.cli import main
from lepton_compile.cli.numbers import THREADS
from lepton_compile.cli.run import _GIVEN
from lepton_compile.recipe.schema import TASKS
from lepton_compile.runtime import LoaderError, load
from tests.runtime import tiny
from tests.runtime.test_loader_arguments import STRANGE, tried
from tests.small import bert, saved

Capture = pytest.CaptureFixture[str]
PROMPTS = ["w5 w6", "w7"]
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = (*SPECIAL, "who", "where", "is", "the", "cat", "dog", "house", "on")
QUESTION, CONTEXT = "where is the cat", "the cat is on the house the dog is where"


def build(folder: Path, kind: str, task: str) -> Path:
    """An artifact of a random BERT of one layer, whose tokenizer knows a few words."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    saved(kind, bert(vocab_size=len(WORDS), num_hidden_layers=1), folder / "model")
    ids = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", mask_token="[MASK]", unk_token="[UNK]"
    ).save_pretrained(folder / "model")
    model = ["--model", str(folder / "model"), "--task", task, "-o", str(folder / "artifact")]
    assert main(["build", *model, "--no-verify", "--no-check", "-q"]) == 0
    return folder / "artifact"


@pytest.fixture(scope="module")
def answering(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("answering")
    return build(folder, "BertForQuestionAnswering", "question-answering")


@pytest.fixture(scope="module")
def filling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("filling"), "BertForMaskedLM", "fill-mask")


def document(capsys: Capture, *arguments: str, code: int = 0) -> Any:
    assert main(["run", *arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("what", "idle"),
    [
        (("--text", "a"), ("-o", "x.npz")),
        (("--text", "a"), ("--chat",)),
        (("--text", "a"), ("--seed", "0")),
        (("--prompt", "a"), ("-o", "x.npz")),
        (("--prompt", "a"), ("--prompt-name", "query")),
        (("--question", "a", "--context", "b"), ("--temperature", "0.5")),
    ],
)
def test_options_that_nothing_comes_of(
    what: tuple[str, ...], idle: tuple[str, ...], tmp_path: Path, capsys: Capture
) -> None:
    found = document(capsys, str(tmp_path), *what, *idle, code=2)
    name = idle[0] if idle[0].startswith("--") else "--output"
    assert found["message"] == f"nothing would come of {name} here"


def test_an_answer_from_a_context(answering: Path, tmp_path: Path, capsys: Capture) -> None:
    with load(answering) as model:
        expected = model.answer(QUESTION, CONTEXT)
    asked = [str(answering), "--question", QUESTION]
    found = document(capsys, *asked, "--context", CONTEXT)
    assert found["answer"] == CONTEXT[found["start"] : found["end"]] == expected["answer"]
    assert found["score"] == pytest.approx(expected["score"])
    file = tmp_path / "context.txt"
    file.write_text(CONTEXT)
    assert document(capsys, *asked, "--context", f"@{file}") == found
    assert main(["run", *asked, "--context", CONTEXT]) == 0
    assert expected["answer"] in capsys.readouterr().out


def test_the_loader_answers_and_fills_from_a_shell(answering: Path, filling: Path) -> None:
    with load(answering) as model:
        expected = model.answer(QUESTION, CONTEXT)
    found = json.loads(script(answering, "--text", CONTEXT, "--question", QUESTION).stdout)
    assert found.pop("text") == CONTEXT
    assert found == {**expected, "score": pytest.approx(expected["score"])}
    assert "give the --question" in script(answering, "--text", CONTEXT).stderr
    text = "the [MASK] is on [MASK] house"
    masks = json.loads(script(filling, "--text", text).stdout)["words"]
    with load(filling) as model:
        best = [mask[0]["word"] for mask in model.fill(text)]
    assert [mask[0]["word"] for mask in masks] == best


def test_questions_and_blanks_that_are_no_text_are_refused(answering: Path, filling: Path) -> None:
    question: Any = 3
    with load(answering) as model, pytest.raises(LoaderError, match=r"two texts, found \[3\]"):
        model.answer(question, CONTEXT)
    with load(filling) as model, pytest.raises(LoaderError, match="takes a text, found 3"):
        model.fill(question)
    half = "\udcff"  # as a shell hands over a byte that is no text
    for pair in ((half, CONTEXT), (QUESTION, half)):
        with load(answering) as model, pytest.raises(LoaderError, match="surrogates not allowed"):
            model.answer(*pair)
    with load(filling) as model, pytest.raises(LoaderError, match="takes a text, found"):
        model.fill(f"{half} [MASK]")


def test_the_space_in_front_of_a_blank_stays(filling: Path) -> None:
    """Masks of RoBERTa's and ModernBERT's kind take it with them."""
    from tokenizers import AddedToken, Tokenizer

    with load(filling) as model:
        plain = model.fill("the [MASK] is on")
        apart = Tokenizer.from_str(model.tokenizer.to_str())
        apart.add_special_tokens([AddedToken("[MASK]", special=True, lstrip=True)])
        model.tokenizer = apart
        assert apart.encode("the [MASK] is on").offsets[2] == (3, 10)
        assert model.fill("the [MASK] is on") == plain
        assert plain[0][0]["text"] == f"the {plain[0][0]['word']} is on"


def test_how_long_and_how_many_are_numbers_from_1_on(answering: Path, filling: Path) -> None:
    blank = "the [MASK] is on"
    with load(answering) as answers, load(filling) as fills:
        for value in (*STRANGE, 0, np.array([3, 4])):
            fine = type(value) is int and value >= 1  # True is none
            assert tried(answers.answer, QUESTION, CONTEXT, longest=value) != fine
            assert tried(fills.fill, blank, top_k=value) != fine
        with pytest.raises(LoaderError, match="out of its range: longest=-1"):
            answers.answer(QUESTION, CONTEXT, longest=-1)
        with pytest.raises(LoaderError, match="out of its range: top_k='5'"):
            fills.fill(blank, top_k="5")  # type: ignore[arg-type]
        assert len(fills.fill(blank, top_k=np.int64(2))[0]) == 2  # type: ignore[arg-type]
        assert len(answers.answer(QUESTION, CONTEXT, longest=1)["answer"].split()) == 1
        assert answers.answer(QUESTION, " ")["answer"] == ""


def script(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(folder / "loader.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_words_for_masks(filling: Path, capsys: Capture) -> None:
    text = "the [MASK] is on [MASK] house"
    with load(filling) as model:
        expected = model.fill(text)
    (found,) = document(capsys, str(filling), "--text", text)
    assert [[one["word"] for one in mask] for mask in found["masks"]] == [
        [one["word"] for one in mask] for mask in expected
    ]
    assert len(found["masks"]) == 2
    assert main(["run", str(filling), "--text", text]) == 0
    assert expected[0][0]["text"] in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize(
    "asked", [["--question", QUESTION], ["--context", CONTEXT], ["--question", "x", "--text", "y"]]
)
def test_half_a_question_is_wrong_usage(answering: Path, capsys: Capture, asked: list[str]) -> None:
    assert document(capsys, str(answering), *asked, code=2)["error"] == "UsageError"


def test_a_context_that_cannot_be_read(answering: Path, capsys: Capture) -> None:
    asked = ["--question", QUESTION, "--context", "@/nowhere/text"]
    assert "/nowhere/text" in document(capsys, str(answering), *asked, code=2)["found"]


def test_a_model_for_something_else_says_so(filling: Path, capsys: Capture) -> None:
    asked = ["--question", QUESTION, "--context", CONTEXT]
    assert "fill-mask" in document(capsys, str(filling), *asked, code=2)["message"]
    assert "no [MASK]" in document(capsys, str(filling), "--text", "the cat", code=1)["message"]


def test_each_task_says_what_it_is_given_by(
    writing: Path, filling: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Of these some were told as a bug: an AttributeError for a decoder's --text."""
    (tmp_path / "a.png").touch()
    other = {writing: ["--text", "--audio", "--image"], filling: ["--prompt", "--audio", "--image"]}
    for folder, own in ((writing, "--prompt"), (filling, "--text")):
        for name in other[folder]:
            found = document(capsys, str(folder), name, str(tmp_path / "a.png"), code=2)
            assert f"does not take {name}" in found["message"]
            assert found["available"] == [own, "--inputs"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--temperature", "nan"), "'--temperature': nan is not a finite number"),
        (("--temperature", "inf"), "'--temperature': inf is not a finite number"),
        (("--top-p", "nan"), "'--top-p': nan is not a finite number"),
        (("--min-p", "nan"), "'--min-p': nan is not a finite number"),
        (("--repetition-penalty", "inf"), "'--repetition-penalty': inf is not a finite number"),
        (("--beams", "2", "--length-penalty", "nan"), "nan is not a finite number"),
        (("--beams", "2", "--length-penalty", "51"), "51.0 is not in the range"),
        (("--threads", "1025"), "'--threads': 1025 is not in the range"),
        (("--target", "trt"), "the artifact has no such engine"),
        (("--target", ""), "the artifact has no such engine"),
    ],
)
def test_options_that_no_model_takes_are_wrong_usage(
    writing: Path, capsys: Capture, flags: tuple[str, ...], said: str
) -> None:
    """As --temperature -1 was; the loader's own word for these is a failure."""
    found = document(capsys, str(writing), "--prompt", "w5", *flags, code=2)
    assert said in found["message"]
    if flags[0] == "--target":
        assert (found["found"], found["available"]) == (flags[1], ["ort-cpu"])


def test_as_many_threads_as_a_loader_takes(writing: Path, capsys: Capture) -> None:
    for number in (THREADS.min, THREADS.max):
        assert document(capsys, str(writing), "--prompt", "w5", "--threads", str(number))["tokens"]
    with pytest.raises(LoaderError, match="threads are 1 to 1024"):
        load(writing, threads=int(THREADS.max or 0) + 1)


def test_every_task_is_given_something() -> None:
    assert {*TASKS} == {*_GIVEN}


@pytest.fixture(scope="module")
def writing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.decoder(tmp_path_factory.mktemp("writing") / "artifact").path


OPTIONS = [
    ({"temperature": 1.5, "seed": 0}, ["--temperature", "1.5", "--seed", "0"]),
    (
        {"temperature": 1.5, "seed": 3, "min_p": 0.1, "top_k": 9, "top_p": 0.9},
        ["--temperature", "1.5", "--seed", "3", "--min-p", "0.1", "--top-k", "9", "--top-p", "0.9"],
    ),
    ({"repetition_penalty": 3.0}, ["--repetition-penalty", "3.0"]),
    ({"stop": ["w9", "w1"]}, ["--stop", "w9", "--stop", "w1"]),
    ({"stop_tokens": [*range(20, 60)]}, [f"--stop-token={n}" for n in range(20, 60)]),
    ({"chat": True}, ["--chat"]),
]


@pytest.mark.parametrize(("options", "flags"), OPTIONS)
def test_options_reach_the_model(
    writing: Path, capsys: Capture, options: dict[str, Any], flags: list[str]
) -> None:
    with load(writing) as model:
        (one,) = model.generate(PROMPTS[:1], max_new_tokens=12, **options)
        expected = model.generate(PROMPTS, max_new_tokens=12, **options)
    asked = [str(writing), "--max-new-tokens", "12", *flags]
    found = document(capsys, *asked, "--prompt", PROMPTS[0])
    assert (found["tokens"], found["text"], found["finish"]) == (one.tokens, one.text, one.finish)
    both = document(capsys, *asked, "--prompt", PROMPTS[0], "--prompt", PROMPTS[1])
    assert [made["tokens"] for made in both] == [made.tokens for made in expected]
    assert main(["run", *asked, "--prompt", PROMPTS[0]]) == 0
    assert capsys.readouterr().out == f"{one.text}\n"
    assert main(["run", *asked, "--prompt", PROMPTS[0], "--prompt", PROMPTS[1]]) == 0
    assert capsys.readouterr().out.splitlines() == [made.text for made in expected]


def test_by_default_a_continuation_stays_within_the_cache(writing: Path, capsys: Capture) -> None:
    found = document(capsys, str(writing), "--prompt", " ".join(["w5"] * 90))
    assert len(found["tokens"]) == 6 or found["finish"] == "eos"


def test_engines_that_were_passed_over_are_told(tmp_path: Path, capsys: Capture) -> None:
    plan = b"", {"requires": {"tensorrt": "99"}}
    made = tiny.decoder(tmp_path / "both", plans={"trt": plan})
    asked = ["run", str(made.path), "--prompt", "w5", "--json"]
    assert main(asked) == 0
    said = capsys.readouterr()
    assert said.err.count("the engine for trt does not run here: this engine needs tensorrt") == 1
    assert json.loads(said.out)["finish"]
    assert main([*asked, "--target", "ort-cpu"]) == 0
    assert "does not run here" not in capsys.readouterr().err
    assert main([*asked, "--target", "trt"]) == 1
