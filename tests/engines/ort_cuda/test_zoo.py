"""Every kind of model on a GPU: the engine, whole and step by step, equals PyTorch in fp32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

import lepton_compile as lc
from lepton_compile.engines.probe import probe
from lepton_compile.runtime import Model
from tests.engines.ort_cuda.models import DECODERS, ENCODERS, IMAGES, PAIRS, REFUSED, Config
from tests.export import zoo_images
from tests.export.harness import padded, relative_error, save

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not probe("ort-cuda").runs, reason=probe("ort-cuda").reason or "runs"),
]

# Of the range of what comes out: rounding over three layers of large random weights.
CLOSE = {"fp16": 0.02, "bf16": 0.1}
# What the CPU's rounding of activations to 8 bits makes besides.
ROUNDED = 0.1
ROWS = [[5, 17, 3, 42, 8, 61, 11], [9, 2, 33]]


def _opened(folder: Path, config: Config, task: str, **options: Any) -> tuple[Model, Any]:
    """The engine on the GPU."""
    reference = save(config, task, folder / "model")
    recipe = {"target": "ort-cuda", "compute": "fp16", "output": folder / "out", **options}
    made = lc.build(model=str(folder / "model"), task=task, verify=False, check=False, **recipe)
    return lc.load(made.path, target="ort-cuda"), reference


@pytest.mark.parametrize(
    ("name", "compute"),
    [
        *((name, "fp16") for name in DECODERS if ("text-generation", name) not in REFUSED),
        *((name, "bf16") for name in ("llama", "mixtral", "lfm2", "mamba2", "jamba", "olmoe")),
    ],
)
def test_decoders(name: str, compute: str, tmp_path: Path) -> None:
    opened, reference = _opened(tmp_path, DECODERS[name], "text-generation", compute=compute)
    with opened as model, torch.no_grad():
        expected = reference(torch.tensor(ROWS[:1])).logits.numpy()
        errors = [relative_error(model.logits(ROWS[0]), expected)]
        cache, rows = model.new_cache(2, 64), [list(row) for row in ROWS]
        found = cache.start(ROWS)
        for token in range(3, 11):
            for row, scores in zip(rows, found, strict=True):
                expected = reference(torch.tensor([row])).logits[0, -1].numpy()
                errors.append(relative_error(scores, expected))
                row.append(token)
            found = cache.step([token] * 2, [True] * 2)
        again = cache.start(ROWS[:1])[0]
        expected = reference(torch.tensor(ROWS[:1])).logits[0, -1].numpy()
        errors.append(relative_error(again, expected))
        captured = getattr(model.session, "captures", False)
        print(f"{name}: whole {errors[0]:.4f}, steps {max(errors):.4f}, captured {captured}")
        assert max(errors) < CLOSE[compute], errors


@pytest.mark.parametrize("name", list(ENCODERS))
def test_encoders(name: str, tmp_path: Path) -> None:
    opened, reference = _opened(tmp_path, ENCODERS[name], "feature-extraction")
    ids, mask = padded(2, 9, "right")
    with opened as model, torch.no_grad():
        found = model.run({"input_ids": ids, "attention_mask": mask})["last_hidden_state"]
        given = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        expected = reference(**given).last_hidden_state.numpy()
    error = relative_error(found[mask == 1], expected[mask == 1])
    print(f"{name}: {error:.4f}")
    assert error < CLOSE["fp16"]


@pytest.mark.parametrize("name", list(PAIRS))
def test_pairs(name: str, tmp_path: Path) -> None:
    opened, _ = _opened(tmp_path, PAIRS[name], "text2text-generation")
    reference = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model").eval()
    (ids, mask), own = padded(2, 9, "right"), np.random.default_rng(1).integers(3, 98, (2, 8))
    with opened as model, torch.no_grad():
        given = {"encoder_input_ids": ids, "encoder_attention_mask": mask, "input_ids": own}
        found = model.run(given, ["logits"])["logits"]
        tensors = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": own}
        expected = reference(**{name: torch.from_numpy(v) for name, v in tensors.items()}).logits
        error = relative_error(found, expected.numpy())
        answers = model.generate(ROWS, max_new_tokens=8)
        for row, answer in zip(ROWS, answers, strict=True):
            alone = model.generate(row, max_new_tokens=8)
            assert alone.tokens == answer.tokens
        searched = model.generate(ROWS, max_new_tokens=8, beams=3)
        print(f"{name}: {error:.4f} {[len(one.tokens) for one in searched]}")
    assert error < CLOSE["fp16"]


@pytest.mark.parametrize("name", [n for n, (_, task) in IMAGES.items() if (task, n) not in REFUSED])
def test_images(name: str, tmp_path: Path) -> None:
    config, task = IMAGES[name]
    opened, reference = _opened(tmp_path, config, task)
    size = zoo_images.SIZE
    pixels = np.random.default_rng(0).normal(size=(2, 3, size, size)).astype(np.float32)
    with opened as model, torch.no_grad():
        given = model.run({"pixel_values": pixels})
        made = reference(torch.from_numpy(pixels))
        name = next(iter(given))
        expected = getattr(made, name, None)
        expected = made[0] if expected is None else expected
    error = relative_error(given[name], expected.numpy())
    print(f"{name}: {error:.4f}")
    assert error < CLOSE["fp16"]


@pytest.mark.parametrize("quantize", ["int4", "int8"])
@pytest.mark.parametrize("name", ["llama", "lfm2", "mixtral", "gpt-oss"])
def test_quantized(name: str, quantize: str, tmp_path: Path) -> None:
    both = {"target": ["ort-cpu", "ort-cuda"], "quantize": quantize, "kernels": "builtin"}
    opened, _ = _opened(tmp_path, DECODERS[name], "text-generation", **both)
    with opened as model, lc.load(tmp_path / "out", target="ort-cpu") as wide:
        error = relative_error(model.logits(ROWS[0]), wide.logits(ROWS[0]))
        cache, expected = model.new_cache(1, 32), wide.new_cache(1, 32)
        errors = [error, relative_error(cache.start(ROWS[:1]), expected.start(ROWS[:1]))]
        for token in (7, 8):
            given = ([token], [True])
            errors.append(relative_error(cache.step(*given), expected.step(*given)))
    print(f"{name} {quantize}: {max(errors):.4f}")
    assert max(errors) < ROUNDED
