"""PyTorch eager, fp32, through transformers."""

from __future__ import annotations

from typing import Any

from protocol import encoder, serve


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Latency of the whole encoder."""
    import torch
    from transformers import AutoModel

    torch.set_num_threads(job["threads"])
    model = AutoModel.from_pretrained(job["folder"], dtype=torch.float32).eval()

    @torch.inference_mode()
    def call(ids: Any) -> Any:
        tensor = torch.from_numpy(ids)
        return model(tensor, attention_mask=torch.ones_like(tensor)).last_hidden_state.numpy()

    return encoder(job, call)


if __name__ == "__main__":
    serve(measure=measure)
