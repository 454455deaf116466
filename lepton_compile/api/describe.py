"""The manifest of a build: what was made, from what, and what a loader has to know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import onnx_ir as ir

from lepton_compile.api.changes import TOOLS
from lepton_compile.api.own_code import own_code
from lepton_compile.api.pictured import most_pixels
from lepton_compile.api.pictures import sees
from lepton_compile.artifact.manifest import UNKNOWN_LENGTH
from lepton_compile.engines.interface import signature
from lepton_compile.errors import EngineError, SourceError
from lepton_compile.export import ExportedModel, Pooling, Source
from lepton_compile.export.encoder_decoder import PAIRS, SOURCE_IDS, SOURCE_MASK, SPEECH
from lepton_compile.export.image_text import IMAGE_TEXT
from lepton_compile.export.text_part import TEXT_ALONE
from lepton_compile.numerics.tolerance import GENERATING
from lepton_compile.recipe import Recipe

__all__ = [
    "assets",
    "cache_entry",
    "embedding_entry",
    "lock_entry",
    "model_entry",
    "picture_entry",
    "ranges_of",
    "signature_of",
    "tool_versions",
]

# How many numbers an input of ids may hold, as the model's configuration calls it.
SIZES = {"input_ids": "vocab_size", SOURCE_IDS: "vocab_size", "token_type_ids": "type_vocab_size"}
# What numbers mean something: others would be read as 1, or count from the end.
MEANT = {"attention_mask": (0, 1), SOURCE_MASK: (0, 1), "logits_to_keep": (0, UNKNOWN_LENGTH)}


def signature_of(model: ir.Model) -> dict[str, list[dict[str, Any]]]:
    """``inputs`` and ``outputs``: name, numpy dtype and shape (dimension names where dynamic)."""
    graph = model.graph
    for value in (*graph.inputs, *graph.outputs):
        _check_tensor(value)
    optional = set(graph.initializers)
    inputs = [{**each, "optional": each["name"] in optional} for each in signature(graph.inputs)]
    return {"inputs": inputs, "outputs": signature(graph.outputs)}


def _check_tensor(value: ir.Value) -> None:
    if value.dtype is None or value.shape is None or not isinstance(value.type, ir.TensorType):
        raise SourceError(
            "an input or output of the graph is no tensor of a known type and shape",
            found=f"{value.name}: {value.type}, {value.shape}",
            hint="sequences and maps do not go in or out; else run onnx.shape_inference first",
        )


def ranges_of(recipe: Recipe, exported: ExportedModel, config: Any = None) -> dict[str, list[int]]:
    """Smallest and largest size of each dimension a caller chooses.

    The sequence of a decoder begins at 1 whatever the recipe says: it is the whole cache, prompts
    are of any length below it and steps of one token.

    With the model's ``config`` also the smallest and largest number that inputs of ids may hold: a
    quantized table of embeddings is read without a look at its bounds. And what masks and positions
    may: of -1 a table would give its last row.
    """
    wanted = recipe.shapes.sequence
    if sees(exported):  # images of one size have one number of patches
        return {"batch": list(recipe.shapes.batch), "sequence": [exported.length] * 2}
    least = wanted[0] if wanted and exported.task not in GENERATING else 1
    low = exported.length if exported.padded else least
    found = {"batch": list(recipe.shapes.batch), "sequence": [low, exported.length]}
    inputs = {value.name for value in exported.model.graph.inputs}
    if SOURCE_IDS in inputs:
        longest = exported.source_length or UNKNOWN_LENGTH  # of a file nobody knows
        found["source"] = list(recipe.shapes.source or (1, longest))
    for name, size in SIZES.items():
        rows = getattr(config, size, None)
        if name in inputs and rows:
            found[name] = [0, max(int(rows) - 1, exported.placeholder)]
    if config is not None:  # else it is a graph of somebody else's
        ends = {**MEANT, "position_ids": (0, exported.length - 1)}
        found |= {name: [*pair] for name, pair in ends.items() if name in inputs}
    return found


def cache_entry(exported: ExportedModel, *, shared: bool) -> dict[str, Any] | None:
    """The KV cache and the states beside it, None for a model without any.

    Raises:
        EngineError: a vision-language model has one that is not ``shared``.
    """
    if not exported.cached:
        return None
    if exported.task == IMAGE_TEXT and not shared:
        raise EngineError(
            "a vision-language model needs a cache that is written in place",
            where="its attention",
            found="forms that no op of onnxruntime with such a cache has",
            hint=TEXT_ALONE,
        )
    entry = {
        "past": "past_key_values.{layer}.{kind}",
        "present": "present.{layer}.{kind}",
        "dtype": "float32",
        "max_length": exported.length,
        "shared": shared,
        "layers": [*_layers(exported)],
        **({"reread": exported.near_to} if 0 < exported.near_to < exported.length else {}),
    }
    if exported.states:
        return entry | {"states": [*_states(exported)]}
    alone = shared and exported.task in ("text-generation", IMAGE_TEXT) and not exported.foresees
    return entry | {"pieces": True} if alone else entry


def _layers(exported: ExportedModel) -> Iterator[dict[str, Any]]:
    """Caches in order; the number in their names where it is not their place."""
    for place, cache in enumerate(exported.caches):
        entry = {"heads": cache.heads, "head_dim": cache.head_dim, "window": cache.window}
        yield entry if cache.number == place else entry | {"layer": cache.number}


def _states(exported: ExportedModel) -> Iterator[dict[str, Any]]:
    """Names and shapes of states."""
    for state in exported.states:
        name = f"{state.kind}.{state.number}"
        yield {"past": f"past_{name}", "present": f"present_{name}", "shape": list(state.shape)}


def model_entry(source: Source, exported: ExportedModel) -> dict[str, Any]:
    """What was compiled."""
    merged = {} if source.adapter is None else {"adapter": source.adapter.spec}
    return {
        "source": source.spec,
        **merged,
        "architecture": exported.architecture,
        "model_type": None if source.kind == "onnx" else source.config().model_type,
        "trust_remote_code": source.trust_remote_code,
        "parameters": exported.parameters,
    }


def embedding_entry(pooling: Pooling | None, source: Source) -> dict[str, Any] | None:
    """How sentence embeddings are made inside the graph, and where the model cuts texts."""
    if pooling is None:
        return None
    from lepton_compile.export.multi_vector import roles_entry
    from lepton_compile.export.sentence import prompts, text_limit

    of_tokens = pooling.kind == "tokens"
    texts, default = ({}, None) if of_tokens else prompts(source)
    return {
        "pooling": pooling.kind,
        "dense": [{"width": d.outer, "activation": d.activation.lower()} for d in pooling.dense],
        "normalize": pooling.normalize,
        **({"logarithms": pooling.logarithms} if pooling.logarithms else {}),
        **({"roles": roles_entry(source)} if of_tokens else {}),
        "output": pooling.output,
        "max_tokens": text_limit(source),
        "prompts": texts,
        "prompt": default,
    }


def picture_entry(
    pooling: Pooling | None, outputs: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """The same of pictures: which output is their vector. None where the model gives none."""
    if pooling is None or len(outputs) < 2:
        return None
    return {
        "pooling": pooling.kind,
        "dense": [],
        "normalize": pooling.normalize,
        "output": outputs[-1]["name"],
        "max_tokens": None,
        "prompts": {},
        "prompt": None,
    }


def assets(source: Source, folder: Path, exported: ExportedModel) -> dict[str, Any]:
    """Write the model's own small files; returns the manifest fields that describe them."""
    if source.kind == "onnx":
        return {}
    from lepton_compile.export.assets import write_assets, write_preprocessing
    from lepton_compile.export.labels import labels_of, score_of
    from lepton_compile.export.sentence import score_function
    from lepton_compile.export.vision_part import IMAGE_TASKS

    task = exported.task
    return {
        "tokenizer": write_assets(source, folder, processor=task == IMAGE_TEXT),
        "generation": _generation(source, folder, task, exported.picture_tokens),
        "labels": labels_of(source.config()) if task.endswith("-classification") else None,
        "score": score_of(source.config(), score_function(source))
        if task in ("text-classification", "image-classification")
        else None,
        "image": write_preprocessing(source, folder, most_pixels(exported))
        if task in (*IMAGE_TASKS, IMAGE_TEXT)
        else None,
    }


