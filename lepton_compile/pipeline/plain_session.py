"""How graphs run that are looked at during a build: as they are, once or a few times."""

from __future__ import annotations

from typing import Any

from lepton_compile.runtime.loader import cores

__all__ = ["plain_options"]


def plain_options(*, packs: bool = False) -> Any:
    """Options of a session of onnxruntime without its optimizations.

    Args:
        packs: weights are packed: kernels may compute something else with those.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level, options.intra_op_num_threads = 4, cores()
    # Memory kept for the next run, and weights packed for it beside the mapped file, cost more
    # than they save.
    options.enable_cpu_mem_arena = False
    if not packs:
        options.add_session_config_entry("session.disable_prepacking", "1")
    return options
