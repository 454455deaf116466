"""Whether onnxruntime reads a graph at all: every node, its types, and those of what it gives.

The check after each pass runs a graph of half precision as its emulation in fp32, and not at all
where nothing is known of its inputs; nothing else opens what was built for a GPU that is not here.
"""

from __future__ import annotations

from pathlib import Path

from lepton_compile.errors import EngineError

__all__ = ["check_readable"]

# An op that is newer than the onnxruntime at hand, which is not the one that runs the engine.
_UNKNOWN = "is not a registered function/op"


def check_readable(model: Path, library: Path | None = None) -> None:
    """Have onnxruntime read a graph and infer its types; no weight is read, no kernel looked for.

    Without onnxruntime nothing is asked.

    Args:
        library: kernels of our own that the graph calls.

    Raises:
        EngineError: it is no valid graph.
    """
    try:
        from onnxruntime import SessionOptions
        from onnxruntime.capi._pybind_state import InferenceSession
    except ImportError:
        return
    options = SessionOptions()
    options.log_severity_level = 4
    if library is not None:
        options.register_custom_ops_library(str(library))
    try:
        InferenceSession(options, str(model), True, False)  # reads; providers would come next
    except Exception as error:  # onnxruntime raises its own types, all of them RuntimeErrors
        if _UNKNOWN in str(error):
            return
        raise EngineError(
            "onnxruntime does not read the graph that was made",
            where=model.name,
            found=str(error).partition("failed:")[2] or str(error),
            hint="leave the target out, and report the model",
        ) from error
