"""The loader: arrays in and out, what it checks about them, and what kind of file it is."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton_compile.runtime import LoaderError, Model, load
from lepton_compile.runtime.loader_ort import open_onnxruntime
from tests.runtime import tiny, truth

ROWS = [[2, 7, 9, 20, 31], [5, 8], [2, 33, 4]]


def padded(rows: list[list[int]], side: str) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask of rows, padded on one side."""
    width = max(map(len, rows))
    gaps = [[0] * (width - len(row)) for row in rows]
    ones = [[1] * len(row) for row in rows]
    left = side == "left"
    ids = [[*gap, *row] if left else [*row, *gap] for row, gap in zip(rows, gaps, strict=True)]
    mask = [[*gap, *one] if left else [*one, *gap] for one, gap in zip(ones, gaps, strict=True)]
    return np.array(ids), np.array(mask)


def test_logits_of_rows_of_any_length(model: Model) -> None:
    found = model.logits(ROWS)
    assert found.dtype == np.float32
    assert found.shape == (3, 5, tiny.VOCABULARY)
    for row, logits in zip(ROWS, found, strict=True):
        assert logits[: len(row)] == pytest.approx(truth.logits(tiny.weights(), row), abs=1e-4)


def test_logits_of_one_row(model: Model) -> None:
    expected = truth.logits(tiny.weights(), ROWS[0])
    assert model.logits(ROWS[0])[0] == pytest.approx(expected, abs=1e-4)
    assert model.logits(np.array([ROWS[0]]))[0] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_may_stand_on_either_side(model: Model, side: str) -> None:
    ids, mask = padded(ROWS, side)
    found = model.logits(ids, mask)
    for row, ones, logits in zip(ROWS, mask, found, strict=True):
        expected = truth.logits(tiny.weights(), row)
        assert logits[ones == 1] == pytest.approx(expected, abs=1e-4)


def test_the_last_logits_of_left_padded_rows(model: Model) -> None:
    ids, mask = padded(ROWS, "left")
    feeds = {"input_ids": ids, "attention_mask": mask, "logits_to_keep": 1}
    found = model.run(feeds, ["logits"])["logits"]
    assert found.shape == (3, 1, tiny.VOCABULARY)
    for row, logits in zip(ROWS, found, strict=True):
        assert logits[0] == pytest.approx(truth.logits(tiny.weights(), row)[-1], abs=1e-4)


def test_a_caller_may_carry_the_cache(model: Model) -> None:
    ids = [2, 7, 9, 20]
    results = model.run({"input_ids": [ids[:3]]})
    names = [name for name in results if name.startswith("present.")]
    assert len(names) == 2 * tiny.LAYERS
    past = {name.replace("present", "past_key_values"): results[name] for name in names}
    step = model.run({"input_ids": [ids[3:]], **past}, ["logits"])
    expected = truth.logits(tiny.weights(), ids)[-1]
    assert step["logits"][0, -1] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_rows_go_on_from_a_past_by_one_token(model: Model, side: str) -> None:
    """Kernels take the last of a row's tokens for the new ones, and count them from their mask."""
    ids, mask = padded(ROWS, side)
    results = model.run({"input_ids": ids, "attention_mask": mask})
    past = {
        name.replace("present", "past_key_values"): array
        for name, array in results.items()
        if name.startswith("present.")
    }
    longer = np.concatenate([mask, np.ones((3, 1), np.int64)], axis=1)
    step = {"input_ids": [[11]] * 3, "attention_mask": longer, **past}
    for row, logits in zip(ROWS, model.run(step, ["logits"])["logits"], strict=True):
        expected = truth.logits(tiny.weights(), [*row, 11])[-1]
        assert logits[-1] == pytest.approx(expected, abs=1e-4)
    longer = np.concatenate([mask, np.ones((3, 2), np.int64)], axis=1)
    two = {"input_ids": [[11, 12]] * 3, "attention_mask": longer, **past}
    with pytest.raises(LoaderError, match="padded rows go on by one token at a time"):
        model.run(two, ["logits"])


