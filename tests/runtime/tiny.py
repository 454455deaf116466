"""Tiny artifacts with real ONNX graphs: a grouped-query decoder, an encoder, a classifier.

The decoder has the same graph twice: here as ONNX, in ``truth.py`` as numpy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper

from lepton_compile.api.describe import ranges_of
from lepton_compile.artifact import Artifact, ArtifactWriter, Manifest
from lepton_compile.export import ExportedModel
from lepton_compile.recipe import Recipe
from lepton_compile.recipe.schema import Shapes
from lepton_compile.runtime import emit

__all__ = ["LAYERS", "VOCABULARY", "Weights", "decoder", "encoder", "tokenizer_json", "weights"]

Plans = Mapping[str, tuple[bytes, Mapping[str, Any]]]
"""Target -> the plan's bytes, and what its manifest entry says besides."""

VOCABULARY, HIDDEN, HEADS, KV_HEADS, HEAD_DIM, LAYERS, ROOM = 64, 32, 4, 2, 16, 2, 96
WORDS = ("<pad>", "<eos>", "<bos>", "<unk>", *(f"w{n}" for n in range(4, VOCABULARY)))
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'alien' %}"
    "{{ raise_exception('no aliens') }}{% endif %} {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %} w9 {% endif %}"
)


@dataclass(frozen=True)
class Weights:
    """Random parameters of the decoder; each projection is (in, out)."""

    embedding: np.ndarray
    layers: tuple[dict[str, np.ndarray], ...]
    cos: np.ndarray
    sin: np.ndarray


