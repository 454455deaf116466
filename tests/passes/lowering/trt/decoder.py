"""A tiny decoder in the neutral dialect, and how a static cache is driven step by step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from lepton_passes.contract import LeptonPass
from lepton_passes.emulation import Emulation, half_of
from lepton_passes.lowering.half_precision import LowerHalfPrecision
from lepton_passes.lowering.trt.cached_attention import CACHE_LENGTH, LowerTrtCachedAttention
from lepton_passes.lowering.trt.static_cache import LowerTrtStaticCache
from tests.passes.lowering.trt.reference import executable
from tests.passes.support import LAYER, load, random

HEADS, KV, DIM, CAPACITY, WORDS = 4, 2, 32, 16, 50
WIDTH = (HEADS + 2 * KV) * DIM

_STORED = {"tensor(float)": np.float32, "tensor(int8)": np.int8}

Arrays = dict[str, np.ndarray]

_CACHES = ", ".join(f"float[b, {KV}, p, {DIM}] p{k}{i}" for i in (0, 1) for k in "kv")
_TURN = f"""q1 = RotaryEmbedding <num_heads = {HEADS}> (q, cos, sin)
    k1 = RotaryEmbedding <num_heads = {KV}> (k, cos, sin)"""


def neutral(
    window: int = -1,
    softcap: float = 0.0,
    causal: int = 1,
    turn: str = _TURN,
    layer: str = "",
    rows: int = CAPACITY,
    extra: str = "",
    sinks: bool = False,
) -> ir.Model:
    """Two layers that share a function. ``layer`` and ``extra`` are further nodes."""
    sink = ", sinks" if sinks else ""
    turned = "q1, k1" if turn else "q, k"
    text = f"""main (int64[b, s] input_ids, int64[b, t] attention_mask, int64 logits_to_keep,
        {_CACHES}) => (float[b, kept, {WORDS}] logits, ck0, cv0, ck1, cv1) {{
      at = ai.lepton.Positions (attention_mask, input_ids)
      seen = Cast <to = 9> (attention_mask)
      x = Gather (table, input_ids)
      cos = Gather (cos_table, at)
      sin = Gather (sin_table, at)
      {extra}
      [l0] h, ck0, cv0 = ai.lepton.layer.block (x, seen, cos, sin, pk0, pv0{sink})
      [l1] g, ck1, cv1 = ai.lepton.layer.block (h, seen, cos, sin, pk1, pv1{sink})
      last = ai.lepton.KeepLast (g, logits_to_keep)
      columns = Transpose <perm = [1, 0]> (table)
      logits = MatMul (last, columns)
    }}
    {LAYER}
    block (x, mask, cos, sin, past_key, past_value{sink}) => (y, present_key, present_value) {{
      sizes = Constant <value_ints = [{HEADS * DIM}, {KV * DIM}, {KV * DIM}]> ()
      q, k, v = Split <axis = -1> (x, sizes)
      {turn}
      o, present_key, present_value = ai.lepton.CachedAttention <q_num_heads = {HEADS},
        kv_num_heads = {KV}, scale = 0.3, softcap = {softcap}, causal = {causal},
        window = {window}> ({turned}, v, mask, past_key, past_value{sink})
      {layer}
      wide = Concat <axis = -1> (o, o)
      y = Add (x, wide)
    }}"""
    angles = np.outer(np.arange(rows), 0.5 ** np.arange(DIM // 2)).astype(np.float32)
    weights = {"cos_table": np.cos(angles), "sin_table": np.sin(angles)}
    weights |= {"sinks": random(HEADS, seed=3)} if sinks else {}
    model = load(text, {"table": random(WORDS, WIDTH), **weights})
    _name_caches(model)
    return model


def _name_caches(model: ir.Model) -> None:
    """The names of caches, which ONNX text cannot spell."""
    names = {"k": "key", "v": "value"}
    for value in (*model.graph.inputs, *model.graph.outputs):
        name = value.name or ""
        if len(name) == 3 and name[1] in names:
            side = "past_key_values" if name[0] == "p" else "present"
            value.name = f"{side}.{name[2]}.{names[name[1]]}"
            value.type = ir.TensorType(ir.DataType.FLOAT)
            value.shape = ir.Shape(["b", KV, "p" if name[0] == "p" else "t", DIM])


def lowered(model: ir.Model, form: str = "auto", *, half: bool = False) -> list[LeptonPass]:
    """Lower in place, in fp16 if ``half``; the two passes that did it."""
    if half:
        LowerHalfPrecision(ir.DataType.FLOAT16)(model)
    passes: list[LeptonPass] = [LowerTrtStaticCache(CAPACITY), LowerTrtCachedAttention(form)]
    for each in passes:
        each(model)
    return passes


class Truth:
    """The neutral graph: each row alone, from its first token."""

    def __init__(self, model: ir.Model) -> None:
        self._session = _session(model)

    def __call__(self, tokens: Sequence[int]) -> np.ndarray:
        """Logits behind the last token."""
        feeds = {
            "input_ids": np.array([tokens]),
            "attention_mask": np.ones((1, len(tokens)), np.int64),
            **_caches(self._session, 1, 0),
        }
        named = {i.name for i in self._session.get_inputs()}
        if "logits_to_keep" in named:
            feeds["logits_to_keep"] = np.array(1)
        return np.asarray(self._session.run(["logits"], feeds)[0])[0, -1]


class Driven:
    """The lowered graph with its caches, driven as a loader would; halves rounded, in fp32."""

    def __init__(self, model: ir.Model, rows: int, capacity: int = CAPACITY) -> None:
        wide = model if half_of(model) is None else Emulation()(model)
        self._session = _session(executable(wide))
        self._caches = _caches(self._session, rows, capacity)
        self._lengths = np.zeros(rows, np.int32)

    def prefill(self, row: int, tokens: Sequence[int]) -> np.ndarray:
        """Append ``tokens`` to one row; logits behind the last."""
        return self._step(np.array([tokens]), slice(row, row + 1))[0]

    def decode(self, tokens: Sequence[int]) -> np.ndarray:
        """Append a token to each row; logits (rows, words)."""
        return self._step(np.array(tokens)[:, None], slice(None))

    def _step(self, ids: np.ndarray, rows: slice) -> np.ndarray:
        feeds = {"input_ids": ids, "past_lengths": self._lengths[rows]}
        feeds |= {name: array[rows] for name, array in self._caches.items()}
        if any(i.name == CACHE_LENGTH for i in self._session.get_inputs()):
            longest = self._lengths[rows].max() + ids.shape[1]
            feeds[CACHE_LENGTH] = np.array([longest], dtype=np.int64)
        names = [o.name for o in self._session.get_outputs()]
        found = dict(zip(names, self._session.run(names, feeds), strict=True))
        for name, array in self._caches.items():
            array[rows] = found[name.replace("past_key_values", "present")]
        self._lengths[rows] += ids.shape[1]
        assert found["logits"].shape[:2] == (len(ids), 1)
        return np.asarray(found["logits"])[:, 0]


def follow(
    truth: Truth, driven: Driven, prompts: Sequence[Sequence[int]], steps: int, words: int = WORDS
) -> float:
    """Prefill each prompt in two pieces, decode ``steps`` tokens; the worst error by the range."""
    draw = np.random.default_rng(0)
    rows = [list(prompt) for prompt in prompts]
    worst = 0.0
    for index, row in enumerate(rows):
        middle = len(row) // 2
        for piece in (row[:middle], row[middle:]):
            logits = driven.prefill(index, piece)
        worst = max(worst, _error(logits, truth(row)))
    for _ in range(steps):
        tokens = draw.integers(3, words, len(rows))
        found = driven.decode(tokens)
        for row, token, logits in zip(rows, tokens, found, strict=True):
            row.append(int(token))
            worst = max(worst, _error(logits, truth(row)))
    return worst


def _error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.ptp(expected))


def _session(model: ir.Model):  # type: ignore[no-untyped-def]  # onnxruntime has no types
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = ir.to_proto(model).SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _caches(session, rows: int, length: int) -> Arrays:  # type: ignore[no-untyped-def]
    return {
        i.name: np.zeros((rows, i.shape[1], length, i.shape[3]), _STORED[i.type])
        for i in session.get_inputs()
        if i.name.startswith("past_key_values.")
    }
