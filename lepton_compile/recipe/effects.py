"""What builds a key of a recipe changes: one row for each key that not all have a use for.

A row names the values that ask for something, and the targets and tasks that give it. What no row
names changes every build, or asks for what is so anyway: a default, ``kernels: builtin``,
``pooling: none``. ``idle.py`` holds recipes against the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lepton_compile.recipe.schema import TARGETS, TASKS, TENSORRT, Recipe

__all__ = ["EFFECTS", "Effect"]

CPU = ("ort-cpu",)
GPU = ("ort-cuda", *TENSORRT)
DECODER, EMBEDDING, SPARSE = ("text-generation",), ("feature-extraction",), ("sparse-embedding",)
PAIR = ("text2text-generation",)
BY_TOKEN = (*SPARSE, "multi-vector-embedding")  # embeddings made as the model's files say
FEATURES = ("image-feature-extraction",)
IMAGES = ("image-classification", *FEATURES)
TEXTS = tuple(task for task in TASKS if task not in IMAGES)
PLAIN = tuple(task for task in TASKS if task not in BY_TOKEN)
READING = tuple(task for task in TEXTS if task != "automatic-speech-recognition")
SCORED = tuple(task for task in PLAIN if task not in EMBEDDING + FEATURES)

AS_IT_IS = "an ONNX file has the outputs that it was made with"
UNREAD = "vision models are compared on images, speech models on synthetic audio"
UNCOMPARED = "an ONNX file comes without the PyTorch model, and is compared with nothing"


@dataclass(frozen=True)
class Effect:
    """What some values of a key change. Several rows of one key are alternatives.

    Attributes:
        key: dotted, as it is written in a recipe.
        values: those that ask for it; None is every value but the default.
        why: said where they change nothing.
        targets: that give it.
        tasks: that give it.
        imported: why a model that is an ONNX file does not give it; empty where it does.
        when: what else a recipe has to say, asked as the target sees it; ``needs`` in words.
        hint: what to do next.
    """

    key: str
    values: tuple[Any, ...] | None
    why: str
    targets: tuple[str, ...] = TARGETS
    tasks: tuple[str, ...] = TASKS
    imported: str = ""
    when: Callable[[Recipe], bool] = lambda _: True
    needs: tuple[str, ...] = ()
    hint: str = "leave it out"


def _quantized(recipe: Recipe) -> bool:
    return recipe.quantize.may_have_integers


def _timed(recipe: Recipe) -> bool:
    return _quantized(recipe) and recipe.kernels == "auto" and recipe.tactics == "measure"


def _pooled(recipe: Recipe) -> bool:
    return recipe.pooling != "none"


# What only decoders in TensorRT have.
_ATTENTION = "only engines of TensorRT have forms of attention, those of decoders"
_PLUGIN = "only engines of TensorRT have an attention plugin, those of decoders"
_PROFILES = "only engines of TensorRT have profiles to join, those of decoders"
_ROOMS = "only engines of TensorRT have static KV caches, those of decoders"

_OBJECTIVE = "it chooses among kernels for quantized layers on ort-cpu, and batches in TensorRT"
_INTEGERS = ("quantize: int8", "quantize: int4", "quantize: auto", "quantize: stored")
_TIMED = ("quantize: int8, int4, auto or stored, with kernels: auto and tactics: measure",)

_MERGED = "the weights of an ONNX file have lost the names that an adapter goes by"

EFFECTS = (
    Effect("adapter", None, _MERGED, imported=_MERGED),
    Effect("compute", ("fp16", "bf16"), "ort-cpu computes in fp32", GPU),
    Effect("attention", None, _ATTENTION, TENSORRT, DECODER),
    # trt-rtx takes no compiled plugin either, and says so in its own words.
    Effect("plugin", ("aot",), _PLUGIN, TENSORRT, DECODER),
    Effect("profiles", ("joint",), _PROFILES, TENSORRT, DECODER),
    Effect("compute_capabilities", None, "only TensorRT builds for GPUs by name", TENSORRT),
    Effect(
        "shapes.cache",
        None,
        _ROOMS,
        TENSORRT,
        DECODER,
        hint="leave it out: shapes.sequence says how long texts may be",
    ),
    Effect(
        "shapes.source",
        None,
        "only encoder-decoder models of text have it",
        tasks=PAIR,
        hint="leave it out: shapes.sequence says how long texts may be",
    ),
    # ort-cuda refuses it itself, also beside a target that takes it.
    Effect(
        "quantize.cache", None, "only text-generation has its KV caches narrowed", tasks=DECODER
    ),
    Effect(
        "quantize.activations",
        ("static",),
        "only TensorRT has arithmetic with static scales of activations",
        TENSORRT,
        hint="leave it out: ort-cpu quantizes activations dynamically",
    ),
    Effect(
        "quantize.activations",
        ("none",),
        "ort-cpu quantizes activations dynamically, whatever is written",
        GPU,
    ),
    Effect(
        "pooling",
        ("mean", "cls"),
        "only feature extraction has an embedding made of hidden states",
        tasks=EMBEDDING + FEATURES,
        imported=AS_IT_IS,
    ),
    Effect(
        "pooling",
        ("lasttoken",),
        "only feature extraction has a sentence embedding made of hidden states",
        tasks=EMBEDDING,
        imported=AS_IT_IS,
    ),
    Effect(
        "pooling",
        ("max",),
        "only feature extraction and sparse embedding make one of a text's tokens",
        tasks=EMBEDDING + SPARSE + FEATURES,
        imported=AS_IT_IS,
    ),
    Effect(
        "pooling",
        ("sum",),
        "only a sparse embedding sums term scores",
        tasks=SPARSE,
        imported=AS_IT_IS,
    ),
    Effect(
        "pooling",
        ("none",),
        "this embedding is made of what the model's files say of tokens",
        tasks=PLAIN,
    ),
    Effect(
        "normalize",
        (True,),
        "only feature extraction with a pooling has an embedding",
        tasks=EMBEDDING + FEATURES,
        imported=AS_IT_IS,
        when=_pooled,
        needs=("pooling: auto", "pooling: mean"),
    ),
    Effect(
        "kernels",
        ("native",),
        "our own kernels are for quantized models on ort-cpu",
        CPU,
        when=_quantized,
        needs=_INTEGERS,
    ),
    Effect("objective", ("throughput", "memory"), _OBJECTIVE, CPU, when=_timed, needs=_TIMED),
    Effect("objective", ("throughput",), _OBJECTIVE, TENSORRT),
    Effect("position_ids", (True,), "positions are an input of decoders alone", tasks=DECODER),
    Effect("shapes.sequence", None, "an image has as many patches as its size says", tasks=TEXTS),
    Effect("verify.text", None, UNREAD, tasks=READING, imported=UNCOMPARED),
    Effect("verify.tokens", None, UNREAD, tasks=READING, imported=UNCOMPARED),
    Effect(
        "gates.perplexity",
        None,
        "only text generation has it",
        tasks=(*DECODER, *PAIR, "automatic-speech-recognition", "image-text-to-text"),
        imported=UNCOMPARED,
    ),
    Effect(
        "gates.argmax", None, "feature extraction has no scores", tasks=SCORED, imported=UNCOMPARED
    ),
    Effect("gates.cosine", None, UNCOMPARED, imported=UNCOMPARED),
    Effect("gates.max_error", None, UNCOMPARED, imported=UNCOMPARED),
)