def weights(seed: int = 0) -> Weights:
    """The decoder's parameters, the same for the same seed."""
    random = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return (random.standard_normal(shape) * 0.4).astype(np.float32)

    layers = tuple(
        {
            "query": draw(HIDDEN, HEADS * HEAD_DIM),
            "key": draw(HIDDEN, KV_HEADS * HEAD_DIM),
            "value": draw(HIDDEN, KV_HEADS * HEAD_DIM),
            "output": draw(HEADS * HEAD_DIM, HIDDEN),
        }
        for _ in range(LAYERS)
    )
    angles = np.arange(ROOM)[:, None] / 100.0 ** (np.arange(HEAD_DIM // 2) / (HEAD_DIM // 2))
    return Weights(
        draw(VOCABULARY, HIDDEN), layers, *(f(angles).astype(np.float32) for f in (np.cos, np.sin))
    )


def decoder_model(given: Weights, *, shared: bool = True) -> onnx.ModelProto:
    """Embedding, grouped-query attention layers with rotary positions, tied head."""
    tensors: dict[str, np.ndarray] = {
        "embedding": given.embedding,
        "head": np.ascontiguousarray(given.embedding.T),
        "cos": given.cos,
        "sin": given.sin,
        "axis1": np.array([1], np.int64),
        "one": np.array(1, np.int64),
        "zero": np.array([0], np.int64),
        "far": np.array([2**62], np.int64),
        "logits_to_keep": np.array(0, np.int64),
    }
    node = helper.make_node
    nodes = [
        node("Gather", ["embedding", "input_ids"], ["hidden_0"]),
        node("ReduceSum", ["attention_mask", "axis1"], ["sums"], keepdims=0),
        node("Sub", ["sums", "one"], ["last"]),
        node("Cast", ["last"], ["lengths"], to=TensorProto.INT32),
        node("Shape", ["attention_mask"], ["columns"], start=1, end=2),
        node("Squeeze", ["columns"], ["column"]),
        node("Cast", ["column"], ["total"], to=TensorProto.INT32),
    ]
    inputs = [_ids("input_ids", "sequence"), _ids("attention_mask", "total_sequence")]
    inputs.append(helper.make_tensor_value_info("logits_to_keep", TensorProto.INT64, []))
    outputs = [_floats("logits", ["batch", "kept", VOCABULARY])]
    for number, layer in enumerate(given.layers):
        tensors |= {f"{name}_{number}": value for name, value in layer.items()}
        nodes += _attention(number)
        for kind in ("key", "value"):
            past = ["batch", KV_HEADS, "past_sequence", HEAD_DIM]
            inputs.append(_floats(f"past_key_values.{number}.{kind}", past))
            whole = ["batch", KV_HEADS, "present_sequence", HEAD_DIM]
            outputs.append(_floats(f"present.{number}.{kind}", whole))
    nodes += [
        node("Neg", ["logits_to_keep"], ["back"]),
        node("Unsqueeze", ["back", "zero"], ["start"]),
        node("Slice", [f"hidden_{LAYERS}", "start", "far", "axis1"], ["kept"]),
        node("MatMul", ["kept", "head"], ["logits"]),
    ]
    return _model(nodes, inputs, outputs, tensors)


def _attention(number: int) -> list[onnx.NodeProto]:
    node, source = helper.make_node, f"hidden_{number}"
    projections = [
        node("MatMul", [source, f"{kind}_{number}"], [f"{kind}_of_{number}"])
        for kind in ("query", "key", "value")
    ]
    attention = node(
        "GroupQueryAttention",
        [
            *(f"{kind}_of_{number}" for kind in ("query", "key", "value")),
            *(f"past_key_values.{number}.{kind}" for kind in ("key", "value")),
            *("lengths", "total", "cos", "sin"),
        ],
        [f"attended_{number}", f"present.{number}.key", f"present.{number}.value"],
        domain="com.microsoft",
        num_heads=HEADS,
        kv_num_heads=KV_HEADS,
        do_rotary=1,
    )
    return [
        *projections,
        attention,
        node("MatMul", [f"attended_{number}", f"output_{number}"], [f"added_{number}"]),
        node("Add", [source, f"added_{number}"], [f"hidden_{number + 1}"]),
    ]


def encoder_model(task: str) -> onnx.ModelProto:
    """Embeddings of ids, types and the mean of the row; logits over three labels when asked."""
    random = np.random.default_rng(7)
    tensors = {
        "embedding": random.standard_normal((VOCABULARY, HIDDEN)).astype(np.float32),
        "types": random.standard_normal((2, HIDDEN)).astype(np.float32),
        "classes": random.standard_normal((HIDDEN, 3)).astype(np.float32),
        "axis1": np.array([1], np.int64),
        "axis2": np.array([2], np.int64),
    }
    node = helper.make_node
    nodes = [
        node("Gather", ["embedding", "input_ids"], ["words"]),
        node("Gather", ["types", "token_type_ids"], ["kinds"]),
        node("Add", ["words", "kinds"], ["last_hidden_state"]),
        node("Cast", ["attention_mask"], ["weights"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["weights", "axis2"], ["columns"]),
        node("Mul", ["last_hidden_state", "columns"], ["masked"]),
        node("ReduceSum", ["masked", "axis1"], ["sums"], keepdims=0),
        node("ReduceSum", ["weights", "axis1"], ["counts"], keepdims=1),
        node("Div", ["sums", "counts"], ["sentence_embedding"]),
        node("MatMul", ["sentence_embedding", "classes"], ["of_text"]),
        node("MatMul", ["last_hidden_state", "classes"], ["of_tokens"]),
    ]
    inputs = [_ids(name, "sequence") for name in ("input_ids", "attention_mask", "token_type_ids")]
    outputs = [
        _floats("last_hidden_state", ["batch", "sequence", HIDDEN]),
        _floats("sentence_embedding", ["batch", HIDDEN]),
    ]
    if task == "text-classification":
        nodes.append(node("Identity", ["of_text"], ["logits"]))
        outputs = [_floats("logits", ["batch", 3])]
    if task == "token-classification":
        nodes.append(node("Identity", ["of_tokens"], ["logits"]))
        outputs = [_floats("logits", ["batch", "sequence", 3])]
    return _model(nodes, inputs, outputs, tensors)


def decoder(
    folder: Path,
    *,
    shared: bool = True,
    tokenizer: str | None = "words",
    template: str | None = TEMPLATE,
    plans: Plans | None = None,
    cpu: bool = True,
    least: int = 1,
) -> Artifact:
    """An artifact of the decoder at ``folder``; ``shared`` false tells the loader not to share.

    ``plans`` are engines for other targets; without ``cpu`` they are the only ones. The loader is
    told that they take no fewer than ``least`` rows.
    """
    model = decoder_model(weights())
    return _artifact(
        folder,
        model,
        plans=plans or {},
        cpu=cpu,
        task="text-generation",
        tokenizer=tokenizer,
        template=template,
        ranges=_ranges(model, "text-generation", (least, 8), ROOM),
        cache={
            "past": "past_key_values.{layer}.{kind}",
            "present": "present.{layer}.{kind}",
            "dtype": "float32",
            "max_length": ROOM,
            "shared": shared,
            "layers": [{"heads": KV_HEADS, "head_dim": HEAD_DIM, "window": None}] * LAYERS,
        },
        generation={"eos": [1], "bos": 2, "pad": 0, "vocabulary": VOCABULARY},
    )


def encoder(
    folder: Path,
    task: str = "feature-extraction",
    *,
    pooled: bool = True,
    limit: int | None = None,
    plans: Plans | None = None,
    least: int = 1,
    score: str | None = None,
) -> Artifact:
    """An artifact of the encoder at ``folder``; ``limit`` is where it cuts texts.

    The loader is told that it takes no fewer than ``least`` texts, and tokens.
    """
    pooling = {"pooling": "mean", "normalize": False, "output": "sentence_embedding"}
    pooling |= {"max_tokens": limit}
    model = encoder_model(task)
    return _artifact(
        folder,
        model,
        plans=plans or {},
        task=task,
        tokenizer="words",
        ranges=_ranges(model, task, (least, 64), 16, least),
        embedding=pooling if pooled and task == "feature-extraction" else None,
        labels={"0": "bad", "1": "so so", "2": "good"} if "classification" in task else None,
        score=score,
    )


def _ranges(
    model: onnx.ModelProto, task: str, batch: tuple[int, int], length: int, shortest: int = 1
) -> dict[str, list[int]]:
    """As a build writes them."""
    graph = ir.serde.deserialize_model(model)
    exported = ExportedModel(graph, task, "Tiny", [], 0, length, "", 0)
    config = SimpleNamespace(vocab_size=VOCABULARY, type_vocab_size=2)
    shapes = Shapes(batch=batch, sequence=(shortest, length))
    return ranges_of(Recipe(model="tiny", shapes=shapes), exported, config)


def _artifact(
    folder: Path,
    model: onnx.ModelProto,
    *,
    task: str,
    tokenizer: str | None,
    template: str | None = None,
    plans: Plans,
    cpu: bool = True,
    **fields: Any,
) -> Artifact:
    with ArtifactWriter(folder) as writer:
        engines = [_write_plan(writer.folder, target, *plan) for target, plan in plans.items()]
        if cpu:
            engine = writer.folder / "engines" / "ort-cpu"
            engine.mkdir(parents=True)
            (engine / "model.onnx").write_bytes(model.SerializeToString())
            engines.append(_ENGINE)
        files = _write_tokenizer(writer.folder, tokenizer, template) if tokenizer else None
        signature = _signature(model)
        manifest = Manifest(
            task=task,
            model={"source": "tiny", "architecture": "Tiny", "model_type": "tiny"},
            inputs=tuple(signature["inputs"]),
            outputs=tuple(signature["outputs"]),
            engines=tuple(engines),
            tokenizer=files,
            **fields,
        )
        emit(writer.folder, manifest.as_dict())
        writer.seal(manifest)
        return writer.publish()


def _write_plan(root: Path, target: str, plan: bytes, details: Mapping[str, Any]) -> dict[str, Any]:
    """Write the plan and the files of ``details``; the engine's entry of the manifest."""
    folder = root / "engines" / target
    files = {"model.plan": plan, **details.get("files", {})}
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    package = "tensorrt" if target == "trt" else "tensorrt-rtx"
    return {
        "target": target,
        "model": f"engines/{target}/model.plan",
        "requires": {package: "1.7.1.116", "cuda-bindings": ">=13"},
        "precision": "fp32",
        "executed": False,
        "compute_capabilities": ["portable"],
        "plugin": None,
        **details,
        "files": sorted(f"engines/{target}/{name}" for name in files),
    }


_ENGINE: dict[str, Any] = {
    "target": "ort-cpu",
    "model": "engines/ort-cpu/model.onnx",
    "files": ["engines/ort-cpu/model.onnx"],
    "requires": {"onnxruntime": ">=1.30"},
    "precision": "fp32",
    "executed": True,
}


def _signature(model: onnx.ModelProto) -> dict[str, list[dict[str, Any]]]:
    optional = {tensor.name for tensor in model.graph.initializer}

    def entry(value: onnx.ValueInfoProto) -> dict[str, Any]:
        kind = value.type.tensor_type
        dtype = "int64" if kind.elem_type == TensorProto.INT64 else "float32"
        shape = [d.dim_param or d.dim_value for d in kind.shape.dim]
        return {"name": value.name, "dtype": dtype, "shape": shape}

    inputs = [{**entry(v), "optional": v.name in optional} for v in model.graph.input]
    return {"inputs": inputs, "outputs": [entry(v) for v in model.graph.output]}


def tokenizer_json(kind: str) -> str:
    """A tokenizer of whole words, or one of bytes, so that a character may take several tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    if kind == "bytes":
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        # The bytes that the texts of these tests use, so that the vocabulary stays small.
        used = [c for c in alphabet if c in set(_byte_characters("äöü€😀 abcxyz"))]
        names = ("<pad>", "<eos>", "<bos>", "<unk>", *used)
        made = Tokenizer(models.BPE({name: n for n, name in enumerate(names)}, []))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
    else:
        vocabulary = {name: n for n, name in enumerate(WORDS)}
        made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(["<pad>", "<eos>", "<bos>"])
    return str(made.to_str())


def _byte_characters(text: str) -> str:
    from tokenizers import pre_tokenizers

    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(
        text
    )
    return "".join(piece for piece, _ in pieces)


def _write_tokenizer(folder: Path, kind: str, template: str | None) -> dict[str, str | None]:
    (folder / "tokenizer.json").write_text(tokenizer_json(kind), "utf-8")
    config = {"bos_token": {"content": "<bos>"}, "eos_token": "<eos>", "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    files: dict[str, str | None] = {"file": "tokenizer.json", "config": "tokenizer_config.json"}
    if template is None:
        return {**files, "chat_template": None}
    (folder / "chat_template.jinja").write_text(template, "utf-8")
    return {**files, "chat_template": "chat_template.jinja"}


def _ids(name: str, columns: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", columns])


def _floats(name: str, shape: list[Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    tensors: dict[str, np.ndarray],
) -> onnx.ModelProto:
    constants = [onnx.numpy_helper.from_array(value, name) for name, value in tensors.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)
