"""A TensorRT that computes the tiny models in numpy, on the memory of a ``HostDevice``.

``module(name, device)`` is what the loader imports as ``tensorrt`` or ``tensorrt_rtx``. A plan is
64 bytes of header and a JSON document. Contexts hold to the rules of the real ones: profiles,
aligned addresses, aliases at one address, all that they read or write in device memory.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import math
from enum import IntEnum
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np

from tests.runtime import tiny
from tests.runtime.double import FaultError, HostDevice

__all__ = ["VERSION", "decoder_plan", "encoder_plan", "module"]

VERSION = "1.7.1.116"
HEADER = 64
KINDS = {"FLOAT": np.float32, "HALF": np.float16, "BF16": np.uint16, "INT32": np.int32}
KINDS |= {"INT64": np.int64, "INT8": np.int8, "FP8": np.uint8}
SCALES = {"INT8": 0.06, "FP8": 0.03}
"""What a step of a cache in 8 bits stands for; it is in the graph of a real plan, too."""

Mode = IntEnum("Mode", "NONE INPUT OUTPUT", start=0)
Kind = IntEnum("Kind", list(KINDS), start=0)
Location = IntEnum("Location", "DEVICE HOST", start=0)
Validity = IntEnum("Validity", "VALID SUBOPTIMAL INVALID", start=0)
Strategy = IntEnum("Strategy", "DISABLED WHOLE_GRAPH_CAPTURE", start=0)


class Why(IntEnum):
    """Bits of what is wrong with a plan."""

    VERSION_MISMATCH, UNSUPPORTED_CC, MALFORMED_ENGINE = 1, 2, 32


def decoder_plan(
    *,
    cache: str = "FLOAT",
    batch: int = 8,
    prefill: int = tiny.ROOM,
    level: bool = False,
    told: bool = True,
    capture: bool = True,
    buckets: tuple[int, ...] = (),
    joint: bool = False,
) -> bytes:
    """The tiny decoder: dtype of its caches, ``level`` where all rows must be of one length,
    ``buckets`` where it has caches of several capacities, each with two profiles, or one that is
    ``joint``. ``prefill`` is the most tokens of a prompt at once."""
    return _plan(locals() | {"model": "decoder"})


def encoder_plan(output: str = "FLOAT") -> bytes:
    """The tiny encoder: dtype of its outputs."""
    return _plan({"model": "encoder", "output": output})


def _plan(document: dict[str, Any]) -> bytes:
    return f"PLAN {VERSION}".encode().ljust(HEADER) + json.dumps(document).encode()


def module(name: str, device: HostDevice | None, version: str = VERSION) -> Any:
    """The runtime as a module; ``made`` of it lists every engine, for tests to look into."""
    made: Any = ModuleType(name)
    made.__spec__, made.__version__ = ModuleSpec(name, None), version
    made.device, made.made, made.rtx = device, [], name.endswith("rtx")
    made.ILogger, made.TensorIOMode, made.DataType = Logger, Mode, Kind
    made.EngineValidity, made.EngineInvalidityDiagnostics = Validity, Why
    made.CudaGraphStrategy = Strategy
    made.Runtime = lambda log: Runtime(made, log)
    return made


class Logger:
    INTERNAL_ERROR, ERROR, WARNING = 0, 1, 2

    def log(self, severity: int, message: str) -> None:
        raise NotImplementedError


class Runtime:
    engine_header_size = HEADER

    def __init__(self, trt: Any, log: Logger) -> None:
        self.trt, self.log = trt, log

    def get_engine_validity(self, header: bytes) -> tuple[Validity, int]:
        assert len(header) == HEADER
        words = header.split()
        bits = 0
        if words[:1] != [b"PLAN"]:
            bits |= Why.MALFORMED_ENGINE
        elif words[1].decode() != self.trt.__version__:
            bits |= Why.VERSION_MISMATCH
        if self.trt.rtx and self.trt.device.capability == "9.0":
            bits |= Why.UNSUPPORTED_CC
        return (Validity.INVALID if bits else Validity.VALID), bits

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        try:
            engine = Engine(self.trt, json.loads(plan[HEADER:]), self.log)
        except ValueError:
            self.log.log(Logger.ERROR, "Error Code 1: Serialization (magic tag)")
            return None
        self.trt.made.append(engine)
        return engine


class Engine:
    """Tensors of the plan, and the contexts that were made of it."""

    def __init__(self, trt: Any, plan: dict[str, Any], log: Logger) -> None:
        self.trt, self.plan, self.log = trt, plan, log
        self.contexts: list[Context] = []
        self.caches: list[RuntimeCache] = []
        self.runs = 0
        self.fail_at: int | None = None
        decoder = plan["model"] == "decoder"
        self.tensors, self.profiles = _decoder(plan) if decoder else _encoder(plan)
        self.num_io_tensors, self.num_optimization_profiles = len(self.tensors), len(self.profiles)

    def get_tensor_name(self, number: int) -> str:
        return list(self.tensors)[number]

    def get_tensor_mode(self, name: str) -> Mode:
        return self.tensors[name][0]

    def get_tensor_dtype(self, name: str) -> Kind:
        return Kind[self.tensors[name][1]]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name][2]

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        low, high = self.profiles[profile][name]
        return [low, high, high]

    def get_aliased_input_tensor(self, name: str) -> str | None:
        return self.alias(name) if self.plan.get("told") else None

    def alias(self, name: str) -> str | None:
        """The input that an output must share its address with."""
        return name.replace("present", "past_key_values") if "present" in name else None

    def create_runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig(self)

    def create_execution_context(self, config: RuntimeConfig | None = None) -> Context:
        assert (config is not None) == self.trt.rtx
        self.contexts.append(Context(self, config))
        return self.contexts[-1]


class RuntimeCache:
    def __init__(self, engine: Engine) -> None:
        self.engine, self.taken = engine, None
        engine.caches.append(self)

    def deserialize(self, blob: bytes) -> bool:
        assert blob.startswith(b"kernels"), "damaged bytes were given to the runtime"
        self.taken = blob
        return blob.endswith(self.engine.trt.device.name.encode())

    def serialize(self) -> bytes:
        return b"kernels " * min(self.engine.runs, 1) + self.engine.trt.device.name.encode()


class RuntimeConfig:
    def __init__(self, engine: Engine) -> None:
        self.engine, self.cuda_graph_strategy = engine, Strategy.DISABLED
        self.cache: RuntimeCache | None = None

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache(self.engine)

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        self.cache = cache
        return True


class Context:
    """Shapes and addresses of one profile; computes when its stream gets there."""

    def __init__(self, engine: Engine, config: RuntimeConfig | None) -> None:
        self.engine, self.config, self.profile = engine, config, 0
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self.profile = profile
        return 0 <= profile < len(self.engine.profiles)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, high = self.engine.profiles[self.profile][name]
        fits = len(shape) == len(low) and all(
            a <= size <= b for a, size, b in zip(low, shape, high, strict=True)
        )
        if not fits:
            self.engine.log.log(Logger.ERROR, f"{name}: {shape} is outside {low} to {high}")
            return False
        self.shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        if address % 256 and name != "cache_length":
            raise FaultError(f"{name} lies at {address:#x}, which is not aligned")
        self.addresses[name] = address
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name in self.engine.profiles[0] if name not in self.shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """A free dimension is the batch, then the sequence."""
        batch, width = self.shapes["input_ids"]
        alias = self.engine.alias(name)
        given = self.shapes.get(alias or name, self.engine.get_tensor_shape(name))
        return tuple((batch, width)[at] if size < 0 else size for at, size in enumerate(given))

    def execute_async_v3(self, stream: int) -> bool:
        engine, device = self.engine, self.engine.trt.device
        if device._capture and not engine.plan.get("capture", True):
            return False
        if engine.fail_at is not None and engine.runs >= engine.fail_at:
            engine.log.log(Logger.ERROR, "an illegal memory access was encountered")
            return False
        engine.runs += 1
        for name in engine.tensors:
            alias = engine.alias(name)
            if alias and self.addresses[name] != self.addresses[alias]:
                raise FaultError(f"{name} is not where {alias} is")
        shapes = {name: self.get_tensor_shape(name) for name in engine.tensors}
        addresses, length = dict(self.addresses), 0
        if engine.plan.get("level"):
            length = ctypes.c_int64.from_address(addresses.pop("cache_length")).value
        compute = _decode if engine.plan["model"] == "decoder" else _encode

        def run() -> None:
            arrays = {n: self._array(n, a, shapes[n]) for n, a in addresses.items()}
            compute(engine.plan, arrays, length)

        for name, address in addresses.items():
            self._array(name, address, shapes[name])
        device.queue(stream, run)
        return True

    def _array(self, name: str, address: int, shape: tuple[int, ...]) -> np.ndarray:
        dtype = np.dtype(KINDS[self.engine.tensors[name][1]])
        found = self.engine.trt.device.view(address, math.prod(shape) * dtype.itemsize)
        array: np.ndarray = found.view(dtype).reshape(shape)
        return array


Tensors = dict[str, tuple[Mode, str, tuple[int, ...]]]
Profiles = list[dict[str, tuple[tuple[int, ...], tuple[int, ...]]]]


def _decoder(plan: dict[str, Any]) -> tuple[Tensors, Profiles]:
    buckets = plan["buckets"] or (tiny.ROOM,)
    open_or_not = -1 if plan["buckets"] else tiny.ROOM
    rest = (tiny.KV_HEADS, open_or_not, tiny.HEAD_DIM)
    tensors: Tensors = {
        "input_ids": (Mode.INPUT, "INT64", (-1, -1)),
        "past_lengths": (Mode.INPUT, "INT32", (-1,)),
    }
    names = [f"{number}.{kind}" for number in range(tiny.LAYERS) for kind in ("key", "value")]
    for name in names:
        tensors[f"past_key_values.{name}"] = (Mode.INPUT, plan["cache"], (-1, *rest))
    if plan["level"]:
        tensors["cache_length"] = (Mode.INPUT, "INT64", (1,))
    tensors["logits"] = (Mode.OUTPUT, "FLOAT", (-1, 1, tiny.VOCABULARY))
    for name in names:
        tensors[f"present.{name}"] = (Mode.OUTPUT, plan["cache"], (-1, *rest))
    profiles: Profiles = []
    split = ((1, plan["prefill"]), (plan["batch"], 1))
    shapes = ((plan["batch"], plan["prefill"]),) if plan["joint"] else split
    for room, most in itertools.product(buckets, shapes):
        most = (most[0], min(most[1], room))
        rest = (tiny.KV_HEADS, room, tiny.HEAD_DIM)
        whole = {"input_ids": ((1, 1), most), "past_lengths": ((1,), most[:1])}
        for name in names:
            whole[f"past_key_values.{name}"] = ((1, *rest), (most[0], *rest))
        if plan["level"]:
            whole["cache_length"] = ((1,), (1,))
        profiles.append(whole)
    return tensors, profiles


def _decode(plan: dict[str, Any], arrays: dict[str, np.ndarray], length: int) -> None:
    """The tiny decoder over its caches, written in place."""
    given, lengths = tiny.weights(), arrays["past_lengths"]
    for row, ids in enumerate(arrays["input_ids"]):
        if plan["level"] and length != lengths[row] + len(ids):
            raise FaultError(f"row {row} has {lengths[row] + len(ids)} tokens, not {length}")
        places = np.arange(lengths[row], lengths[row] + len(ids))
        hidden = given.embedding[ids]
        for number, layer in enumerate(given.layers):
            query = _turned(given, _heads(hidden @ layer["query"]), places)
            new = {"key": _turned(given, _heads(hidden @ layer["key"]), places)}
            new["value"] = _heads(hidden @ layer["value"])
            held = {}
            for kind, fresh in new.items():
                cache = arrays[f"past_key_values.{number}.{kind}"][row]
                there = places < cache.shape[1]  # what falls behind the capacity is dropped
                cache[:, places[there]] = _stored(fresh[:, there], plan["cache"])
                held[kind] = np.repeat(_read(cache, plan["cache"]), tiny.HEADS // tiny.KV_HEADS, 0)
            scores = query @ held["key"].transpose(0, 2, 1) / np.sqrt(tiny.HEAD_DIM)
            room = held["key"].shape[1]
            scores += np.where(np.arange(room) > places[:, None], -np.inf, 0)
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            mixed = weights / weights.sum(axis=-1, keepdims=True) @ held["value"]
            hidden = hidden + mixed.transpose(1, 0, 2).reshape(len(ids), -1) @ layer["output"]
        arrays["logits"][row, 0] = hidden[-1] @ given.embedding.T


def _heads(flat: np.ndarray) -> np.ndarray:
    return flat.reshape(len(flat), -1, tiny.HEAD_DIM).transpose(1, 0, 2)


def _turned(given: tiny.Weights, heads: np.ndarray, places: np.ndarray) -> np.ndarray:
    first, second = np.split(heads, 2, axis=-1)
    cos, sin = given.cos[places], given.sin[places]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def _stored(values: np.ndarray, kind: str) -> np.ndarray:
    if kind == "INT8":
        return np.clip(np.rint(values / SCALES[kind]), -127, 127).astype(np.int8)
    if kind == "FP8":
        steps = np.clip(values / SCALES[kind], -448, 448)
        return steps.astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
    if kind != "BF16":
        return values.astype(KINDS[kind])
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x8000) >> 16).astype(np.uint16)


def _read(cache: np.ndarray, kind: str) -> np.ndarray:
    if kind == "FP8":
        cache = cache.view(ml_dtypes.float8_e4m3fn)
    if kind in SCALES:
        return cache.astype(np.float32) * np.float32(SCALES[kind])
    if kind != "BF16":
        return cache.astype(np.float32)
    return (cache.astype(np.uint32) << 16).view(np.float32)


def _encoder(plan: dict[str, Any]) -> tuple[Tensors, Profiles]:
    names = ("input_ids", "attention_mask", "token_type_ids")
    tensors: Tensors = dict.fromkeys(names, (Mode.INPUT, "INT64", (-1, -1)))
    tensors["last_hidden_state"] = (Mode.OUTPUT, plan["output"], (-1, -1, tiny.HIDDEN))
    tensors["sentence_embedding"] = (Mode.OUTPUT, plan["output"], (-1, tiny.HIDDEN))
    return tensors, [dict.fromkeys(names, ((1, 1), (64, 16)))]


def _encode(plan: dict[str, Any], arrays: dict[str, np.ndarray], _: int) -> None:
    """The tiny encoder."""
    random = np.random.default_rng(7)
    words = random.standard_normal((tiny.VOCABULARY, tiny.HIDDEN)).astype(np.float32)
    kinds = random.standard_normal((2, tiny.HIDDEN)).astype(np.float32)
    hidden = words[arrays["input_ids"]] + kinds[arrays["token_type_ids"]]
    mask = arrays["attention_mask"][..., None].astype(np.float32)
    arrays["last_hidden_state"][:] = _stored(hidden, plan["output"])
    mean = (hidden * mask).sum(axis=1) / mask.sum(axis=1)
    arrays["sentence_embedding"][:] = _stored(mean, plan["output"])
