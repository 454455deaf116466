"""All passes, in the order they run. The reason for each place stands beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lepton_passes.cleanup.drop_identity import DropIdentity
from lepton_passes.cleanup.fold_constants import FoldConstants
from lepton_passes.cleanup.merge_reshape import MergeReshape
from lepton_passes.cleanup.share_nodes import ShareNodes
from lepton_passes.cleanup.sink_transpose import SinkTranspose
from lepton_passes.cleanup.split_packed import SplitPacked
from lepton_passes.contract import LeptonPass
from lepton_passes.fusion.gelu import FuseGelu
from lepton_passes.fusion.packed_gate_up import PackedGateUp
from lepton_passes.fusion.packed_qkv import PackedQkv
from lepton_passes.lowering.ort.attention import LowerAttention
from lepton_passes.lowering.ort.bias_gelu import LowerBiasGelu
from lepton_passes.lowering.ort.cached_attention import LowerCachedAttention
from lepton_passes.lowering.ort.embedding import LowerEmbedding
from lepton_passes.lowering.ort.legal_ort_cpu import LegalOrtCpu
from lepton_passes.lowering.ort.linear import LowerLinear
from lepton_passes.lowering.ort.silu import LowerSilu
from lepton_passes.lowering.ort.skip_norm import LowerSkipNorm
from lepton_passes.quant._weights import Choose
from lepton_passes.quant.weight_int4 import WeightInt4
from lepton_passes.quant.weight_int8 import WeightInt8

__all__ = ["CATALOG", "Entry", "Settings", "names"]


@dataclass(frozen=True)
class Settings:
    """What a plan tells the passes that it makes.

    Attributes:
        choose: format of each weight; ``None`` quantizes nothing.
        accuracy_level: of MatMulNBits.
    """

    choose: Choose | None = None
    accuracy_level: int = 4


@dataclass(frozen=True)
class Entry:
    """One pass of the catalog.

    Attributes:
        make: the class.
        targets: targets it is for; empty for all.
        configured: makes an instance from settings, ``None`` where it does not apply to them.
    """

    make: type[LeptonPass]
    targets: tuple[str, ...] = ()
    configured: Callable[[Settings], LeptonPass | None] | None = None

    @property
    def name(self) -> str:
        """Name in recipes."""
        return self.make.name

    @property
    def stage(self) -> str:
        """Folder of the pass: cleanup, quant, fusion or lowering."""
        return self.make.__module__.split(".")[1]

    def instance(self, settings: Settings) -> LeptonPass | None:
        """A pass for these settings."""
        return self.make() if self.configured is None else self.configured(settings)


def _int8(settings: Settings) -> LeptonPass | None:
    return WeightInt8(settings.choose) if settings.choose is not None else None


def _int4(settings: Settings) -> LeptonPass | None:
    return WeightInt4(settings.choose) if settings.choose is not None else None


def _linear(settings: Settings) -> LeptonPass:
    return LowerLinear(accuracy_level=settings.accuracy_level)


_ORT = ("ort-cpu",)

CATALOG: tuple[Entry, ...] = (
    Entry(DropIdentity),
    # Shapes of Reshape and Slice must be constants for the patterns below.
    Entry(FoldConstants),
    # One Cast of the mask, so that lowering computes the lengths of rows once.
    Entry(ShareNodes),
    # Before the transposes move: pieces of a packed projection become pieces of the last axis.
    Entry(SplitPacked),
    Entry(SinkTranspose),
    # After the transposes are gone their reshapes stand side by side.
    Entry(MergeReshape),
    Entry(FuseGelu),
    # Before weights are stacked: rules name the parameters of the checkpoint.
    Entry(WeightInt8, configured=_int8),
    Entry(WeightInt4, configured=_int4),
    # Stacking needs formats that agree, so it follows quantization.
    Entry(PackedQkv),
    Entry(PackedGateUp),
    # Takes the Split of packed-qkv and the rotary embedding in.
    Entry(LowerCachedAttention, targets=_ORT),
    Entry(LowerAttention, targets=_ORT),
    Entry(LowerSilu, targets=_ORT),
    # Before lower-linear: they take the bias of fp32 layers, which it would leave as it is.
    Entry(LowerSkipNorm, targets=_ORT),
    Entry(LowerBiasGelu, targets=_ORT),
    # Late: until here everything is computed in fp32, and an error belongs to one pass.
    Entry(LowerLinear, targets=_ORT, configured=_linear),
    # After lower-linear, which chooses the kernel of a tied head by the table beside it.
    Entry(LowerEmbedding, targets=_ORT),
    Entry(LegalOrtCpu, targets=_ORT),
)


def names() -> list[str]:
    """Names of all passes, in order."""
    return [entry.name for entry in CATALOG]
