"""CTranslate2: its converter for BERT encoders, fp32 or int8 weights."""

from __future__ import annotations

from typing import Any

from protocol import encoder, serve


def prepare(job: dict[str, Any]) -> dict[str, Any]:
    """Convert into ``work``; ``variant`` is float32 or int8."""
    from ctranslate2.converters import TransformersConverter

    converter = TransformersConverter(job["folder"])
    converter.convert(job["work"], quantization=job["variant"], force=True)
    return {}


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Latency of the whole encoder."""
    import ctranslate2
    import numpy as np

    model = ctranslate2.Encoder(
        job["work"], compute_type=job["variant"], inter_threads=1, intra_threads=job["threads"]
    )

    def call(ids: Any) -> Any:
        return np.array(model.forward_batch(ids.tolist()).last_hidden_state)

    return encoder(job, call)


if __name__ == "__main__":
    serve(prepare=prepare, measure=measure)
