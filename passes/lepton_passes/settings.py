"""What a plan tells the passes that it makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from lepton_passes.lowering.ort.choices import Choices
from lepton_passes.match import BLOCK
from lepton_passes.quant.calibration import Calibration
from lepton_passes.quant.quantize_cache import CacheMeasure
from lepton_passes.quant.weights import Choose

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """What a plan tells the passes that it makes.

    Attributes:
        choose: format of each weight; ``None`` quantizes nothing.
        eight: what 8 bits are: INT8 or FLOAT8E4M3FN.
        longest_block: of the int8 scales of a decoder; 0 where there are no kernels for blocks.
        calibration: of what 8-bit layers read, which is then rounded to 8 bits too; ``None`` leaves
            it as it is.
        hessians: of the inputs of linear layers, for weights of 4 bits that are fitted to a sample;
            ``None`` rounds them to nearest.
        energies: mean squares of the same inputs by column, for weights of 4 bits whose scales mind
            them; ``None`` minds nothing. Where they are scaled, inputs are, too.
        accuracy_level: of MatMulNBits.
        dynamic: there is a kernel that rounds activations as they come.
        half: FLOAT16 or BFLOAT16, what the target computes in; ``None`` is fp32.
        islands: norms, Softmax and rotary embeddings stay in fp32 beside ``half``.
        attention: form of cached attention in TensorRT engines, as ``attention`` of a recipe.
        capacity: tokens of the longest sequence, or a static cache; ``None`` where nobody knows.
        rooms: capacities between which a static cache may choose, several or none.
        stacks: projections of one input become one matrix.
        native: the target has our own kernels beside those of its runtime.
        choices: which of them linear layers get, where that was measured.
        cache: INT8 or FLOAT8E4M3FN, what a cache of keys and values holds; ``None`` is what is
            computed in.
        cache_measure: ranges of what goes into caches; ``None`` runs nothing.
        lacking: whose weights have no zero points; empty where those of the target may.
        own_forms: weights may have offsets, or be floats of 4 bits, as our own kernels have them.
        alike: every layer keeps its sizes, so that all share their kernels: a plan with one profile
            is asked for to be small.
    """

    choose: Choose | None = None
    eight: ir.DataType = ir.DataType.INT8
    longest_block: int = BLOCK
    calibration: Calibration | None = None
    hessians: Mapping[str, np.ndarray] | None = None
    energies: Mapping[str, np.ndarray] | None = None
    accuracy_level: int = 4
    dynamic: bool = True
    half: ir.DataType | None = None
    islands: bool = True
    attention: str = "auto"
    capacity: int | None = None
    rooms: tuple[int, ...] = ()
    stacks: bool = True
    native: bool = False
    choices: Choices | None = None
    cache: ir.DataType | None = None
    cache_measure: CacheMeasure | None = None
    lacking: str = ""
    own_forms: bool = False
    alike: bool = False