def test_what_may_be_left_out_is_filled_in(embedder: Model) -> None:
    ids = np.array([[5, 6, 7]])
    whole = {"input_ids": ids, "attention_mask": ids * 0 + 1, "token_type_ids": ids * 0}
    expected = embedder.run(whole)
    found = embedder.run({"input_ids": ids.tolist()})
    assert set(found) == {"last_hidden_state", "sentence_embedding"}
    for name in found:
        assert found[name] == pytest.approx(expected[name])
    assert set(embedder.run(whole, ["sentence_embedding"])) == {"sentence_embedding"}


@pytest.mark.parametrize("dtype", [np.int32, np.int16, np.uint8, np.bool_])
def test_whole_numbers_of_any_type_go_in(embedder: Model, dtype: type) -> None:
    mask = np.ones((1, 3), dtype)
    found = embedder.run({"input_ids": np.array([[5, 6, 7]]), "attention_mask": mask})
    assert found["sentence_embedding"].shape == (1, 32)


@pytest.mark.parametrize(
    ("feeds", "said"),
    [
        ({}, r"no value for the inputs \['input_ids'"),
        (
            {"ids": [[5]]},
            r"no input is called \['ids'\]; there are \['input_ids', 'attention_mask'",
        ),
        ({"input_ids": [[5.0]]}, "input_ids takes int64"),
        ({"input_ids": [[5], [5, 6]]}, "input_ids takes int64"),
        ({"input_ids": [["w5"]]}, "input_ids takes int64"),
        ({"input_ids": [5]}, r"input_ids takes int64 .* found \(1,\)"),
        ({"input_ids": [[5] * 17]}, "sequence from 1 to 16, found 17"),
        ({"input_ids": [[5]] * 65}, "batch from 1 to 64, found 65"),
        ({"input_ids": np.zeros((1, 0), int)}, "sequence from 1 to 16, found 0"),
        ({"input_ids": [[5, 64]]}, r"\[64\] are outside the vocabulary, 0 to 63"),
        ({"input_ids": [[5, -1]]}, r"input_ids: \[-1\] are outside the vocabulary, 0 to 63"),
        (
            {"input_ids": [[5, 6]], "token_type_ids": [[0, 2]]},
            r"token_type_ids: \[2\] are outside its range, 0 to 1",
        ),
        ({"input_ids": [[5]], "attention_mask": [[1, 1]]}, "attention_mask must be 1 x 1"),
        ({"input_ids": [[5]], "token_type_ids": [[0], [0]]}, r"batch is \d in \w+ but \d in"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(
    embedder: Model, feeds: dict[str, object], said: str
) -> None:
    with pytest.raises(LoaderError, match=said):
        embedder.run(feeds)


@pytest.mark.parametrize("feeds", [[[5, 6]], None, "w5"])
def test_what_is_no_mapping_is_refused(embedder: Model, feeds: Any) -> None:
    with pytest.raises(LoaderError, match="run takes arrays by name, not <class"):
        embedder.run(feeds)


def test_a_call_that_is_right_makes_no_words_of_its_arrays(embedder: Model, model: Model) -> None:
    """numpy takes 0.3 ms to tell 128 numbers: a tenth of what MiniLM takes for them."""

    class Silent(np.ndarray[Any, Any]):
        def __repr__(self) -> str:
            raise AssertionError("nobody asked")

        __str__ = __repr__

    ids = np.array([[5, 6, 7]]).view(Silent)
    assert np.isfinite(embedder.run({"input_ids": ids})["sentence_embedding"]).all()
    assert model.logits(ids).shape == (1, 3, tiny.VOCABULARY)
    assert model.generate(ids[0], max_new_tokens=2).tokens


@pytest.mark.parametrize("ids", [[], None, 5, [[5], 6], {}, np.array(5)], ids=repr)
def test_logits_of_what_is_no_row_are_refused(model: Model, ids: Any) -> None:
    with pytest.raises(LoaderError, match="logits takes token ids, or rows of them: "):
        model.logits(ids)


def test_a_row_beyond_the_cache_is_refused(model: Model) -> None:
    past = np.zeros((1, tiny.KV_HEADS, 90, tiny.HEAD_DIM), np.float32)
    names = [f"past_key_values.{n}.{kind}" for n in range(tiny.LAYERS) for kind in ("key", "value")]
    feeds = {"input_ids": [[5] * 7], **dict.fromkeys(names, past)}
    with pytest.raises(LoaderError, match="97 tokens, and the cache holds 96"):
        model.run(feeds)


def test_a_closed_model_says_so(encoder_folder: Path, decoder_folder: Path) -> None:
    with load(encoder_folder, threads=1) as opened:
        opened.embed(["w5"])
    with pytest.raises(LoaderError, match="closed"):
        opened.embed(["w5"])
    writer = load(decoder_folder, threads=1)
    writer.generate([5], max_new_tokens=2)
    writer.close()
    with pytest.raises(LoaderError, match="closed"):
        writer.generate([5], max_new_tokens=2)


def test_a_model_that_is_closed_meanwhile_still_answers(encoder_folder: Path) -> None:
    opened = load(encoder_folder, threads=1)

    class Closing(list[Any]):
        """Ids that are read once the call has begun."""

        def __array__(self, *_: Any, **named: Any) -> np.ndarray:
            opened.close()
            return np.array([[1, 1]])

    with pytest.raises(LoaderError, match="closed"):
        opened.run({"attention_mask": Closing(), "input_ids": [[5, 6]]})
    opened = load(encoder_folder, threads=1)
    assert opened.run({"input_ids": [[5, 6]], "attention_mask": Closing()})


def test_threads_and_targets(decoder_folder: Path) -> None:
    with load(decoder_folder, target="ort-cpu") as model:
        assert model.threads >= 1
        assert model.session.get_session_options().intra_op_num_threads == model.threads
    with pytest.raises(LoaderError, match=r"no engine for trt-rtx .* \['ort-cpu'\]"):
        load(decoder_folder, target="trt-rtx")


def test_idle_threads_leave_the_processor_to_other_models(decoder_folder: Path) -> None:
    """By default they keep it for longer than a token takes."""
    with load(decoder_folder, threads=2) as model:
        model.generate([5], max_new_tokens=2)
        before = time.process_time()
        time.sleep(0.05)
        used = time.process_time() - before
        said = model.session.get_session_options()
        assert said.get_session_config_entry("session.intra_op.spin_duration_us") == "100"
    assert used < 0.01


@pytest.mark.parametrize("threads", [0, -1, 1025, 1.5, 2.0, True, "2", [2], np.array([1, 2])])
def test_threads_that_no_machine_has(decoder_folder: Path, threads: Any) -> None:
    """A hundred thousand were waited for; less than one were as many as there are cores."""
    with pytest.raises(LoaderError, match="threads are 1 to 1024"):
        load(decoder_folder, threads=threads)


def test_an_engine_for_a_newer_runtime_is_refused(model: Model) -> None:
    engine = {**model.engine, "requires": {"onnxruntime": ">=99.1"}}
    with pytest.raises(LoaderError, match=r"needs onnxruntime>=99\.1.*, and found 1\."):
        open_onnxruntime(model.path, model.manifest, engine, 1)


def script(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """loader.py of the artifact, run from elsewhere, in a Python that cannot see the project."""
    command = [sys.executable, "-I", str(folder / "loader.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")


def test_the_script_continues_a_prompt(decoder_folder: Path, model: Model) -> None:
    expected = f"{model.generate('w5 w6', max_new_tokens=8).text}\n"
    for flags in ([], ["--stream"]):
        done = script(decoder_folder, "--prompt", "w5 w6", "--max-new-tokens", 8, *flags)
        assert (done.returncode, done.stderr, done.stdout) == (0, "", expected)
    expected = model.generate("w5", max_new_tokens=8, chat=True, temperature=1.5, seed=3).text
    more = ["--chat", "--temperature", 1.5, "--seed", 3, "--max-new-tokens", 8]
    assert script(decoder_folder, "--prompt", "w5", *more).stdout == f"{expected}\n"


def test_the_script_takes_all_that_generate_takes(decoder_folder: Path, model: Model) -> None:
    prompts, how = ["w5 w6", "w7"], {"temperature": 1.5, "min_p": 0.02, "repetition_penalty": 1.3}
    ends = {"stop": ["w9"], "stop_tokens": [11, 12]}
    expected = model.generate(prompts, max_new_tokens=8, seed=0, **how, **ends)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in how.items()]
    flags += ["--seed", 0, "--max-new-tokens", 8, "--stop", "w9"]
    flags += ["--stop-token", 11, "--stop-token", 12]
    done = script(decoder_folder, "--prompt", *prompts, *flags, "--json")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["prompt"], one["text"], one["tokens"], one["finish"]) for one in found] == [
        (prompt, one.text, one.tokens, one.finish)
        for prompt, one in zip(prompts, expected, strict=True)
    ]
    plain = script(decoder_folder, "--prompt", *prompts, *flags)
    assert plain.stdout.splitlines() == [one.text for one in expected]
    assert "takes one prompt" in script(decoder_folder, "--prompt", *prompts, "--stream").stderr


def test_the_script_embeds_and_labels(
    encoder_folder: Path, embedder: Model, tmp_path: Path
) -> None:
    done = script(encoder_folder, "--text", "w5 w6", "w7")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["text"] for line in lines] == ["w5 w6", "w7"]
    found = np.array([line["embedding"] for line in lines])
    assert found == pytest.approx(embedder.embed(["w5 w6", "w7"]), abs=1e-6)
    tiny.encoder(tmp_path / "labels", "text-classification")
    (line,) = script(tmp_path / "labels", "--text", "w5").stdout.splitlines()
    assert set(json.loads(line)["labels"]) == {"bad", "so so", "good"}


def test_the_script_runs_arrays(encoder_folder: Path, embedder: Model, tmp_path: Path) -> None:
    feeds = {"input_ids": np.array([[5, 6, 7]])}
    np.savez(tmp_path / "in.npz", **feeds)
    arguments = ["--inputs", tmp_path / "in.npz", "--output", tmp_path / "out.npz"]
    done = script(encoder_folder, *arguments)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out.npz") as found:
        assert found["sentence_embedding"] == pytest.approx(
            embedder.run(feeds)["sentence_embedding"]
        )


def test_options_of_the_script_that_nothing_comes_of_are_refused(
    encoder_folder: Path, decoder_folder: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "in.npz", input_ids=np.array([[5, 6, 7]]))
    arrays, output = ["--inputs", tmp_path / "in.npz"], ["--output", tmp_path / "out.npz"]
    for folder, what, idle in (
        (encoder_folder, ["--text", "w5"], output),
        (decoder_folder, ["--prompt", "w5"], output),
        (decoder_folder, arrays, ["--stop", "w5"]),
        (decoder_folder, arrays, ["--seed", 0]),
        (decoder_folder, [*arrays, *output], ["--chat"]),
    ):
        done = script(folder, *what, *idle)
        assert done.returncode == 2
        assert f"nothing would come of ['{str(idle[0])[2:]}'] here" in done.stderr
    assert not (tmp_path / "out.npz").exists()


def test_what_the_script_can_neither_read_nor_write_is_one_line(
    encoder_folder: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "in.npz", input_ids=np.array([[5, 6, 7]]))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "in.npz").read_bytes()[:60])
    (tmp_path / "empty.npz").touch()
    (tmp_path / "text.npz").write_text("[[5, 6, 7]]")
    nowhere = ["--output", tmp_path / "nowhere" / "out.npz"]
    for name, more in (("cut", []), ("empty", []), ("text", []), ("in", nowhere)):
        done = script(encoder_folder, "--inputs", tmp_path / f"{name}.npz", *more)
        assert (done.returncode, done.stderr[:7]) == (1, "error: "), done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert "pickle" not in done.stderr