def _generation(
    source: Source, folder: Path, task: str, picture_tokens: int = 0
) -> dict[str, Any] | None:
    """Which tokens texts begin and end with; None where none are written."""
    from lepton_compile.export.generation import answers, generation, speech, write_filters
    from lepton_compile.export.picture_prompts import picture_prompts

    if task not in GENERATING:
        return None
    found = generation(source, task) | (answers(source) if task in PAIRS else {})
    if task == SPEECH:
        write_filters(source, folder)
        found |= speech(source)
    if task == IMAGE_TEXT:
        found["pictures"] = picture_prompts(source, picture_tokens)
    return found


def lock_entry(
    recipe: Recipe,
    source: Source,
    passes: Mapping[str, list[str]],
    chosen: Mapping[str, Mapping[str, Any]],
    picture: tuple[int, int] | None,
) -> dict[str, Any]:
    """Everything the bytes of the artifact depend on; ``chosen`` is what auto became by target,
    ``picture`` the rows and columns that a model which sees is fitted to."""
    from lepton_compile.numerics import sample_images, sample_text

    fitted = any(
        {"calibrate", "quantize-cache", "weight-int4-gptq", "weight-int4-weighted"} & {*names}
        for names in passes.values()
    )

    def digest() -> str:
        return sample_images.digest(*picture) if picture else sample_text.digest("calibration")

    return {
        "code": own_code(),
        "revision": source.revision,
        "inputs": source.digests(),
        "calibration": digest() if fitted else None,
        **({"machine": _machine()} if fitted else {}),
        "passes": dict(passes),
        **({"chosen": dict(chosen)} if chosen else {}),
        "recipe": _plain(recipe.model_dump(exclude={"output", "verify", "gates", "description"})),
    }


def _machine() -> dict[str, Any]:
    """What the last bits of sums over a sample follow from."""
    from lepton_compile.tactics import this_machine

    machine = this_machine(None)
    return {"processor": machine.processor, "features": list(machine.features)}


def tool_versions() -> Mapping[str, str]:
    """Versions of the libraries a build runs through."""
    from lepton_compile import __version__

    found = {"lepton-compile": __version__}
    for name in TOOLS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _plain(value: Any) -> Any:
    """Tuples as lists, so that the manifest reads back as it was written."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
