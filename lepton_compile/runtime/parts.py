"""The parts of a loader, and which of them an artifact needs: its task, its engines, its cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["parts_for"]

_OF_TEXTS = ("feature-extraction", "question-answering", "fill-mask")


def parts_for(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the parts in the order of the file; the last one ends with what a script does."""
    task, engines, cache = manifest["task"], manifest["engines"], manifest["cache"]
    targets = {engine["target"] for engine in engines}
    ort, tensorrt = (any(t.startswith(kind) for t in targets) for kind in ("ort-", "trt"))
    hears, looks = task == "automatic-speech-recognition", task == "image-text-to-text"
    sees = task.startswith("image-") and not looks
    labels = task.endswith("-classification") and not sees
    pair = task == "text2text-generation" or hears
    decoder = task == "text-generation" or pair or looks
    embeds, answers, fills = (task == name for name in _OF_TEXTS)
    words, vectors = task == "sparse-embedding", task == "multi-vector-embedding"
    embeds = embeds or words
    encoder = embeds or vectors or labels or answers or fills
    outputs = [value["name"] for value in manifest["outputs"]]
    template = bool((manifest["tokenizer"] or {}).get("chat_template"))
    needed = {
        "loader_guard": True,
        "loader": True,
        "loader_opened": True,
        "loader_decoder_form": decoder or bool(cache),
        "loader_gpu_form": targets != {"ort-cpu"},
        "loader_io": targets != {"ort-cpu"} or any(engine.get("io") for engine in engines),
        "loader_scores": "logits" in outputs and not (sees or pair),
        "loader_past": bool(cache),
        "loader_states": bool(cache and cache.get("states")),
        "loader_positions": any(value["name"] == "position_ids" for value in manifest["inputs"]),
        "loader_text": decoder or encoder,
        **_of_writing(task, template, manifest.get("generation") or {}),
        "loader_special": (decoder and template and not hears) or fills,
        "loader_batches": encoder,
        "loader_embed": embeds,
        "loader_weights": words,
        "loader_vectors": vectors,
        "loader_classify": labels,
        **_of_images(task, manifest.get("image") or {}, manifest.get("generation") or {}),
        "loader_labels": labels or task == "image-classification",
        "loader_entities": task == "token-classification",
        "loader_answer": answers,
        "loader_fill": fills,
        "loader_chances": labels or answers or fills or task == "image-classification",
        "loader_ort": ort,
        "loader_saturation": any(map(_saturates, engines)),
        "loader_slices": any((e.get("kernels") or {}).get("slice") for e in engines),
        "loader_kernels": ort and any(engine.get("kernels") for engine in engines),
        "loader_ort_cuda": "ort-cuda" in targets,
        **_of_caches(ort, cache),
        **_of_cuda("ort-cuda" in targets, pair, pair or looks, cache),
        "loader_no_cache": decoder and not cache,
        **(_of_plans(engines, bool(cache)) if tensorrt else {}),
        "loader_script_prompt": decoder and not hears,
        "loader_script_sound": hears,
        "loader_script_text": encoder,
        "loader_script_question": answers,
        "loader_script": True,
    }
    return tuple(name for name, wanted in needed.items() if wanted)


def _of_writing(task: str, template: bool, told: Mapping[str, Any]) -> dict[str, bool]:
    """The parts for models that write."""
    hears, reads = task == "automatic-speech-recognition", task == "text2text-generation"
    prompted = reads or task in ("text-generation", "image-text-to-text")
    return {
        "loader_prompts": prompted,
        "loader_generate": prompted,
        "loader_continue": prompted or hears,
        "loader_source": reads or hears,
        "loader_reads": reads,
        "loader_ruled": reads or hears or any(map(told.get, ("never", "first", "rules"))),
        "loader_rules": (prompted or hears) and bool(told.get("rules")),
        "loader_beams": reads,
        "loader_speech": hears,
        "loader_times": hears and bool(told.get("times")),
        "loader_sampling": prompted or hears,
        "loader_words": prompted or hears,
        "loader_template": prompted and template,
    }


def _of_caches(ort: bool, cache: Any) -> dict[str, bool]:
    """The parts for caches of ONNX Runtime."""
    kept = cache if ort and cache else {}
    shared = bool(kept.get("shared"))
    return {
        "loader_shared_cache": shared,
        "loader_shared_states": shared and bool(kept.get("states")),
        "loader_past_cache": bool(kept) and not shared,
        "loader_reread": bool(kept.get("reread")),
    }


def _of_cuda(wanted: bool, pair: bool, parted: bool, cache: Any) -> dict[str, bool]:
    """The parts for what is written on a GPU by ONNX Runtime; ``parted`` has two engines."""
    shared = wanted and bool(cache and cache["shared"])
    return {
        "loader_cuda_graph": shared and not parted,
        "loader_graph_states": shared and bool(cache.get("states")),
        "loader_cuda_pair": wanted and pair,
    }


def _of_images(task: str, made: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, bool]:
    """The parts for what sees; how pictures are ``made``, and what is ``told`` of writing."""
    looks = task == "image-text-to-text"
    sees = task.startswith("image-") and not looks
    sized = looks and bool((told.get("pictures") or {}).get("grid"))
    return {
        "loader_pixels": sees or looks,
        "loader_images": sees,
        "loader_image_vectors": task == "image-feature-extraction",
        "loader_image_labels": task == "image-classification",
        "loader_tiles": looks and bool(made.get("tiles")),
        "loader_seer": looks,
        "loader_between": sized and bool(made) and made.get("fit") in (None, "grow", "scale"),
        "loader_growing": sized and made.get("fit") == "grow",
        "loader_scaling": sized and made.get("fit") == "scale",
        "loader_filling": sized and made.get("fit") == "fill",
        "loader_edge": sized and made.get("fit") == "edge",
        "loader_grids": sized,
        "loader_windows": sized and bool(told["pictures"]["grid"].get("window")),
        "loader_axes": sized and told["pictures"]["grid"].get("axes") == 3,
        "loader_pictured": looks,
        "loader_script_image": sees,
    }


def _of_plans(engines: Sequence[Mapping[str, Any]], cache: bool) -> dict[str, bool]:
    """The parts for engines of TensorRT."""
    return {
        "loader_code": True,
        "loader_tensorrt": True,
        "loader_cuda": True,
        "loader_trt_plugin": any(engine.get("plugin") for engine in engines),
        "loader_rtx_cache": any(engine["target"] == "trt-rtx" for engine in engines),
        "loader_plan": True,
        "loader_tensors": True,
        "loader_trt_encoder": not cache,
        "loader_trt_decoder": cache,
        "loader_trt_buckets": any(map(_grows, engines)),
    }


def _grows(engine: Mapping[str, Any]) -> bool:
    """Whether its cache has several capacities."""
    return len((engine.get("cache") or {}).get("buckets") or ()) > 1


def _saturates(engine: Mapping[str, Any]) -> bool:
    """Whether it is to be asked; where an engine does not say so its precision does."""
    known = engine.get("precision") in ("int8", "auto", "stored")
    return engine["target"].startswith("ort-") and bool(engine.get("saturates", known))