def test_the_script_escapes_what_the_terminal_cannot_show(tmp_path: Path) -> None:
    folder = tiny.decoder(tmp_path / "bytes", tokenizer="bytes", template=None).path
    made = []
    for encoding in ("utf-8", "ascii"):
        command = [sys.executable, str(folder / "loader.py"), "--prompt", "\u00e4b", "\u20ac"]
        done = subprocess.run(
            [*command, "--temperature", "9", "--seed", "1", "--max-new-tokens", "60"],
            capture_output=True,
            check=False,
            env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
        )
        assert (done.returncode, done.stderr) == (0, b"")
        made.append(done.stdout.decode(encoding))
    assert not made[0].isascii()
    assert made[1] == made[0].encode("ascii", "backslashreplace").decode()


def test_a_script_whose_stdout_is_closed(encoder_folder: Path) -> None:
    line = shlex.join([sys.executable, str(encoder_folder / "loader.py"), "--text", "w5"])
    done = subprocess.run(["bash", "-c", f"{line} >&-"], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("end", ["reader", "interrupt"])
def test_a_script_that_is_ended_says_nothing(encoder_folder: Path, end: str) -> None:
    """More text than a pipe holds: it cannot be done before it is ended."""
    command = [sys.executable, "-I", str(encoder_folder / "loader.py"), "--text", *["w5"] * 3000]
    pipe = subprocess.PIPE
    # A shell has what it starts in the background ignore Ctrl-C, and children inherit that.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, preexec_fn=heard) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.read(1) == b"{"
        if end == "reader":
            running.stdout.close()
        else:
            running.send_signal(signal.SIGINT)
        assert running.stderr.read() == b""
    assert running.returncode == 130


def test_the_script_offers_what_the_model_can_do(
    encoder_folder: Path, decoder_folder: Path, tmp_path: Path
) -> None:
    encoder, decoder = (script(f, "--help").stdout for f in (encoder_folder, decoder_folder))
    for flag in ("--prompt", "--stop-token", "--min-p", "--stream"):
        assert flag in decoder
        assert flag not in encoder
    assert "--text" in encoder
    assert "--text" not in decoder
    (tmp_path / "loader.py").write_bytes((decoder_folder / "loader.py").read_bytes())
    (tmp_path / "manifest.json").write_text("{")
    done = script(tmp_path, "--prompt", "w5")
    assert done.returncode == 1
    assert "manifest.json is damaged" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--prompt", "w5", "--max-new-tokens", "200"], "the cache holds 96"),
        (["--inputs", "/nowhere.npz"], "/nowhere.npz"),
    ],
)
def test_the_script_says_what_is_wrong(
    decoder_folder: Path, arguments: list[str], said: str
) -> None:
    done = script(decoder_folder, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def modules(folder: Path, program: str) -> set[str]:
    """What a program that imports the artifact's loader has imported at its end."""
    program = (
        f"import sys\nbefore = {{*sys.modules}}\nsys.path.insert(0, {str(folder)!r})\n"
        f"import loader\n{program}\nprint(*{{*sys.modules}} - before)"
    )
    command = [sys.executable, "-I", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def others(names: set[str]) -> set[str]:
    """The packages among them that are not the standard library's."""
    return {name.split(".")[0] for name in names} - {*sys.stdlib_module_names, "loader"}


def test_importing_the_loader_takes_little_of_the_standard_library(tmp_path: Path) -> None:
    made = tiny.decoder(tmp_path / "both", plans={"trt-rtx": (b"", {})})
    added = modules(made.path, "")
    assert {"loader", "json", "hashlib"} <= added
    assert not others(added)
    rare = {"argparse", "secrets", "random", "datetime", "platform", "tempfile", "subprocess"}
    assert not (rare | {"asyncio", "logging", "inspect", "dataclasses"}) & added


def test_numpy_and_the_runtime_come_once_the_files_are_checked(
    decoder_folder: Path, tmp_path: Path
) -> None:
    refused = "try:\n    loader.load({!r})\nexcept loader.LoaderError:\n    pass"
    assert not others(modules(decoder_folder, refused.format(str(tmp_path))))
    opened = modules(decoder_folder, f"loader.load({str(decoder_folder)!r}, threads=1)")
    assert {"numpy", "onnxruntime"} <= others(opened)
    unwanted = {"tokenizers", "jinja2", "torch", "transformers", "onnx", "lepton_compile"}
    assert not unwanted & others(opened)
