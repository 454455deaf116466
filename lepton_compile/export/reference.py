"""The fp32 PyTorch model that every number is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import onnx_ir as ir
from torch import nn

from lepton_compile.errors import SourceError
from lepton_compile.export.adapting import weights_of
from lepton_compile.export.checkpoint.safetensors import SINGLE_NAME
from lepton_compile.export.dense import Dense
from lepton_compile.export.image_text import IMAGE_TEXT, look_up_known
from lepton_compile.export.meta import build
from lepton_compile.export.multi_vector import token_vectors
from lepton_compile.export.sentence import pooling
from lepton_compile.export.source import Source
from lepton_compile.export.source.folder import read_config
from lepton_compile.export.streamed_reference import fill, held_parameters, stream_layers
from lepton_compile.export.swapped import swapped
from lepton_compile.export.task_names import auto_class, check_known
from lepton_compile.export.text_part import text_part
from lepton_compile.export.text_tower import text_tower
from lepton_compile.export.ties import tied_of, untie
from lepton_compile.export.vision import interpolation
from lepton_compile.export.vision_part import IMAGE_TASKS, image_shape, vision_part
from lepton_compile.export.weights import bind
from lepton_passes.tensors import StreamedTensor

__all__ = ["load_reference", "mapped_bytes", "reference_parameters", "streamed_parameters"]

HALF = 2
"""Bytes of a number in fp16 or bf16."""
ALIGNED = 16
"""Bytes at a multiple of which each row begins in what torch multiplies in groups."""


def load_reference(source: Source, task: str, *, streamed: bool = False) -> nn.Module:
    """The model of ``source`` in fp32 on the CPU, in evaluation mode.

    A folder is loaded by transformers: a model of several parts as a whole. A GGUF file, weights
    that are quantized already and adapters are read through our own checkpoint: transformers keeps
    the first packed and takes minutes, and wants other libraries, or a GPU, for the rest.

    Args:
        streamed: hold a layer at a time; ``streamed_parameters`` says how much that is.

    Raises:
        ExportError: the task is not one of those that can be compiled, or no model of this
            architecture does it.
        SourceError: the model cannot be loaded, or the source has no PyTorch model (``.onnx``).
    """
    if source.kind == "onnx":
        raise SourceError(
            "An ONNX file has no PyTorch model to compare with.",
            found=str(source.path),
            hint="compare with what its own tool computes: `lepton-compile run DIR --inputs FILE`",
        )
    auto = _class(source, task)
    whole = source.config()
    config = text_tower(whole, task) or vision_part(whole, task) or whole
    check_known(auto, config, task)
    load = _streamed if streamed else _loaded if _as_it_lies(source) else _filled
    model = load(source, auto, config)
    if task in IMAGE_TASKS:
        model.forward = partial(model.forward, **interpolation(model, image_shape(source)))
    if task == IMAGE_TEXT:
        look_up_known(model)
    if dense := _dense_in(source, task):
        model.sentence_dense = _dense_of(dense)
    return model.eval()


def reference_parameters(source: Source, task: str, compiled: int) -> int:
    """How many weights ``load_reference`` loads where ``compiled`` are compiled: more of a model of
    several parts, which is loaded as a whole."""
    config = source.config()
    if source.kind != "folder" or text_part(config, task) is None:
        return compiled
    made = _class(source, task)
    try:
        whole = build(lambda: getattr(made, "from_config", made)(config))
    except Exception:  # what other parts need may not be there, and this part does not ask for it
        return compiled
    return max(compiled, sum(parameter.numel() for parameter in whole.parameters()))


def streamed_parameters(source: Source, task: str) -> int | None:
    """How many weights ``load_reference`` holds at once of a decoder that it streams; None where it
    cannot: of other tasks, of one of several parts, of layers that share weights."""
    config = source.config()
    if task != "text-generation" or text_part(config, task) is not None:
        return None
    made = _class(source, task)
    try:
        return held_parameters(build(lambda: made.from_config(config)))
    except Exception:  # whatever a model's own code raises
        return None


def mapped_bytes(source: Source, parameters: int) -> int:
    """Bytes of weight files that ``load_reference`` holds beside the model until all are read.

    transformers maps all files, and what is in fp32 there is the model itself. Where there are none
    yet, ``parameters`` in the precision that the configuration names.
    """
    if not _as_it_lies(source):
        return 0
    try:
        tensors = source.checkpoint().names().values()
    except SourceError:
        said = read_config(source.path)  # of the file: capturing a model says fp32 in the object
        half = str(said.get("dtype") or said.get("torch_dtype")).endswith("float16")
        return HALF * parameters if half else 0
    kept = (each.location for each in tensors if each.dtype != ir.DataType.FLOAT)
    return sum(place.length for place in kept if place is not None)


def _as_it_lies(source: Source) -> bool:
    """Whether transformers loads it itself."""
    return source.kind == "folder" and source.quantization is None and source.adapter is None


def _class(source: Source, task: str) -> Any:
    """What transformers loads the model by."""
    import transformers

    auto = auto_class(source.config(), task)
    if text_part(source.config(), task) is None:
        return auto
    # The whole, which must say the same of text; some of them are no causal model by name.
    return getattr(transformers, source.architecture, auto)


def _dense_in(source: Source, task: str) -> Sequence[Dense]:
    """Layers behind the pooling; none where modules cannot be compiled: such a model is built with
    ``pooling: none`` alone, and nothing reads them."""
    reads = {"feature-extraction": pooling, "multi-vector-embedding": token_vectors}.get(task)
    try:
        layers: Sequence[Dense] = ((reads and reads(source)) or {}).get("dense", ())
    except SourceError:
        return ()
    return layers


def _dense_of(dense: Sequence[Dense]) -> nn.Module:
    """What stands behind the pooling of a sentence-transformers model, in fp32."""
    import torch
    from safetensors.torch import load_file

    made = nn.Sequential()
    for each in dense:
        module = each.module()
        stored = load_file(each.folder / SINGLE_NAME)
        module[0].load_state_dict({k.removeprefix("linear."): v for k, v in stored.items()})
        made.append(module.to(torch.float32))
    return made


def _loaded(source: Source, auto: Any, config: Any) -> nn.Module:
    import torch
    from transformers import GenerationConfig

    try:
        with _without_bars():
            model: nn.Module = auto.from_pretrained(
                source.path,
                config=config,
                generation_config=GenerationConfig(),  # not that of a file: nothing is generated
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=source.trust_remote_code,
                local_files_only=True,
            )
    except MemoryError:
        raise
    except Exception as error:  # whatever the library or the model's own code raises
        raise SourceError(
            "transformers cannot load the model.",
            where=str(source.path),
            found=f"{type(error).__name__}: {error}",
        ) from error
    _multiply_apart(model)
    return model


def _multiply_apart(model: nn.Module) -> None:
    """Experts one after the other where torch cannot multiply all at once: its kernel asks of rows
    that each begins at a multiple of so many bytes."""
    modules = [module for module in model.modules() if not isinstance(module, nn.Conv1d)]
    owned = (each for module in modules for each in module.parameters(recurse=False))
    stacked = [each for each in owned if each.ndim == 3]
    if not any(size * each.element_size() % ALIGNED for each in stacked for size in each.shape[1:]):
        return
    if getattr(model.config, "_experts_implementation", None) == "grouped_mm":
        model.set_experts_implementation("eager")  # type: ignore[operator]


def _without_bars() -> AbstractContextManager[None]:
    """transformers shows none of its own: whoever watches a build is shown ours, in a notebook too.

    Its public switch is also that of the hub, whose settings by group would be lost.
    """
    from transformers.utils import logging

    name = "_tqdm_active"
    return swapped((logging, name, False)) if hasattr(logging, name) else nullcontext()


def _filled(source: Source, auto: Any, config: Any) -> nn.Module:
    """Built from the configuration and filled in blocks of rows."""
    model, tensors = _unfilled(source, auto, config)
    state = model.state_dict()
    for name, tensor in tensors.items():
        fill(state[name], tensor)
    return model


def _streamed(source: Source, auto: Any, config: Any) -> nn.Module:
    """The same, its layers filled as they run."""
    model, tensors = _unfilled(source, auto, config)
    stream_layers(model, tensors)
    return model


def _unfilled(
    source: Source, auto: Any, config: Any
) -> tuple[nn.Module, dict[str, StreamedTensor]]:
    """Built from the configuration, its weights not written, which takes no memory yet; and the
    checkpoint's tensors by the names in its state, each storage once."""
    import torch
    from transformers.initialization import no_init_weights

    options = {"trust_remote_code": True} if source.trust_remote_code else {}
    make = getattr(auto, "from_config", None) or auto._from_config
    with no_init_weights():
        model: Any = make(config, dtype=torch.float32, **options)
    model.tie_weights()
    _multiply_apart(model)
    checkpoint, rename = weights_of(source, model)
    untie(model, checkpoint, rename)
    tied = tied_of(model)
    tensors = bind(
        {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()},
        checkpoint,
        tied=tied,
        prefix=model.base_model_prefix,
        ignore=model._keys_to_ignore_on_load_unexpected or [],
        rename=rename,
    )
    return model, {name: tensor for name, tensor in tensors.items() if name not in tied}
