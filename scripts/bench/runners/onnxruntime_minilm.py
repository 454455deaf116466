"""onnxruntime on what ``transformers.exporters`` writes: fp32, fused for the CPU, or int8.

int8 is onnxruntime's own ``quantize_dynamic``, weights per channel, activations per tensor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from protocol import encoder, serve


def prepare(job: dict[str, Any]) -> dict[str, Any]:
    """Export with dynamic shapes into ``work``; ``variant`` is fp32, fused or int8."""
    import torch
    from transformers import AutoModel
    from transformers.exporters import OnnxConfig, OnnxExporter

    model = AutoModel.from_pretrained(job["folder"], dtype=torch.float32).eval()
    ids = torch.randint(1000, 2000, (2, 16))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    fusions = "cpu" if job["variant"] == "fused" else None
    config = OnnxConfig(dynamic=True, ort_fusions=fusions)
    OnnxExporter().export(model, inputs, config=config).save_pretrained(job["work"])
    if job["variant"] == "int8":
        _quantize(Path(job["work"]))
    return {}


def _quantize(work: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    (exported,) = work.glob("*.onnx")
    quantize_dynamic(exported, work / "int8.onnx", per_channel=True, weight_type=QuantType.QInt8)
    exported.unlink()


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Latency of the whole encoder."""
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    (path,) = Path(job["work"]).glob("*.onnx")
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    wanted = {value.name for value in session.get_inputs()}
    hidden = session.get_outputs()[0].name

    def call(ids: Any) -> Any:
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        return session.run([hidden], {name: feeds[name] for name in wanted})[0]

    return encoder(job, call)


if __name__ == "__main__":
    serve(prepare=prepare, measure=measure)
