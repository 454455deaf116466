"""``lepton-compile run``: an artifact at work, through the loader that it carries a copy of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from lepton_compile.cli.arrays import run_arrays
from lepton_compile.cli.numbers import THREADS, Finite
from lepton_compile.cli.output import console, emit_json, json_option, many_text, table
from lepton_compile.cli.paths import PathType
from lepton_compile.cli.streams import say
from lepton_compile.errors import UsageError

if TYPE_CHECKING:
    from lepton_compile.runtime import Model

__all__ = ["run"]

_MADE = ("text", "tokens", "finish", "timings")
PICTURED = "image-text-to-text"
_GIVEN = {
    **dict.fromkeys(("text-generation", "text2text-generation", PICTURED), "--prompt"),
    **dict.fromkeys(("feature-extraction", "sparse-embedding", "multi-vector-embedding"), "--text"),
    **dict.fromkeys(("fill-mask", "text-classification", "token-classification"), "--text"),
    **dict.fromkeys(("image-classification", "image-feature-extraction"), "--image"),
    "question-answering": "--question",
    "automatic-speech-recognition": "--audio",
}
"""Task -> the option that its models take; those of other tasks take arrays alone."""
_SHOWN = 20  # words of a sparse embedding, labels

_EVERYWHERE = (
    *("folder", "--text", "--image", "--audio", "--question", "--context", "--inputs"),
    *("--target", "--threads", "--json"),
)
"""Parameters that do not go with prompts alone."""


@click.command()
@click.argument("folder", metavar="DIR", type=PathType())
@click.option("--prompt", "prompts", multiple=True, help="Text to continue; may be repeated.")
@click.option(
    "--text",
    "texts",
    multiple=True,
    help="Text to embed, to classify, or with masks to fill; may be repeated.",
)
@click.option("--prompt-name", help="Name of the model's own prompt that goes in front of --text.")
@click.option(
    "--image",
    "images",
    multiple=True,
    type=PathType(exists=True, dir_okay=False),
    help="Image to embed, to classify, or to ask about with --prompt; may be repeated.",
)
@click.option("--question", help="Question to answer from --context.")
@click.option("--context", help="Text with the answer; @FILE reads it from a file.")
@click.option(
    "--inputs",
    type=PathType(exists=True, dir_okay=False),
    help="Arrays by input name: a .npz file.",
)
@click.option("-o", "--output", type=PathType(), help="Write arrays to a .npz file.")
@click.option(
    "--max-new-tokens",
    type=click.IntRange(min=1),
    help="128 unless given, or what the cache has room for.",
)
@click.option("--temperature", default=0.0, show_default=True, type=Finite(min=0.0))
@click.option("--top-k", default=0, type=click.IntRange(min=0), help="0 is off.")
@click.option("--top-p", default=1.0, type=Finite(min=0.0, max=1.0, min_open=True))
@click.option("--min-p", default=0.0, type=Finite(min=0.0, max=1.0))
@click.option("--repetition-penalty", default=1.0, type=Finite(min=0.0, min_open=True))
@click.option("--stop", multiple=True, help="End before this text; may be repeated.")
@click.option(
    "--stop-token",
    "stop_tokens",
    multiple=True,
    type=click.IntRange(min=0),
    help="End at this id; may be repeated.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Makes sampling reproducible.")
@click.option("--start", metavar="TOKEN", help="Forced first token, such as a target language.")
@click.option(
    "--beams", default=1, type=click.IntRange(min=1), help="Beam search with so many beams."
)
@click.option(
    "--length-penalty",
    default=1.0,
    type=Finite(min=-50.0, max=50.0),
    help="With --beams; above 1 favours long answers.",
)
@click.option("--audio", "sounds", multiple=True, help="Transcribe a .wav file; may be repeated.")
@click.option("--language", help="Language of --audio, such as en; left out, it is detected.")
@click.option("--translate", is_flag=True, help="Translate --audio into English.")
@click.option("--timestamps", is_flag=True, help="With timestamps of segments.")
@click.option("--chat", is_flag=True, help="Put each prompt through the chat template.")
@click.option("--target", help="The engine to run, rather than the best that can.")
@click.option("--threads", type=THREADS)
@json_option
def run(
    folder: Path,
    prompts: tuple[str, ...],
    texts: tuple[str, ...],
    sounds: tuple[str, ...],
    language: str | None,
    translate: bool,
    timestamps: bool,
    images: tuple[Path, ...],
    prompt_name: str | None,
    question: str | None,
    context: str | None,
    inputs: Path | None,
    output: Path | None,
    target: str | None,
    threads: int | None,
    as_json: bool,
    **sampling: Any,
) -> None:
    """Generate, embed, classify, fill masks, answer or transcribe; or arrays in and out.

    --prompt is continued, or answered; a vision-language model looks at each --image first.
    --audio is transcribed. --text is embedded, classified, or its masks are filled in, and --image
    alone embedded or classified, as the model's task says. --question is answered from --context.
    --inputs takes arrays.
    """
    kinds = [prompts, texts, images if not prompts else (), sounds]
    if sum([*map(bool, kinds), inputs is not None, question is not None]) != 1:
        raise click.UsageError(
            "give one of --prompt, --text, --image, --audio, --question and --inputs"
        )
    if (question is None) != (context is None):
        raise click.UsageError("--question and --context go together")
    heard = dict.fromkeys(("--language", "--translate", "--timestamps"), bool(sounds))
    heard["--length-penalty"] = sampling["beams"] > 1
    fits = {"--output": inputs is not None, "--prompt-name": bool(texts), **heard}
    _refuse_idle(fits, bool(prompts))
    from lepton_compile.runtime import load

    _refuse_other_targets(folder, target)
    model = load(folder, threads=threads, target=target)
    for name, reason in model.passed_over.items():
        say(f"the engine for {name} does not run here: {reason}", err=True)
    _refuse_other_tasks(model.task, str(folder))
    if prompts and model.task == PICTURED:
        sampling["images"] = [*map(str, images)]
    if prompts:
        _generate(model, list(prompts), sampling, as_json)
    elif question is not None and context is not None:
        _answer(model, question, _content(context), as_json)
    elif sounds:
        how = {"language": language, "translate": translate, "timestamps": timestamps}
        _sounds(model, list(sounds), how, as_json)
    elif images:
        _images(model, list(map(str, images)), as_json)
    elif texts:
        _texts(model, list(texts), prompt_name, as_json)
    elif inputs is not None:
        run_arrays(model, inputs, output, as_json)


def _refuse_idle(fits: Mapping[str, bool], continues: bool) -> None:
    """Refuse options that were typed and would change nothing. Those that are neither in ``fits``
    nor for every call are for prompts."""
    idle = [name for name in _typed() if not fits.get(name, continues or name in _EVERYWHERE)]
    if idle:
        raise click.UsageError(f"nothing would come of {', '.join(idle)} here")


def _typed() -> list[str]:
    """The options of this call, each by the name that stands last in its help."""
    context = click.get_current_context()
    return [
        parameter.opts[-1]
        for parameter in context.command.params
        if context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
    ]


def _refuse_other_targets(folder: Path, target: str | None) -> None:
    """An engine that is asked for by name is there, whether it runs here or not."""
    from lepton_compile.artifact import read_manifest

    if target is None:
        return
    there = [engine["target"] for engine in read_manifest(folder).engines]
    if target not in there:
        raise UsageError(
            "the artifact has no such engine", where="--target", found=target, available=there
        )


def _refuse_other_tasks(task: str, folder: str) -> None:
    """Only the option of the model's task is taken, and arrays, which any model takes.

    Raises:
        UsageError: it was given something else.
    """
    own = _GIVEN.get(task, "--inputs")
    other = {*_GIVEN.values()} - {own}
    if task == PICTURED and "--prompt" in _typed():
        other -= {"--image"}
    if given := [name for name in _typed() if name in other]:
        alone = " alone" if (task, given[0]) == (PICTURED, "--image") else ""
        raise UsageError(
            f"a model for {task} does not take {given[0]}{alone}",
            where=folder,
            available=list(dict.fromkeys([own, "--inputs"])),
        )


def _generate(model: Model, prompts: list[str], sampling: dict[str, Any], as_json: bool) -> None:
    if not as_json and len(prompts) == 1 and sampling["beams"] == 1:
        for piece in model.generate(prompts[0], stream=True, **sampling):
            if not say(piece, nl=False):
                return
        say()
        return
    if "images" in sampling:  # each prompt is of all
        sampling["images"] = [sampling["images"]] * len(prompts)
    found = [
        {"prompt": prompt, **{name: getattr(made, name) for name in _MADE}}
        for prompt, made in zip(prompts, model.generate(prompts, **sampling), strict=True)
    ]
    if as_json:
        emit_json(found if len(found) > 1 else found[0])
        return
    for one in found:
        say(one["text"])


def _sounds(model: Model, sounds: list[str], how: dict[str, Any], as_json: bool) -> None:
    from lepton_compile.runtime.loader_script_sound import document, timed

    made = model.transcribe(sounds, **how)
    found = [document(*each) for each in zip(sounds, made, strict=True)]
    if as_json:
        emit_json(found if len(found) > 1 else found[0])
        return
    for one in made:
        for line in timed(one):
            say(line)
        if one.segments is None:
            say(one.text if one.text is not None else one.tokens)


def _texts(model: Model, texts: list[str], prompt: str | None, as_json: bool) -> None:
    if model.task == "feature-extraction":
        _embeddings(texts, model.embed(texts, prompt), as_json)
        return
    if model.task == "sparse-embedding":
        _weights(texts, model.words(texts, prompt), as_json)
        return
    if model.task == "multi-vector-embedding":
        _vectors(texts, model.vectors(texts, prompt or "document"), as_json)
        return
    if model.task == "fill-mask":
        _fillings(texts, [model.fill(text) for text in texts], as_json)
        return
    if model.task == "token-classification":
        _entities(texts, model.entities(texts), as_json)
        return
    _labels("text", texts, model.classify(texts), as_json)


def _images(model: Model, files: list[str], as_json: bool) -> None:
    if model.task == "image-feature-extraction":
        _embeddings(files, model.embed(files), as_json, what="image")
        return
    _labels("image", files, model.classify(files), as_json)


def _labels(what: str, given: list[str], found: list[Any], as_json: bool) -> None:
    if as_json:
        emit_json([{what: one, "labels": rows} for one, rows in zip(given, found, strict=True)])
        return
    for one, labels in zip(given, found, strict=True):
        rows = [(label, f"{score:.4f}") for label, score in list(labels.items())[:_SHOWN]]
        console().print(table(one, ("label", "score>"), rows))


def _answer(model: Model, question: str, context: str, as_json: bool) -> None:
    found = model.answer(question, context)
    if as_json:
        emit_json({"question": question, **found})
        return
    rows = [(found["answer"], f"{found['score']:.4f}", f"{found['start']}..{found['end']}")]
    console().print(table(question, ("answer", "chance>", "characters"), rows))


def _content(text: str) -> str:
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            "the context cannot be read", where="--context", found=f"{text[1:]}: {error}"
        ) from error


def _weights(texts: list[str], found: list[dict[str, float]], as_json: bool) -> None:
    if as_json:
        emit_json([{"text": t, "words": words} for t, words in zip(texts, found, strict=True)])
        return
    for text, words in zip(texts, found, strict=True):
        rows = [(word, f"{weight:.3f}") for word, weight in words.items()]
        title = f"{text}: {len(rows)} words" + (f", the first {_SHOWN}" if rows[_SHOWN:] else "")
        console().print(table(title, ("word", "weight>"), rows[:_SHOWN]))


def _vectors(texts: list[str], found: list[Any], as_json: bool) -> None:
    if as_json:
        emit_json([{"text": t, "vectors": rows} for t, rows in zip(texts, found, strict=True)])
        return
    rows = [(text, *map(str, vectors.shape)) for text, vectors in zip(texts, found, strict=True)]
    console().print(table("", ("text", "vectors>", "numbers in each>"), rows))


def _fillings(texts: list[str], found: list[Any], as_json: bool) -> None:
    if as_json:
        emit_json([{"text": t, "masks": masks} for t, masks in zip(texts, found, strict=True)])
        return
    for text, masks in zip(texts, found, strict=True):
        rows = [
            (number, one["word"], f"{one['score']:.4f}", one["text"])
            for number, mask in enumerate(masks, 1)
            for one in mask
        ]
        console().print(table(text, ("mask>", "word", "chance>", "text"), rows))


def _entities(texts: list[str], found: list[Any], as_json: bool) -> None:
    if as_json:
        emit_json([{"text": t, "entities": made} for t, made in zip(texts, found, strict=True)])
        return
    for text, made in zip(texts, found, strict=True):
        rows = [
            (one["text"], one["label"], f"{one['score']:.4f}", f"{one['start']}..{one['end']}")
            for one in made
        ]
        console().print(table(text, ("entity", "label", "chance>", "characters"), rows))


def _embeddings(texts: list[str], vectors: Any, as_json: bool, what: str = "text") -> None:
    import numpy as np

    if as_json:
        emit_json([{what: t, "embedding": v} for t, v in zip(texts, vectors, strict=True)])
        return
    out = console()
    said = f"{many_text(len(texts), 'vector')} of {vectors.shape[-1]} numbers"
    if len(texts) == 1:  # and nothing to compare it with
        out.print(f"{said}, which --json has")
        return
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    alike = unit @ unit.T
    out.print(f"{said}; similarity:")
    columns = [what, *(f"{number}>" for number in range(1, len(texts) + 1))]
    rows = [
        [f"{number} {text[:40]}", *(f"{value:.3f}" for value in alike[number - 1])]
        for number, text in enumerate(texts, 1)
    ]
    out.print(table("", columns, rows))
