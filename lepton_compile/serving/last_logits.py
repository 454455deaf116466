"""A decoder's graph that gives the logits of the last position only.

The engine takes ``logits_to_keep``, an optional input whose default 0 means every position. A
server that does not feed it computes, and copies, the logits of a whole prompt to read one row of
them. This variant has 1 in its place and says so in its output's shape; the weights stay in the
file they are in.
"""

from __future__ import annotations

from pathlib import Path

from lepton_compile.errors import ArtifactError

__all__ = ["LOGITS", "LOGITS_TO_KEEP", "last_logits"]

LOGITS_TO_KEEP = "logits_to_keep"
LOGITS = "logits"


def last_logits(model_file: Path) -> bytes:
    """The changed graph; weights outside the file are neither read nor copied.

    Raises:
        ArtifactError: the graph has no such input, or its default is not a constant in the file.
    """
    import numpy as np
    import onnx

    model = onnx.load(model_file, load_external_data=False)
    defaults = [t for t in model.graph.initializer if t.name == LOGITS_TO_KEEP]
    inputs = [v for v in model.graph.input if v.name == LOGITS_TO_KEEP]
    outputs = [v for v in model.graph.output if v.name == LOGITS]
    if not (defaults and inputs and outputs):
        raise ArtifactError(
            "this graph cannot be told to give the last logits only",
            where=str(model_file),
            hint=f"it has no optional input {LOGITS_TO_KEEP}; export it as it is",
        )
    defaults[0].CopyFrom(onnx.numpy_helper.from_array(np.array(1, np.int64), LOGITS_TO_KEEP))
    model.graph.input.remove(inputs[0])
    kept = outputs[0].type.tensor_type.shape.dim[1]
    kept.Clear()
    kept.dim_value = 1
    return bytes(model.SerializeToString(deterministic=True))
