"""All passes, in the order they run. The reason for each place stands beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

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
from lepton_passes.lowering.half_precision import LowerHalfPrecision
from lepton_passes.lowering.last_layer import LowerLastLayer
from lepton_passes.lowering.ort.attention import LowerAttention
from lepton_passes.lowering.ort.bias_gelu import LowerBiasGelu
from lepton_passes.lowering.ort.biased_attention import LowerBiasedAttention
from lepton_passes.lowering.ort.biased_cached_attention import LowerBiasedCachedAttention
from lepton_passes.lowering.ort.byte_cache import LowerByteCache
from lepton_passes.lowering.ort.cached_attention import LowerCachedAttention
from lepton_passes.lowering.ort.causal_conv import LowerCausalConv
from lepton_passes.lowering.ort.cpu_opset import LowerCpuOpset
from lepton_passes.lowering.ort.cuda_head_norm import LowerCudaHeadNorm
from lepton_passes.lowering.ort.cuda_types import LowerCudaTypes
from lepton_passes.lowering.ort.embedding import LowerEmbedding
from lepton_passes.lowering.ort.experts import LowerExperts
from lepton_passes.lowering.ort.grouped_attention import LowerGroupedAttention
from lepton_passes.lowering.ort.half_cache import LowerHalfCache
from lepton_passes.lowering.ort.legal_ort_cpu import LegalOrtCpu
from lepton_passes.lowering.ort.legal_ort_cuda import LegalOrtCuda
from lepton_passes.lowering.ort.linear import LowerLinear, blocked_kernel, default_kernel
from lepton_passes.lowering.ort.linear_attention import LowerLinearAttention
from lepton_passes.lowering.ort.marked_attention import LowerMarkedAttention
from lepton_passes.lowering.ort.mask_column import LONG, LowerMaskColumn
from lepton_passes.lowering.ort.native_attention import LowerNativeAttention
from lepton_passes.lowering.ort.native_causal_conv import LowerNativeCausalConv
from lepton_passes.lowering.ort.native_experts import LowerNativeExperts
from lepton_passes.lowering.ort.native_head_norm import LowerNativeHeadNorm
from lepton_passes.lowering.ort.native_linear import LowerNativeLinear
from lepton_passes.lowering.ort.native_linear_attention import LowerNativeLinearAttention
from lepton_passes.lowering.ort.native_norm import LowerNativeNorm
from lepton_passes.lowering.ort.normed_sum import LowerNormedSum
from lepton_passes.lowering.ort.opset import LowerOpset
from lepton_passes.lowering.ort.rounded_attention import LowerRoundedAttention
from lepton_passes.lowering.ort.shared_attention import LowerSharedAttention
from lepton_passes.lowering.ort.silu import LowerSilu
from lepton_passes.lowering.ort.skip_norm import LowerSkipNorm
from lepton_passes.lowering.residual_scale import LowerResidualScale
from lepton_passes.lowering.trt.attention import LowerTrtAttention
from lepton_passes.lowering.trt.cached_attention import LowerTrtCachedAttention
from lepton_passes.lowering.trt.legal_trt import LegalTrt
from lepton_passes.lowering.trt.rotary_tables import LowerTrtRotaryTables
from lepton_passes.lowering.trt.static_cache import LowerTrtStaticCache
from lepton_passes.quant.activation_fp8 import ActivationFp8
from lepton_passes.quant.activation_int8 import ActivationInt8
from lepton_passes.quant.calibrate import Calibrate
from lepton_passes.quant.quantize_cache import QuantizeCache
from lepton_passes.quant.scale_inputs import ScaleInputs
from lepton_passes.quant.scaled import ScaledEnergies
from lepton_passes.quant.smooth_inputs import SmoothInputs
from lepton_passes.quant.weight_fp8 import WeightFp8
from lepton_passes.quant.weight_int4 import WeightInt4
from lepton_passes.quant.weight_int4_gptq import WeightInt4Gptq
from lepton_passes.quant.weight_int4_weighted import WeightInt4Weighted
from lepton_passes.quant.weight_int8 import WeightInt8
from lepton_passes.quant.weight_stored import WeightStored
from lepton_passes.settings import Settings

__all__ = ["CATALOG", "Entry", "names"]


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


def _last_layer(settings: Settings) -> LeptonPass | None:
    return None if settings.alike else LowerLastLayer()


def _calibrate(settings: Settings) -> LeptonPass | None:
    return Calibrate(settings.calibration) if settings.calibration is not None else None


def _cache(settings: Settings) -> LeptonPass | None:
    if settings.cache is None:
        return None
    if settings.cache_measure is None:
        return QuantizeCache(settings.cache)
    return QuantizeCache(settings.cache, settings.cache_measure)


def _smooth(settings: Settings) -> LeptonPass | None:
    if settings.calibration is None or settings.eight != ir.DataType.INT8:
        return None
    return SmoothInputs(settings.calibration, settings.choose)


def _int8(settings: Settings) -> LeptonPass | None:
    if settings.choose is None or settings.eight != ir.DataType.INT8:
        return None
    longest = settings.longest_block
    return WeightInt8(
        settings.choose,
        longest=longest,
        blocked=not settings.dynamic,
        # Of our own kernels, else of onnxruntime's; TensorRT takes any.
        multiple=(8 if settings.own_forms else 16) if longest else 1,
    )


def _stored(settings: Settings) -> LeptonPass | None:
    if settings.choose is None:
        return None
    return WeightStored(settings.choose, settings.lacking, own_forms=settings.own_forms)


def _fp8(settings: Settings) -> LeptonPass | None:
    if settings.choose is None or settings.eight != ir.DataType.FLOAT8E4M3FN:
        return None
    return WeightFp8(settings.choose)


def _int4(settings: Settings) -> LeptonPass | None:
    return WeightInt4(settings.choose) if settings.choose is not None else None


def _gptq(settings: Settings) -> LeptonPass | None:
    if settings.choose is None or settings.hessians is None:
        return None
    return WeightInt4Gptq(settings.choose, settings.hessians)


def _weighted(settings: Settings) -> LeptonPass | None:
    if settings.choose is None or settings.energies is None:
        return None
    return WeightInt4Weighted(settings.choose, settings.energies)


def _scale(settings: Settings) -> LeptonPass | None:
    if settings.choose is None or not isinstance(settings.energies, ScaledEnergies):
        return None
    return ScaleInputs(settings.choose, settings.energies)


def _activation(
    make: type[ActivationInt8 | ActivationFp8],
) -> Callable[[Settings], LeptonPass | None]:
    def configured(settings: Settings) -> LeptonPass | None:
        if settings.calibration is None or settings.eight != make.dtype:
            return None
        return make(settings.calibration)

    return configured


def _residual_scale(settings: Settings) -> LeptonPass | None:
    return LowerResidualScale() if settings.half == ir.DataType.FLOAT16 else None


def _half(settings: Settings) -> LeptonPass | None:
    if settings.half is None:
        return None
    return LowerHalfPrecision(settings.half, islands=settings.islands)


def _packed_qkv(settings: Settings) -> LeptonPass | None:
    return PackedQkv() if settings.stacks else None


def _packed_gate_up(settings: Settings) -> LeptonPass | None:
    return PackedGateUp() if settings.stacks else None


def _native(make: Callable[[], LeptonPass]) -> Callable[[Settings], LeptonPass | None]:
    return lambda settings: make() if settings.native else None


def _native_linear(settings: Settings) -> LeptonPass | None:
    return LowerNativeLinear(settings.choices) if settings.native else None


def _shared_attention(settings: Settings) -> LeptonPass:
    return LowerSharedAttention(ours=settings.native)


def _half_cache(settings: Settings) -> LeptonPass | None:
    quantized = settings.choose is not None and settings.cache is None
    return LowerHalfCache() if settings.native and quantized else None


def _byte_cache(settings: Settings) -> LeptonPass | None:
    return LowerByteCache() if settings.cache is not None else None


def _mask_column(settings: Settings) -> LeptonPass | None:
    long = (settings.capacity or LONG) >= LONG
    return LowerMaskColumn() if long and not settings.native else None


def _linear(settings: Settings) -> LeptonPass:
    kernel = default_kernel if settings.dynamic else blocked_kernel
    return LowerLinear(kernel, settings.accuracy_level, settings.choices)


def _rotary_tables(settings: Settings) -> LeptonPass:
    return LowerTrtRotaryTables(settings.capacity)


def _experts(settings: Settings) -> LeptonPass:
    return LowerExperts(settings.accuracy_level, raw=not settings.dynamic)


def _static_cache(settings: Settings) -> LeptonPass:
    return LowerTrtStaticCache(settings.capacity, several=len(settings.rooms) > 1)


def _trt_cached_attention(settings: Settings) -> LeptonPass:
    return LowerTrtCachedAttention(settings.attention)


_CPU, _CUDA = ("ort-cpu",), ("ort-cuda",)
_ORT = (*_CPU, *_CUDA)
_GPU = ("ort-cuda", "trt-rtx", "trt")
_TRT = ("trt-rtx", "trt")

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
    # In front of all that rounds, or scales what is rounded.
    Entry(WeightStored, configured=_stored),
    # Behind clean-up, in front of all that sees ranges: they are those of scaled inputs.
    Entry(ScaleInputs, configured=_scale),
    # Behind clean-up, in front of all that rounds: ranges are those of the fp32 model.
    Entry(Calibrate, targets=_TRT, configured=_calibrate),
    # Sees the fp32 model, too: what it rounds is seen by the passes behind.
    Entry(QuantizeCache, targets=_TRT, configured=_cache),
    # Moves what weight-int8 rounds, and renews the ranges.
    Entry(SmoothInputs, targets=_TRT, configured=_smooth),
    # Before weights are stacked: rules name the parameters of the checkpoint.
    Entry(WeightInt8, configured=_int8),
    Entry(WeightFp8, targets=_TRT, configured=_fp8),
    # Before weight-int4, which takes what they decline.
    Entry(WeightInt4Gptq, configured=_gptq),
    Entry(WeightInt4Weighted, configured=_weighted),
    Entry(WeightInt4, configured=_int4),
    # Behind the weights, whose formats they follow; layers that are stacked share an input.
    Entry(ActivationInt8, targets=_TRT, configured=_activation(ActivationInt8)),
    Entry(ActivationFp8, targets=_TRT, configured=_activation(ActivationFp8)),
    # Stacking needs formats that agree, so it follows quantization.
    Entry(PackedQkv, configured=_packed_qkv),
    Entry(PackedGateUp, configured=_packed_gate_up),
    # Behind clean-up, which shares lookups; in fp32, where a check sees what it does.
    Entry(LowerTrtRotaryTables, targets=_TRT, configured=_rotary_tables),
    # In fp32, where the check sees that it changes nothing.
    Entry(LowerResidualScale, targets=_GPU, configured=_residual_scale),
    # Behind all that reads fp32 weights; what follows lowers the types it finds.
    Entry(LowerHalfPrecision, targets=_GPU, configured=_half),
    # Takes the Split of packed-qkv and the rotary embedding in.
    Entry(LowerCachedAttention, targets=_ORT),
    Entry(LowerSharedAttention, targets=_ORT, configured=_shared_attention),
    # First where it can: the op of onnxruntime wants a bias for a window, and has no groups.
    Entry(LowerGroupedAttention, targets=_CPU, configured=_native(LowerGroupedAttention)),
    Entry(LowerAttention, targets=_ORT),
    # What those made, where our kernels do it, too.
    Entry(LowerNativeAttention, targets=_CPU, configured=_native(LowerNativeAttention)),
    # Of those of onnxruntime that are left: ours have no need of it.
    Entry(LowerMaskColumn, targets=_CPU, configured=_mask_column),
    # Attention of ONNX with a bias. First over caches: the other would take their keys as they are.
    Entry(LowerMarkedAttention, targets=_CPU, configured=_native(LowerMarkedAttention)),
    Entry(LowerBiasedCachedAttention, targets=_CPU, configured=_native(LowerBiasedCachedAttention)),
    Entry(LowerBiasedAttention, targets=_CPU, configured=_native(LowerBiasedAttention)),
    # Ours first: what they decline is left to those of onnxruntime. In front of lower-silu, whose
    # work the convolution does itself.
    Entry(LowerNativeCausalConv, targets=_CPU, configured=_native(LowerNativeCausalConv)),
    Entry(LowerNativeLinearAttention, targets=_CPU, configured=_native(LowerNativeLinearAttention)),
    Entry(LowerCausalConv, targets=_ORT),
    Entry(LowerLinearAttention, targets=_ORT),
    Entry(LowerSilu, targets=_ORT),
    # Before lower-linear: they take the bias of fp32 layers, which it would leave as it is.
    Entry(LowerSkipNorm, targets=_ORT),
    # Takes what lower-skip-norm made, and the norms it left.
    Entry(LowerNativeNorm, targets=_CPU, configured=_native(LowerNativeNorm)),
    # What those of attention and norms made.
    Entry(LowerNativeHeadNorm, targets=_CPU, configured=_native(LowerNativeHeadNorm)),
    Entry(LowerCudaHeadNorm, targets=_CUDA),
    # Behind all that makes attention ours, and in front of what rounds what layers read.
    Entry(LowerHalfCache, targets=_CPU, configured=_half_cache),
    Entry(LowerByteCache, targets=_CPU, configured=_byte_cache),
    # Between what it looks through, norms and sums, and the kernels of layers; in front of static
    # caches, whose logits are those of one position.
    Entry(LowerLastLayer, configured=_last_layer),
    # Behind what tells by norms and sums where positions are.
    Entry(LowerNormedSum, targets=_CPU, configured=_native(LowerNormedSum)),
    Entry(LowerBiasGelu, targets=_ORT),
    # Late, like what follows: they round activations. Ours first: the other has fewer kernels.
    Entry(LowerNativeExperts, targets=_CPU, configured=_native(LowerNativeExperts)),
    Entry(LowerExperts, targets=_ORT, configured=_experts),
    # Late: until here everything is computed in fp32, and an error belongs to one pass. Ours first:
    # lower-linear takes what they leave.
    Entry(LowerNativeLinear, targets=_CPU, configured=_native_linear),
    # Behind the kernels of layers and experts, whose rounding it follows.
    Entry(LowerRoundedAttention, targets=_CPU, configured=_native(LowerRoundedAttention)),
    Entry(LowerLinear, targets=_ORT, configured=_linear),
    # After lower-linear, which chooses the kernel of a tied head by the table beside it.
    Entry(LowerEmbedding, targets=_ORT),
    # Last of the changes: what the others emit may be newer.
    Entry(LowerCpuOpset, targets=_CPU),
    Entry(LegalOrtCpu, targets=_CPU),
    Entry(LowerCudaTypes, targets=_CUDA),
    # Last of the changes: what the others emit is there in opset 23 too.
    Entry(LowerOpset, targets=_CUDA),
    Entry(LegalOrtCuda, targets=_CUDA),
    # First the interface: what comes after reads lengths of rows where the mask was.
    Entry(LowerTrtStaticCache, targets=_TRT, configured=_static_cache),
    Entry(LowerTrtCachedAttention, targets=_TRT, configured=_trt_cached_attention),
    Entry(LowerTrtAttention, targets=_TRT),
    Entry(LegalTrt, targets=_TRT),
)


def names() -> list[str]:
    """Names of all passes, in order."""
    return [entry.name for entry in CATALOG]
