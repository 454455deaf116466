"""Export: a source and a task become a neutral model with lazily read weights."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from torch import nn

from lepton_compile.collection import uncollected
from lepton_compile.errors import ExportError
from lepton_compile.progress import Step
from lepton_passes.body import DIALECT, bodies

from . import meta
from .adapting import part_unread, weights_of
from .attach import attach
from .checkpoint import Checkpoint, Integers
from .checkpoint.names import summarize
from .checkpoint.quantized import method_of
from .encoder_decoder import PAIRS, READS
from .grid_text import GridTextModule
from .image_text import IMAGE_TEXT, ImageTextModule, check_image_text, picture_tokens, placeholder
from .kept import CacheLayer, StateLayer
from .lengths import longest_sequence
from .made_weights import made_weights
from .model import Graph, build_graph
from .patch_grid import PatchGrid, patch_grid
from .source import Source
from .task_names import AUTO_CLASSES, auto_class, check_known
from .tasks import CacheUse, Pooling, TaskModule, task_module
from .text_part import own_name, text_part
from .text_tower import reads_padding, text_tower
from .ties import tied_of, untie
from .traced import Traced
from .vision import VisionModule
from .vision_part import IMAGE_TASKS, image_shape, lacks_pooler, parts_of, vision_part
from .weights import Binding, bind

__all__ = [
    "ExportedModel",
    "export",
    "meta_model",
]

# Beyond this a number of layers is a mistake, and making them would take hours.
MOST_LAYERS = 4096
Stored = tuple[Checkpoint, Callable[[str], str]]
"""The weights of a network, and what it calls them."""


@dataclass
class ExportedModel:
    """A neutral graph and what the later stages need to know about it.

    Attributes:
        model: the graph; every initializer has a tensor, large ones are read when written.
        task: optimum's task name.
        architecture: class name of the model.
        caches: one entry for each cached attention, in order; empty without a cache.
        sharing: how many attentions read the cache of another.
        parameters: number of weights in the model.
        length: longest sequence (past included) that the graph can take; of pictures, how many
            parts a picture has.
        how: name of the ``Way`` it was captured in; ``kinds`` distinct layers were traced.
        foresees: whether a token's rotary embedding depends on tokens after it (LongRoPE).
        near_to: how many tokens a call may have for the first set of its frequencies; 0 without.
        notes: what was tried and refused on the way, and unused tensors of the checkpoint.
        tied: names of the model that stand for a weight with another name, and that name.
        states: one for each state that a layer has in place of keys and values, in order.
        integers: that hold the parameters which the checkpoint has quantized.
        source_length: longest text that an encoder-decoder reads; ``length`` is of what it writes.
        stored: int4 or int8 where an ONNX file has weights so, the fewest bits of several; with
            ``static-`` in front where it rounds activations, too.
        picture_tokens: how many tokens stand for a picture, or for each tile of one, 0 where that
            goes by its size and ``grid``, and which: ``placeholder`` (image-text-to-text).
        padded: whether texts are padded to ``length``, and the padding is read.
    """

    model: ir.Model
    task: str
    architecture: str
    caches: list[CacheLayer]
    parameters: int
    length: int
    how: str
    kinds: int
    foresees: bool = False
    near_to: int = 0
    notes: list[str] = field(default_factory=list)
    tied: dict[str, str] = field(default_factory=dict)
    sharing: int = 0
    states: list[StateLayer] = field(default_factory=list)
    integers: dict[str, Integers] = field(default_factory=dict)
    source_length: int = 0
    stored: str = ""
    picture_tokens: int = 0
    placeholder: int = 0
    grid: PatchGrid | None = None
    padded: bool = False

    @property
    def cached(self) -> bool:
        """Whether it goes on from what it was given before, as decoders do."""
        return bool(self.caches or self.states)


def export(
    source: Source,
    task: str,
    *,
    length: int | None = None,
    source_length: int | None = None,
    pooling: Pooling | None = None,
    positions: bool = False,
    progress: Step | None = None,
    traced: Traced | None = None,
    weights: bool = True,
) -> ExportedModel:
    """Capture a model as a neutral graph. No weight is read.

    Args:
        source: the resolved model.
        task: optimum's task name.
        length: longest sequence wanted, within the model's own limit.
        source_length: the same of what is read (text2text-generation).
        pooling: sentence embedding to add to the graph (feature-extraction).
        positions: whether they are an input, ``position_ids`` (text-generation).
        traced: graphs to take the model's from, where it is among them; else it is traced.
        weights: bind them; without, the configuration is enough, and large initializers have no
            tensor.

    Raises:
        ExportError: no way of capturing the model works.
        CheckpointError: the weights do not fit the model.
    """
    meta.check_layers(source.config())
    longest = longest_sequence(source.config(), length)
    reads = longest_sequence(source.config(), source_length, "source") if task == READS else 0
    step = progress or (lambda what, done, total: None)
    step("building the model without weights", 0, 3)
    with uncollected():
        network = meta_model(source, task)
        # Before it is traced, for what is tied may have to be untied.
        stored = weights_of(source, network, _own_name(source, task)) if weights else None
        apart = _untied(source, task, network, stored)
        step(f"tracing {type(network).__name__}", 1, 3)
        grid = patch_grid(source.config()) if task == IMAGE_TEXT else None
        sees = task in IMAGE_TASKS or (task == IMAGE_TEXT and grid is None)
        image = image_shape(source, tiles=task == IMAGE_TEXT) if sees else None
        longest = parts_of(source, image) if image and task != IMAGE_TEXT else longest
        asked = _Asked(task, longest, reads, pooling, positions, image, grid)
        # Before the trace, which fails on sizes that do not fit without a word on them.
        tokens = picture_tokens(network, image) if image and task == IMAGE_TEXT else 0
        graph = _graph(network, asked, traced)
    exported = _described(graph, network, asked)
    if task == IMAGE_TEXT:
        exported.picture_tokens, exported.grid = tokens, grid
        exported.placeholder = placeholder(network.config)
    exported.notes += apart
    if stored is not None:
        step("binding weights", 2, 3)
        binding = _bound(graph, network, stored, pooling)
        exported.notes += _notes(source, task, binding.unused)
        exported.integers = binding.integers
        step("capture done", 3, 3)
    return exported


def _bound(graph: Graph, network: nn.Module, stored: Stored, pooling: Pooling | None) -> Binding:
    """Attach the weights that the graph reads, each to be read when it is written."""
    checkpoint, rename = stored
    made = made_weights(network, {parameter for parameter, _ in graph.parameters.values()})
    binding = bind(
        {name: tuple(p.shape) for name, p in network.state_dict().items()},
        checkpoint,
        tied=tied_of(network),
        prefix=getattr(network, "base_model_prefix", ""),
        ignore=[*_ignored(network, graph), *(f"^{re.escape(name)}$" for name in made)],
        rename=rename,
    )
    weights = made | binding
    attach(graph, weights if pooling is None else weights | pooling.weights())
    return binding


def _own_name(source: Source, task: str) -> Callable[[str], str] | None:
    return None if text_part(source.config(), task) is None else own_name


def _untied(source: Source, task: str, network: nn.Module, stored: Stored | None) -> list[str]:
    """Weights of their own for what is tied and stored apart; told of in notes. Where no weights
    are read, what an adapter parts."""
    if stored is None:
        found = part_unread(source, network, _own_name(source, task))
    else:
        found = untie(network, *stored)
    return [f"{name} has numbers of its own, though the configuration ties it" for name in found]


def _notes(source: Source, task: str, unused: tuple[str, ...]) -> list[str]:
    """What a reader of the report should know of the weights."""
    notes, part = [], ""
    if text_part(source.config(), task) is not None:
        part = "language model"
    if text_tower(source.config(), task) is not None:
        part = "text tower"
    if vision_part(source.config(), task) is not None:
        part = "vision tower"
    if source.adapter is not None:
        notes.append(f"with the weights of the adapter {source.adapter.spec}")
    if settings := source.quantization:
        kind = method_of(settings)
        notes.append(f"the checkpoint is quantized already ({kind}): its values are compiled")
    if part:
        notes.append(f"of {source.architecture} the {part} alone")
    if unused:
        notes.append(
            f"{len(unused)} tensors of the checkpoint are not used by this task: "
            + ", ".join(summarize(unused))
        )
    return notes


@dataclass(frozen=True)
class _Asked:
    """What a graph is traced for, beside its model: ``longest`` is the longest sequence,
    ``reads`` that of the source, 0 where there is none."""

    task: str
    longest: int
    reads: int
    pooling: Pooling | None
    positions: bool
    image: tuple[int, int, int] | None
    grid: PatchGrid | None


def _described(graph: Graph, network: nn.Module, asked: _Asked) -> ExportedModel:
    dense = asked.pooling.dense if asked.pooling is not None else ()
    return ExportedModel(
        model=graph.model,
        task=asked.task,
        architecture=type(network).__name__,
        caches=graph.caches,
        parameters=sum(p.numel() for p in network.parameters())
        + sum(each.parameters for each in dense),
        length=asked.longest,
        source_length=asked.reads,
        how=graph.how,
        kinds=graph.kinds,
        foresees=graph.foresees,
        near_to=graph.near_to,
        padded=reads_padding(network.config),
        notes=[*graph.refused],
        tied=tied_of(network),
        states=graph.states,
        sharing=sum(
            b.times * len(b.nodes("SharedAttention", domain=DIALECT)) for b in bodies(graph.model)
        ),
    )


def _graph(network: nn.Module, asked: _Asked, traced: Traced | None) -> Graph:
    if traced is not None:
        return traced.graph(network, asked, lambda: _graph(network, asked, None))

    def make(cache: CacheUse) -> TaskModule:
        if asked.grid is not None:
            return GridTextModule(network, cache, asked.grid)
        if asked.image is not None and asked.task == IMAGE_TEXT:
            return ImageTextModule(network, cache, asked.image)
        if asked.image is not None:
            return VisionModule(network, asked.task, asked.pooling, asked.image)
        pooling, positions = asked.pooling, asked.positions
        return task_module(network, asked.task, pooling=pooling, cache=cache, positions=positions)

    graph = build_graph(make, max(asked.longest, asked.reads))
    for name, value in graph.model.graph.initializers.items():
        if name in graph.values:
            value.const_value = ir.tensor(np.ascontiguousarray(graph.values[name]), name=name)
    return graph


def meta_model(source: Source, task: str) -> nn.Module:
    """The model of a task on the meta device, in fp32.

    Raises:
        ExportError: the task is unknown, or the architecture has no model for it.
    """
    import torch

    whole = source.config()
    auto = auto_class(whole, task)
    config = text_part(whole, task) or text_tower(whole, task) or vision_part(whole, task) or whole
    if config is not whole and task == "text-generation":
        auto = auto_class(config, task)
    options: dict[str, Any] = {"dtype": torch.float32}
    if source.trust_remote_code:
        options["trust_remote_code"] = True
    if AUTO_CLASSES[task] == "AutoModel" and hasattr(config, "add_pooling_layer"):
        options["add_pooling_layer"] = False
    check_known(auto, config, task)
    if task == IMAGE_TEXT:
        check_image_text(config)
    layers = getattr(config.get_text_config(), "num_hidden_layers", None) or 0
    try:
        if layers > MOST_LAYERS:
            raise ExportError(
                "the configuration asks for more layers than any model has",
                found=f"{layers:,}",
                available=[f"up to {MOST_LAYERS:,}"],
                hint="correct num_hidden_layers, or the key that stands for it, in config.json",
            )
        make = getattr(auto, "from_config", None) or auto._from_config
        network = meta.build(lambda: make(config, **options))
        if task == "image-feature-extraction" and lacks_pooler(source, network):
            network = meta.build(lambda: make(config, **options, add_pooling_layer=False))
        _check_spans(network, task)
        _check_scores(network, task)
        return network
    except Exception as error:  # whatever the library or the model's own code raises
        raise _cannot_build(source, error) from error


def _check_spans(network: Any, task: str) -> None:
    """Answers have a start and an end: a head with as many scores as labels is for those."""
    if task != "question-answering":
        return
    trunk = getattr(network, "base_model", network)
    heads = [part for part in network.children() if part is not trunk]
    layers = [part for head in heads for part in head.modules() if isinstance(part, nn.Linear)]
    scores = layers[-1].out_features if layers else 2
    if scores != 2 and scores == network.config.num_labels:
        raise ExportError(
            "the model does not score the starts and ends of answers alone",
            found=f"num_labels: {scores}",
            available=["num_labels: 2"],
            hint="choose the task that its labels are for, such as text-classification; or correct "
            "num_labels and id2label in config.json",
        )


def _check_scores(network: Any, task: str) -> None:
    """A loader makes room for a score of each token of the vocabulary."""
    if task not in ("text-generation", IMAGE_TEXT, *PAIRS):
        return
    scores = getattr(network.get_output_embeddings(), "weight", None)
    words = getattr(network.config.get_text_config(), "vocab_size", None)
    if scores is not None and words is not None and scores.shape[0] != words:
        raise ExportError(
            "the model scores another number of tokens than it has by its configuration",
            found=f"vocab_size: {words}, and {scores.shape[0]} scores",
            hint="correct vocab_size, or what else it goes by, such as decoder_vocab_size",
        )


def _cannot_build(source: Source, error: Exception) -> ExportError:
    where = source.path / "config.json" if source.kind == "folder" else source.path
    if isinstance(error, ExportError):
        return ExportError(
            error.message,
            where=str(where),
            found=error.found,
            available=error.available,
            hint=error.hint,
        )
    return ExportError(
        "transformers cannot build the model that its configuration describes",
        where=str(where),
        found=f"{type(error).__name__}: {error}",
        hint="compare the configuration with the one that the model was released with",
    )


def _ignored(network: nn.Module, graph: Graph) -> list[str]:
    """Parameters the graph does not read (a pooler nobody asks for) may be missing."""
    read = {parameter for parameter, _ in graph.parameters.values()}
    tied = tied_of(network)
    idle = [
        n
        for n in network.state_dict()
        if n not in read and n not in tied and n not in tied.values()
    ]
    known = getattr(network, "_keys_to_ignore_on_load_unexpected", None) or []
    return [*(f"^{re.escape(name)}$" for name in idle), *known]
