"""A Llama-shaped checkpoint of random bf16 weights, in shards, written without holding one whole.

The bits are random where they may be: the sign and fraction of every weight, around an exponent
that keeps it near 0.01. So 16 GB are made at the speed of the disk.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

__all__ = ["SHAPE", "SMALL", "Shape", "write_checkpoint"]

SHARD_BYTES = 4 << 30
BLOCK = 32 << 20
EXPONENT = 120 << 7  # 2 ** (120 - 127): between 0.0078 and 0.0156


@dataclass(frozen=True)
class Shape:
    """Sizes under the names of LlamaConfig."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of every tensor of the checkpoint."""
        wide, narrow = self.num_attention_heads, self.num_key_value_heads
        hidden, inner = self.hidden_size, self.intermediate_size
        yield "model.embed_tokens.weight", (self.vocab_size, hidden)
        for layer in range(self.num_hidden_layers):
            at = f"model.layers.{layer}"
            for name, heads in (("q", wide), ("k", narrow), ("v", narrow)):
                yield f"{at}.self_attn.{name}_proj.weight", (heads * self.head_dim, hidden)
            yield f"{at}.self_attn.o_proj.weight", (hidden, wide * self.head_dim)
            yield f"{at}.mlp.gate_proj.weight", (inner, hidden)
            yield f"{at}.mlp.up_proj.weight", (inner, hidden)
            yield f"{at}.mlp.down_proj.weight", (hidden, inner)
            yield f"{at}.input_layernorm.weight", (hidden,)
            yield f"{at}.post_attention_layernorm.weight", (hidden,)
        yield "model.norm.weight", (hidden,)
        yield "lm_head.weight", (self.vocab_size, hidden)


SHAPE = Shape(4096, 14336, 32, 32, 8, 128, 128256)
SMALL = Shape(256, 512, 2, 4, 2, 64, 1024)


def write_checkpoint(folder: Path, shape: Shape) -> int:
    """Write config and shards into ``folder``; returns the number of parameters."""
    folder.mkdir(parents=True, exist_ok=True)
    config = asdict(shape) | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    random, total = np.random.default_rng(0), 0
    where: dict[str, str] = {}
    shards = list(_shards(shape))
    for number, tensors in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        with (folder / name).open("wb") as file:
            total += _write_shard(file, tensors, random)
        where |= dict.fromkeys((tensor for tensor, _ in tensors), name)
    index = {"metadata": {"total_size": 2 * total}, "weight_map": where}
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps(index, indent=2), encoding="utf-8")
    return total


def _shards(shape: Shape) -> Iterator[list[tuple[str, tuple[int, ...]]]]:
    shard: list[tuple[str, tuple[int, ...]]] = []
    size = 0
    for name, dims in shape.tensors():
        if shard and size + 2 * int(np.prod(dims)) > SHARD_BYTES:
            yield shard
            shard, size = [], 0
        shard.append((name, dims))
        size += 2 * int(np.prod(dims))
    yield shard


def _write_shard(
    file: BinaryIO, tensors: list[tuple[str, tuple[int, ...]]], random: np.random.Generator
) -> int:
    """A safetensors file: eight bytes of header length, the JSON header, the data."""
    header, end = {}, 0
    for name, dims in tensors:
        begin, end = end, end + 2 * int(np.prod(dims))
        header[name] = {"dtype": "BF16", "shape": dims, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)
    for _, dims in tensors:
        left = int(np.prod(dims))
        while left:
            count = min(left, BLOCK // 2)
            bits = np.frombuffer(random.bytes(2 * count), np.uint16)
            file.write(((bits & 0x807F) | EXPONENT).astype("<u2").tobytes())
            left -= count
    return end // 2
