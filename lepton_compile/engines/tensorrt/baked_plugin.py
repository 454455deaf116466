"""The attention plugin inside the plan: TensorRT 11 takes compiled kernels in, and keeps them.

Such a plan needs neither Python nor a file beside it. A plugin of this kind is one kernel, so that
a node becomes two, and the two are the same in all profiles of a plan: those for prompts, which are
right for any number of tokens. A step of one token a row then has one block for each key head and
row, where the plugin beside the plan cuts the keys in parts: it is slower where contexts are long,
and rows and key heads few. Two plans, one for each phase, would hold the weights twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from lepton_compile.engines.gpu import gpus
from lepton_compile.engines.tensorrt.plugin_files import architectures_for, refusals_told
from lepton_compile.errors import EngineError
from lepton_compile.progress import Step
from lepton_plugins.attention.nodes import variants_in
from lepton_plugins.attention.qdp_nodes import expand

__all__ = ["bake_plugin"]

KERNELS = ("append", "prefill")


def bake_plugin(
    model: ir.Model, capabilities: Sequence[str], step: Step | None = None
) -> int | None:
    """Write the plugin's nodes of a flat graph as steps, and compile their kernels.

    The process that builds the plan compiles them again, out of the cache that is filled here: what
    it is told in a callback of the library would be lost there.

    Returns:
        The architecture that the kernels are for, such as 90; None where no node is the plugin's.

    Raises:
        EngineError: there is no kernel for a node or for the GPU, or more GPUs than one are named.
    """
    from lepton_plugins.attention.compiled import compile_kernel

    with refusals_told():
        variants = variants_in(model)
        if not variants:
            return None
        (architecture,) = architectures_for(_one(capabilities), strict=True)
        for at, variant in enumerate(variants):
            for number, kernel in enumerate(KERNELS):
                if step is not None:
                    done, total = at * len(KERNELS) + number, len(variants) * len(KERNELS)
                    step("kernels for the plan", done, total)
                compile_kernel(kernel, variant, architecture)
        expand(model, "prefill", target=architecture, batch=1)
    return architecture


def _one(capabilities: Sequence[str]) -> list[str]:
    """The compute capability that the plan is for."""
    wanted = list(capabilities) or [gpu.compute_capability for gpu in gpus()[:1]]
    if len(wanted) != 1:
        raise EngineError(
            "a plan with the plugin inside is for one compute capability",
            where="compute_capabilities" if wanted else "target",
            found=", ".join(wanted) or "no GPU",
            hint="plugin: v3 has kernels for several, beside the plan",
        )
    return wanted
