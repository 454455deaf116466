"""GGUF: blocks of quantized rows, dequantized as they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir

from lepton_compile.errors import CheckpointError
from lepton_compile.export.checkpoint.base import Location, TensorInfo, read_bytes
from lepton_compile.export.checkpoint.gguf_header import GGUFHeader, GGUFTensor
from lepton_compile.export.checkpoint.gguf_layout import ARCHITECTURES, hugging_face_names
from lepton_passes.tensors import StreamedTensor

__all__ = ["GGUFCheckpoint"]

Read = Callable[[int, int], np.ndarray]

# Types that are read as they stand; everything else is dequantized to float32.
PLAIN = {
    0: ir.DataType.FLOAT,
    1: ir.DataType.FLOAT16,
    24: ir.DataType.INT8,
    25: ir.DataType.INT16,
    26: ir.DataType.INT32,
    27: ir.DataType.INT64,
    28: ir.DataType.DOUBLE,
    30: ir.DataType.BFLOAT16,
}
CACHE_BYTES = 32 << 20


class GGUFCheckpoint:
    """The weights of a GGUF file under their Hugging Face names.

    Quantized tensors read as float32. The last block read is kept, because a quantizer asks for the
    same rows twice: once for the scales, once for the values.

    Args:
        header: of the ``.gguf`` file.

    Raises:
        CheckpointError: an unknown architecture, or one part of several.
    """

    def __init__(self, header: GGUFHeader) -> None:
        path = header.path
        parts = header.metadata.get("split.count", 0)
        if not isinstance(parts, int) or parts > 1:
            raise CheckpointError(
                "This GGUF file is one part of several.",
                where=str(path),
                found=f"split.count {parts}",
                hint="Join them with `llama-gguf-split --merge`.",
            )
        self._path = path
        self._stored = _stored(header)
        self._infos = {name: _info(path, header, t) for name, t in self._stored.items()}
        self._heads = (int(_first(header.key("attention.head_count", 0))), _kv_heads(header))
        self._architecture = header.architecture
        self._last: tuple[str, int, int, np.ndarray] | None = None

    def names(self) -> Mapping[str, TensorInfo]:
        return self._infos

    def files(self) -> tuple[Path, ...]:
        return (self._path,)

    def tensor(self, name: str) -> StreamedTensor:
        stored = self._stored.get(name)
        if stored is None:
            raise CheckpointError("The checkpoint has no such tensor.", found=name)
        info = self._infos[name]
        read = self._transformed(stored, _reader(self._path, stored))
        if stored.type not in PLAIN:
            read = self._cached(name, read)
        return StreamedTensor(name, info.dtype, info.shape, read)

    def _transformed(self, stored: GGUFTensor, read: Read) -> Read:
        """Undo what the converter did to the values."""
        layout = ARCHITECTURES[self._architecture]
        kind = stored.name.split(".")[-2]
        if layout.norm_offset and kind.endswith("norm"):
            return lambda start, stop: read(start, stop) - read(0, 1).dtype.type(1)
        if kind in layout.permuted:
            heads = self._heads[0] if kind == "attn_q" else self._heads[1]
            return _unpermuted(read, stored, heads)
        return read

    def _cached(self, name: str, read: Read) -> Read:
        def cached(start: int, stop: int) -> np.ndarray:
            last = self._last  # one snapshot, so that another thread cannot change it between
            if last is not None and last[0] == name and last[1] <= start and stop <= last[2]:
                return last[3][start - last[1] : stop - last[1]]
            rows = read(start, stop)
            rows.flags.writeable = False
            self._last = (name, start, stop, rows) if rows.nbytes <= CACHE_BYTES else None
            return rows

        return cached


def _stored(header: GGUFHeader) -> dict[str, GGUFTensor]:
    names = hugging_face_names(header.architecture, header.tensors, header.path)
    return {name: header.tensors[stored] for name, stored in names.items()}


def _info(path: Path, header: GGUFHeader, tensor: GGUFTensor) -> TensorInfo:
    dtype = PLAIN.get(tensor.type)
    if dtype is None:
        _check_dequantizes(path, tensor)
        return TensorInfo(ir.DataType.FLOAT, tensor.shape)
    layout = ARCHITECTURES[header.architecture]
    kind = tensor.name.split(".")[-2]
    if kind in layout.permuted or (layout.norm_offset and kind.endswith("norm")):
        return TensorInfo(dtype, tensor.shape)
    return TensorInfo(dtype, tensor.shape, Location(path, tensor.offset, tensor.length))


def _check_dequantizes(path: Path, tensor: GGUFTensor) -> None:
    from gguf import GGMLQuantizationType, dequantize

    kind = GGMLQuantizationType(tensor.type)
    row = np.zeros((1, _row_bytes(tensor)), np.uint8)
    try:
        with np.errstate(all="ignore"):
            dequantize(row[:, : _block_bytes(tensor)], kind)
    except NotImplementedError as error:
        raise CheckpointError(
            "This GGUF tensor type cannot be read.",
            where=f"{path}: {tensor.name}",
            found=kind.name,
            hint="Convert the model again with a common type such as Q4_K or Q8_0.",
        ) from error


def _block_bytes(tensor: GGUFTensor) -> int:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    return int(GGML_QUANT_SIZES[GGMLQuantizationType(tensor.type)][1])


def _row_bytes(tensor: GGUFTensor) -> int:
    return tensor.length // tensor.shape[0] if len(tensor.shape) > 1 else tensor.length


def _reader(path: Path, tensor: GGUFTensor) -> Read:
    """Rows of the tensor as stored, dequantized."""
    if tensor.type in PLAIN:
        dtype = PLAIN[tensor.type].numpy()
        width = tensor.length // tensor.shape[0]

        def plain(start: int, stop: int) -> np.ndarray:
            data = read_bytes(path, tensor.offset + start * width, (stop - start) * width)
            return data.view(dtype).reshape(stop - start, *tensor.shape[1:])

        return plain

    from gguf import GGMLQuantizationType, dequantize

    kind = GGMLQuantizationType(tensor.type)
    if len(tensor.shape) == 1:  # blocks run across the rows, so there is no smaller unit to read

        def vector(start: int, stop: int) -> np.ndarray:
            data = read_bytes(path, tensor.offset, tensor.length)
            return np.asarray(dequantize(data[None], kind)[0][start:stop])

        return vector
    row_bytes = _row_bytes(tensor)

    def blocks(start: int, stop: int) -> np.ndarray:
        data = read_bytes(path, tensor.offset + start * row_bytes, (stop - start) * row_bytes)
        rows = dequantize(data.reshape(stop - start, row_bytes), kind)
        return np.asarray(rows).reshape((stop - start, *tensor.shape[1:]))

    return blocks


def _unpermuted(read: Read, tensor: GGUFTensor, heads: int) -> Read:
    """Rows in Hugging Face's order: first halves of all pairs of a head, then second halves."""
    count = tensor.shape[0]
    if heads < 1 or count % (2 * heads):
        raise CheckpointError(
            "The heads of the GGUF metadata do not fit the tensor.",
            found=f"{tensor.name}: {count} rows, {heads} heads",
        )
    size = count // heads

    def unpermuted(start: int, stop: int) -> np.ndarray:
        index = np.arange(start, stop)
        head, inside = index // size, index % size
        half, pair = inside // (size // 2), inside % (size // 2)
        stored = head * size + 2 * pair + half
        low = int(stored.min(initial=start))
        rows = read(low, int(stored.max(initial=low)) + 1)
        return np.take(rows, stored - low, axis=0)

    return unpermuted


def _kv_heads(header: GGUFHeader) -> int:
    default = header.key("attention.head_count", 0)
    return int(_first(header.key("attention.head_count_kv", default)))


def _first(value: object) -> int:
    """A number that some files give once for each layer."""
    return int(np.asarray(value).reshape(-1)[0])
