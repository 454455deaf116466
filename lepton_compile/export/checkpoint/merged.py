"""Tensors that a checkpoint keeps apart and a model has as one: stacks of experts, and what stands
one under the other.

They are read row by row out of the tensors that they are made of, which are not among the names
any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lepton_passes.grouped import joined
from lepton_passes.stacks import Stack
from lepton_passes.tensors import StreamedTensor

from .base import Checkpoint, TensorInfo
from .integers import widest

__all__ = ["MergedCheckpoint"]


class MergedCheckpoint:
    """A checkpoint with the matrices of experts as stacks, and tensors joined.

    Args:
        apart: the checkpoint as it is stored.
        stacks: name of a stack -> for each of its matrices the names of the tensors that, one under
            the other, are that matrix. Stacks whose matrices are not alike are left apart.
        joined: name of a tensor -> the names of those that, one under the other, are that tensor.
            Those that do not fit under each other are left apart.
    """

    def __init__(
        self,
        apart: Checkpoint,
        stacks: Mapping[str, Sequence[Sequence[str]]],
        joined: Mapping[str, Sequence[str]],
    ) -> None:
        self._apart = apart
        infos = apart.names()
        self._stacks = {n: parts for n, parts in stacks.items() if _alike(parts, infos)}
        self._joined = {n: parts for n, parts in joined.items() if _fitting(parts, infos)}
        merged = {name for parts in self._stacks.values() for part in parts for name in part}
        merged |= {name for parts in self._joined.values() for name in parts}
        self._names = {name: info for name, info in infos.items() if name not in merged}
        for name, parts in self._stacks.items():
            first = [infos[part] for part in parts[0]]
            rows = sum(info.shape[0] for info in first)
            shape = (len(parts), rows, *first[0].shape[1:])
            held = widest(infos[each].integers for part in parts for each in part)
            self._names[name] = TensorInfo(first[0].dtype, shape, integers=held)
        for name, under in self._joined.items():
            rows = sum(infos[part].shape[0] for part in under)
            top = infos[under[0]]
            held = widest(infos[part].integers for part in under)
            self._names[name] = TensorInfo(top.dtype, (rows, *top.shape[1:]), integers=held)

    def names(self) -> Mapping[str, TensorInfo]:
        """As of ``Checkpoint``."""
        return self._names

    def files(self) -> tuple[Path, ...]:
        """As of ``Checkpoint``."""
        return self._apart.files()

    def tensor(self, name: str) -> StreamedTensor:
        """As of ``Checkpoint``."""
        if name in self._joined:
            return joined(name, [self._apart.tensor(part) for part in self._joined[name]])
        if name not in self._stacks:
            return self._apart.tensor(name)
        parts = self._stacks[name]
        tensors = [self._apart.tensor(stored) for part in parts for stored in part]
        return Stack(joined(name, tensors), len(parts))


def _alike(parts: Sequence[Sequence[str]], infos: Mapping[str, TensorInfo]) -> bool:
    """Whether all matrices are made of tensors of the same shapes and types."""
    kinds = {tuple((infos[n].shape, infos[n].dtype) for n in part) for part in parts}
    if len(kinds) != 1:
        return False
    (kind,) = kinds
    two = all(len(shape) == 2 for shape, _ in kind)
    return two and len({(shape[1], dtype) for shape, dtype in kind}) == 1


def _fitting(parts: Sequence[str], infos: Mapping[str, TensorInfo]) -> bool:
    """Whether tensors are of one type and alike but for their number of rows."""
    return len({(infos[name].shape[1:], infos[name].dtype) for name in parts}) == 1
