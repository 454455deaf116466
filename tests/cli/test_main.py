"""The frame: help, exit codes, how errors look, what goes to which stream."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from rich.console import Console

from lepton_compile.cli import main
from lepton_compile.cli.failure import report_failure, show_error
from lepton_compile.cli.group import COMMANDS, LazyGroup
from lepton_compile.cli.narrow import WORD
from lepton_compile.errors import GateError, RecipeError

HEAVY = ("torch", "transformers", "onnx", "onnxruntime", "onnx_ir", "numpy", "pydantic")


def run_python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_help_names_every_command_and_loads_nothing_heavy() -> None:
    program = (
        "import sys; from lepton_compile.cli import main; code = main(['--help']); "
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr); sys.exit(code)"
    )
    done = run_python(program)
    assert (done.returncode, done.stderr.strip()) == (0, "[]")
    for name, summary in COMMANDS.items():
        assert name in done.stdout
        assert summary in done.stdout


@pytest.mark.parametrize("arguments", [[], ["export"]])
def test_who_names_no_command_is_told_which_there_are(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(arguments)
    captured = capsys.readouterr()
    told = captured.err or captured.out  # click before 8.2 has it on stdout, as asked for
    assert code == (2 if captured.err else 0)
    assert told.startswith("Usage: lepton-compile")
    assert "error" not in told
    assert "Commands:" in told


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_and_json(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert "--json" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_loads_nothing_heavy(name: str) -> None:
    program = (
        "import sys; from lepton_compile.cli import main; main(sys.argv[1:]); "
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    assert run_python(program, name, "--help").stderr.strip() == "[]"


def test_the_table_is_the_files() -> None:
    folder = Path(sys.modules["lepton_compile.cli"].__file__ or "").parent
    for name in COMMANDS:
        assert (folder / f"{name}.py").is_file()
    group = LazyGroup("x")
    for name in COMMANDS:
        command = group.get_command(click.Context(group), name)
        assert command is not None
        assert command.name == name


def test_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "lepton_compile", "targets", "--json"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0
    listed = json.loads(done.stdout)
    states = {state["name"]: state for state in listed if state["kind"] == "target"}
    assert set(states) == {"ort-cpu", "ort-cuda", "trt-rtx", "trt"}
    assert states["trt"]["reason"]


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["biuld"]) == 2
    assert "Did you mean 'build'?" in capsys.readouterr().err


def test_an_unknown_option_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets", "--nope"]) == 2
    err = capsys.readouterr().err
    assert "--nope" in err
    assert "lepton-compile targets --help" in err


def test_build_needs_something_to_build(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build"]) == 2
    assert "--model" in capsys.readouterr().err


def test_an_error_shows_all_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    error = RecipeError(
        "unknown key",
        where="r.yaml:4",
        found="quantise",
        available=["model", "quantize"],
        hint="fix",
    )
    assert report_failure(error, as_json=False) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: unknown key",
        "  where:     r.yaml:4",
        "  found:     quantise",
        "  available: model, quantize",
        "  next:      fix",
    ]


def test_a_long_field_is_not_cut_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    report_failure(RecipeError("wrong", found="x" * 300), as_json=False)
    assert "x" * 300 in capsys.readouterr().err


def test_markup_in_values_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    report_failure(RecipeError("wrong [bold]", found="[1, 2] [/]"), as_json=False)
    err = capsys.readouterr().err
    assert "wrong [bold]" in err
    assert "[1, 2] [/]" in err


def test_json_errors_are_one_document_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert report_failure(GateError("missed", found="cosine 0.9"), as_json=True) == 3
    data = json.loads(capsys.readouterr().out)
    assert (data["error"], data["found"], data["exit_code"]) == ("GateError", "cosine 0.9", 3)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["build", "--json"], 2), (["nope", "--json"], 2), (["inspect", "/nowhere", "--json"], 2)],
)
def test_usage_errors_are_json_too(
    arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert json.loads(captured.out)["exit_code"] == code
    assert captured.err == ""


def test_an_unexpected_error_is_short_and_names_the_switch(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LEPTON_DEBUG", raising=False)
    assert report_failure(_raised(ZeroDivisionError("by zero")), as_json=False) == 1
    err = capsys.readouterr().err
    assert "unexpected ZeroDivisionError: by zero" in err
    assert "LEPTON_DEBUG=1" in err
    assert "Traceback" not in err
    monkeypatch.setenv("LEPTON_DEBUG", "1")
    report_failure(_raised(ZeroDivisionError("by zero")), as_json=False)
    assert "Traceback" in capsys.readouterr().err


def test_a_full_disk_is_said_plainly(capsys: pytest.CaptureFixture[str]) -> None:
    error = OSError(28, "No space left on device", "/out/weights.bin")
    assert report_failure(error, as_json=False) == 1
    err = capsys.readouterr().err
    assert "no space left on device" in err
    assert "/out/weights.bin" in err


def test_interruption_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert report_failure(KeyboardInterrupt(), as_json=False) == 130
    assert "interrupted" in capsys.readouterr().err


def test_interrupted_imports_are_130_whatever_the_library_makes_of_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for cause in (KeyboardInterrupt(), _chained(RuntimeError("of onnx"), KeyboardInterrupt())):
        error = _chained(ImportError("initialization failed"), cause)
        assert report_failure(error, as_json=False) == 130
        assert capsys.readouterr().err.count("interrupted") == 1
    other = _chained(ImportError("initialization failed"), OSError("no such file"))
    other.__context__ = other  # a loop is no reason to look for ever
    assert report_failure(other, as_json=False) == 1


def _chained(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_with_130(number: signal.Signals) -> None:
    program = (
        "import signal, sys, time; from lepton_compile.cli import cli, main\n"
        # A shell has what it starts in the background ignore Ctrl-C, and children inherit that.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "@cli.command()\n"
        "def sleep(): print('ready', flush=True); time.sleep(60)\n"
        "from lepton_compile.cli import group; group.COMMANDS['sleep'] = ''\n"
        "cli.get_command = lambda ctx, name: sleep\n"
        "sys.exit(main(['sleep']))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(timeout=30) == 130


def test_a_program_that_calls_main_keeps_its_own_handlers() -> None:
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    assert main(["plugins", "--json"]) == 0
    assert [signal.getsignal(number) for number in numbers] == before


def test_what_is_to_outlive_its_terminal_does() -> None:
    """nohup has the signal ignored, and so it stays."""
    program = (
        "import signal; from lepton_compile.cli import _ended_politely\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "with _ended_politely(): assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def command(*arguments: str, then: str = "", **environment: str) -> tuple[int, str, str]:
    """A command in a process and a shell of its own: exit code, stdout, stderr."""
    everything = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    line = shlex.join([sys.executable, "-m", "lepton_compile", *arguments])
    done = subprocess.run(
        ["bash", "-c", f"{line} {then}"], capture_output=True, check=False, env=everything
    )
    return done.returncode, done.stdout.decode("ascii"), done.stderr.decode("ascii")


def test_a_reader_that_leaves_early_is_met_with_silence(encoder: Path) -> None:
    """And the command ends as it would have: rich's and click's own way out is exit code 1."""
    unread = "| true; exit ${PIPESTATUS[0]}"
    for asked in (["passes"], ["passes", "--json"], ["inspect", str(encoder)]):
        assert command(*asked, then=unread) == (0, "", "")
    assert command("inspect", "nothing", then=f"2>&1 {unread}") == (2, "", "")


def test_a_build_is_finished_though_nobody_reads_its_lines(encoder: Path, tmp_path: Path) -> None:
    model = ["--model", str(encoder.parent / "model"), "--task", "feature-extraction"]
    built = ["build", *model, "-o", str(tmp_path / "out"), "--no-verify", "--no-check"]
    assert command(*built, then="2>&1 | true; exit ${PIPESTATUS[0]}")[0] == 0
    assert (tmp_path / "out" / "manifest.json").is_file()


@pytest.mark.parametrize("as_json", [True, False])
def test_a_full_disk_behind_stdout_is_said_once(as_json: bool) -> None:
    code, _, err = command("recipes", *["--json"] * as_json, then="> /dev/full")
    assert code == 1
    assert err.startswith("error: no space left on device")
    assert "Traceback" not in err


def test_letters_that_a_terminal_has_not_are_escaped() -> None:
    ascii_only = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    code, _, err = command("inspect", "n\u00f6", **ascii_only)
    assert code == 2
    assert r"n\xf6" in err
    code, out, _ = command("inspect", "n\u00f6", "--json", **ascii_only)
    assert code == 2
    assert json.loads(out)["found"] == "n\u00f6"
    code, out, err = command("recipes", **ascii_only)
    assert (code, err) == (0, "")
    assert "minilm/ort-cpu-int8" in out


def test_signs_of_our_own_are_spelled_where_a_stream_has_them_not(encoder: Path) -> None:
    model = str(encoder / "engines" / "ort-cpu" / "model.onnx")
    code, out, _ = command("inspect", model, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert code == 0
    assert re.search(r"MatMulx\d+ - ", out)
    assert "\\x" not in out


def test_catalogs_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    from lepton_passes.catalog import CATALOG

    assert main(["passes", "--json"]) == 0
    passes = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in passes] == [entry.make.name for entry in CATALOG]
    assert main(["recipes", "--json"]) == 0
    assert any(r["name"].startswith("minilm/") for r in json.loads(capsys.readouterr().out))
    assert main(["plugins", "--json"]) == 0
    assert isinstance(json.loads(capsys.readouterr().out), list)


def _raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def test_a_wrong_recipe_is_told_before_torch_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("model: ./m\nquantise: int8\n")
    program = (
        "import sys; from lepton_compile.cli import main; code = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    for command in ("build", "plan"):
        done = run_python(program, command, str(tmp_path / "r.yaml"))
        assert done.returncode == 2, done.stderr
        assert "quantise" in done.stderr


def test_on_a_terminal_many_names_keep_to_their_column() -> None:
    names = [f"a-rather-long-name-{number}" for number in range(26)]
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, color_system=None)
    show_error(RecipeError("there is no pass 'x'", found="x", available=names), console)
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    (first,) = (at for at, line in enumerate(lines) if "available:" in line)
    start = lines[first].index(names[0])
    assert all(line[:start].strip() == "" for line in lines[first + 1 :])


@pytest.mark.parametrize("name", ["passes", "recipes", "plugins"])
def test_names_are_whole_at_eighty_columns(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([name, "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert main([name]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    words = {word for line in lines for word in line.split()}
    assert {entry["name"] for entry in entries} <= words


def test_what_a_pass_does_breaks_no_word_at_eighty_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a column of 14 it took six lines, and broke GroupQueryAttention."""
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["passes", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert main(["passes"]) == 0
    shown = capsys.readouterr().out.split()
    assert {word for entry in entries for word in entry["summary"].split()} <= {*shown}
    assert all(entry["counts_as"] is None or "(counts" in shown for entry in entries)


@pytest.mark.parametrize("width", [40, 60])
@pytest.mark.parametrize("name", ["passes", "recipes", "plugins", "targets"])
def test_narrow_terminals_lose_nothing_and_break_no_word(
    name: str, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def shown(columns: int) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        assert main([name]) == 0
        return capsys.readouterr().out.splitlines()

    def words(lines: list[str]) -> set[str]:
        return {word.rstrip(":") for line in lines for word in line.split()}

    lines = shown(width)
    if name != "targets":  # whose commands stay in one piece
        assert max(map(len, lines)) <= width
    short = {word for word in words(shown(200)) if len(word) <= WORD}
    names = {"name", "pass", "target", "for"}  # of first columns: a list needs none
    assert short - names <= words(lines)


@pytest.mark.parametrize("name", ["passes", "recipes", "plugins", "targets"])
def test_a_terminal_of_hardly_any_columns_loses_nothing(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def shown(columns: int) -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        assert main([name]) == 0
        return capsys.readouterr().out

    assert shown(0) == shown(80)
    assert shown(1) == shown(19) == shown(20)
    assert main([name, "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    kept = "".join(shown(20).split())
    listed = [entry["name"] for entry in entries if entry.get("kind", "target") == "target"]
    assert listed
    assert all(each in kept for each in listed)


def test_plugins_say_what_their_op_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--json"]) == 0
    entry, *others = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in others] == [
        "convolution",
        "linear",
        "linear_attention",
        "normalization",
    ]
    assert [each["runtimes"] for each in others] == [["ort-cpu (custom operators)"]] * len(others)
    assert entry["op"] == "lepton::CachedAttention, version 1"
    assert entry["cache_dtypes"] == ["float16", "bfloat16", "int8", "float8_e4m3fn"]
    assert len(entry["runtimes"]) == 4
