"""lepton-compile: the encoder through the emitted loader, its pooling in the graph left on."""

from __future__ import annotations

from typing import Any

from lepton_artifact import load
from protocol import encoder, serve


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Latency of ``model.run``, checks of the loader included."""
    import numpy as np

    model = load(job)

    def call(ids: Any) -> Any:
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        return model.run(feeds)["last_hidden_state"]

    return encoder(job, call)


if __name__ == "__main__":
    serve(measure=measure)
