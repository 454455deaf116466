"""``genai_config.json``: what onnxruntime-genai has to know of a decoder."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from lepton_compile.errors import ArtifactError
from lepton_compile.serving.engine import ServedEngine
from lepton_compile.serving.genai_rules import search_rules
from lepton_compile.serving.genai_states import HINT, cache_numbers, layer_types, state_names
from lepton_compile.serving.last_logits import LOGITS_TO_KEEP

__all__ = ["PROVIDERS", "genai_config"]

PROVIDERS: Mapping[str, list[dict[str, Any]]] = {"ort-cpu": [], "ort-cuda": [{"cuda": {}}]}
"""Target -> ``provider_options``; the CPU needs none."""

# The kinds of model by whose name the server does nothing that our graph is not made for. Others
# are "decoder", the plain kind: phi3 above all, whose name makes the server read a prompt again at
# 4097 tokens, for a second rotary table that our graph does not have.
_TYPES = frozenset(
    {"gemma", "gemma2", "gemma3_text", "lfm2", "llama", "mistral", "qwen2", "qwen3", "smollm3"}
)

_KNOWN_INPUTS = ("input_ids", "attention_mask", "position_ids")


def genai_config(
    engine: ServedEngine, config: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The document, in the form of version 0.18.

    Args:
        engine: a decoder with a KV cache.
        config: the model's own ``config.json``, empty where there is none; used for what the
            manifest does not hold and the server only passes on.
        settings: the model's own ``generation_config.json``, likewise: how it samples when asked
            to. Without ``do_sample`` the server is greedy, as the artifact's loader is.

    Raises:
        ArtifactError: something in the graph's interface that the server has no way to feed.
    """
    manifest, cache = engine.manifest, engine.manifest.cache or {}
    generation = manifest.generation or {}
    heads, head_dim = _one_shape(cache)
    kinds = layer_types(cache)
    room = int(cache.get("reread") or cache["max_length"])  # the runtime reads nothing anew
    pad = _first(generation.get("pad"), generation.get("eos"), 0)
    model = {
        "type": _type(str(manifest.model.get("model_type"))),
        "context_length": room,
        "vocab_size": generation.get("vocabulary"),
        "bos_token_id": _first(generation.get("bos"), 0),
        # Without one the server ends at the padding token, so that one is named.
        "eos_token_id": list(generation.get("eos") or ()) or pad,
        "pad_token_id": pad,
        "decoder": {
            "filename": engine.model_file.name,
            "session_options": {
                "log_id": "onnxruntime-genai",
                "provider_options": PROVIDERS[engine.target],
                **_kernels(engine),
            },
            "head_size": _row(engine, cache, head_dim),
            "hidden_size": config.get("hidden_size") or heads * head_dim,
            "num_attention_heads": config.get("num_attention_heads") or heads,
            "num_hidden_layers": len(kinds or cache["layers"]),
            "num_key_value_heads": heads,
            **({"layer_types": kinds} if kinds else {}),
            **_names(engine, cache),
        },
    }
    search = _search(settings, room, shared=bool(cache["shared"]))
    return {"model": model, "search": {**search, **search_rules(generation, engine.target)}}


def _search(settings: Mapping[str, Any], room: int, *, shared: bool) -> dict[str, Any]:
    # A penalty would bend what is greedy, so that the model's own is not taken over.
    sampling = {"temperature": 1.0, "top_k": 50, "top_p": 1.0}
    own = {name: settings[name] for name in sampling if settings.get(name) is not None}
    for name, value in own.items():
        _check_setting(name, value, type(sampling[name]))
    return {
        "do_sample": False,
        "max_length": room,
        "num_beams": 1,
        "repetition_penalty": 1.0,
        "past_present_share_buffer": shared,
        **sampling,
        **own,
    }


def _check_setting(name: str, value: object, kind: type) -> None:
    fits = type(value) is int or (kind is float and type(value) is float and isfinite(value))
    if not fits or value < 0:  # type: ignore[operator]
        raise ArtifactError(
            f"{name} of the model is nothing that can be sampled with",
            where="generation_config.json",
            found=f"{value!r:.60}",
            available=["a whole number from 0 on" if kind is int else "a number from 0 on"],
            hint="correct it in the model's folder, or remove it, and build the artifact again",
        )


def _kernels(engine: ServedEngine) -> dict[str, str]:
    """The library of the engine's own kernels; a name is looked for beside the model."""
    kernels = engine.entry.get("kernels") or {}
    return {"custom_ops_library": kernels["library"]} if kernels else {}


def _names(engine: ServedEngine, cache: Mapping[str, Any]) -> dict[str, Any]:
    """Names of inputs and outputs; those of the layers as patterns with ``%d``."""
    past, present = (
        {kind: cache[way].format(layer="%d", kind=kind) for kind in ("key", "value")}
        for way in ("past", "present")
    )
    of_layers = {
        pattern.replace("%d", str(layer))
        for pattern in past.values()
        for layer in cache_numbers(cache)
    }
    of_layers |= {state["past"] for state in cache.get("states") or ()}
    past_states, present_states = state_names(cache)
    rest = [v["name"] for v in engine.inputs if v["name"] not in of_layers]
    optional = {v["name"] for v in engine.inputs if v.get("optional")}
    strange = [name for name in rest if name not in (*_KNOWN_INPUTS, *optional)]
    if strange:
        raise ArtifactError(
            "onnxruntime-genai has no way to feed some inputs of this model",
            found=", ".join(strange),
            available=[*_KNOWN_INPUTS, LOGITS_TO_KEEP],
        )
    return {
        "inputs": {
            **{name: name for name in rest if name in _KNOWN_INPUTS},
            "past_key_names": past["key"],
            "past_value_names": past["value"],
            **past_states,
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": present["key"],
            "present_value_names": present["value"],
            **present_states,
        },
    }


def _row(engine: ServedEngine, cache: Mapping[str, Any], head_dim: int) -> int:
    """Numbers that a token takes of a head's cache: in bytes their scales, too."""
    past = str(cache["past"]).partition("{")[0]
    rows = [value["shape"][-1] for value in engine.inputs if value["name"].startswith(past)]
    return int(rows[0]) if rows and isinstance(rows[0], int) else head_dim


def _one_shape(cache: Mapping[str, Any]) -> tuple[int, int]:
    """KV heads and their width, of which there are none where there are states alone."""
    shapes = {(int(layer["heads"]), int(layer["head_dim"])) for layer in cache.get("layers") or ()}
    if len(shapes) == 1:
        return shapes.pop()
    if not shapes and cache.get("states"):
        return 0, 0
    raise ArtifactError(
        "onnxruntime-genai takes one shape for the KV cache of all layers",
        found=", ".join(f"{heads} heads of {size}" for heads, size in sorted(shapes)) or "no cache",
        hint=HINT,
    )


def _type(model_type: str) -> str:
    return model_type if model_type in _TYPES else "decoder"


def _first(*values: Any) -> int:
    """The first value there is; of a list its first."""
    found = next(value for value in values if value is not None and value != [])
    number = found[0] if isinstance(found, list | tuple) else found
    if not isinstance(number, int):
        raise ArtifactError(
            "a token that the manifest names has no number",
            where="generation",
            found=repr(number),
        )
    return number
