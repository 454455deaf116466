"""OpenVINO: fp32, int8 weights alone, or int8 weights and activations (NNCF, calibrated).

``default`` is the fp32 model at the precision OpenVINO chooses: bf16 where the CPU has it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from protocol import batches, encoder, serve


def prepare(job: dict[str, Any]) -> dict[str, Any]:
    """Convert into ``work``; ``variant`` is default, fp32, int8-weights or int8."""
    import openvino as ov
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(job["folder"], dtype=torch.float32).eval()
    ids = torch.randint(1000, 2000, (2, 16))
    example = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    converted = ov.convert_model(model, example_input=example)
    work = Path(job["work"])
    work.mkdir(parents=True, exist_ok=True)
    quantized = _quantized(converted, job)
    ov.save_model(quantized, work / "model.xml", compress_to_fp16=False)
    return {}


def _quantized(model: Any, job: dict[str, Any]) -> Any:
    import nncf
    import numpy as np

    if job["variant"] == "int8-weights":
        return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
    if job["variant"] != "int8":
        return model
    rows = batches(job)["32x128"]
    samples = [{"input_ids": row[None], "attention_mask": np.ones((1, 128), int)} for row in rows]
    return nncf.quantize(model, nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER)


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Latency of the whole encoder, one synchronous request at a time."""
    import numpy as np
    import openvino as ov

    hints = {"INFERENCE_NUM_THREADS": job["threads"], "PERFORMANCE_HINT": "LATENCY"}
    if job["variant"] == "fp32":
        hints["INFERENCE_PRECISION_HINT"] = "f32"
    compiled = ov.Core().compile_model(Path(job["work"]) / "model.xml", "CPU", hints)
    request = compiled.create_infer_request()

    def call(ids: Any) -> Any:
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        return request.infer(feeds, share_inputs=True, share_outputs=True)[0]

    return encoder(job, call)


if __name__ == "__main__":
    serve(prepare=prepare, measure=measure)
