"""An engine that sees against the fp32 PyTorch model, on pictures that are made up.

The engine is fed with them in small batches, and all of each output is compared: rows of scores,
vectors of pictures, and features part by part.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_compile.errors import UsageError
from lepton_compile.numerics.engine import Engine
from lepton_compile.numerics.outputs import Output
from lepton_compile.numerics.reference import module_of, pool
from lepton_compile.numerics.sample_images import COMPARED, normalized, pictures
from lepton_compile.numerics.verify_report import VerifyReport
from lepton_compile.progress import Progress

__all__ = ["PIXELS", "Seeing", "pixels_of", "verify_images"]

PIXELS = "pixel_values"
BATCH = 8
Array = npt.NDArray[Any]


class Seeing:
    """Runs a transformers model that sees on numpy arrays.

    Args:
        module: the model, in evaluation mode, or what loads it.
        embedding: the manifest's: which output is a picture's vector, and how it is made.
    """

    def __init__(self, module: Any, embedding: Mapping[str, Any] | None) -> None:
        self._given, self._embedding = module, embedding or {}

    def run(self, pixels: Array, names: Sequence[str]) -> dict[str, Array]:
        """The named outputs, float32."""
        import torch

        with torch.inference_mode():
            found = module_of(self._given)(pixel_values=torch.from_numpy(pixels))
        return {name: self._output(found, name) for name in names}

    def _output(self, found: Any, name: str) -> Array:
        own = next((n for n in ("image_embeds", "pooler_output") if found.get(n) is not None), "")
        if name not in found:  # the vector that the recipe asks for
            kind = self._embedding["pooling"]
            hidden = found[own if kind == "own" else "last_hidden_state"].float().numpy()
            tokens = hidden.reshape(len(hidden), 1, -1) if kind == "own" else hidden
            how = {**self._embedding, "pooling": "cls" if kind == "own" else kind}
            return pool(tokens, np.ones(tokens.shape[:2], np.int64), how)
        value: Array = found[name].float().numpy()
        return value.reshape(len(value), -1) if name == own else value


def pixels_of(model: Engine, count: int) -> Array:
    """Pictures as an opened engine takes them.

    Raises:
        UsageError: it takes something else.
    """
    shape = model.inputs.get(PIXELS, {}).get("shape", ())
    if len(shape) != 4 or not all(isinstance(size, int) for size in shape[1:]):
        raise UsageError(
            "the engine takes no images of one size",
            found=f"{PIXELS}: {list(shape)}",
            hint="build it again from the model",
        )
    channels, height, width = shape[1:]
    seen = pictures(count, height, width)
    return normalized(seen, model.manifest.get("image"), channels)


def verify_images(
    model: Engine, reference: Any, task: str, precision: str, progress: Progress
) -> VerifyReport:
    """Compares an engine with its reference; arguments as of ``verify.verify``."""
    begin = time.perf_counter()
    truth = Seeing(reference, model.manifest.get("embedding"))
    names = [output["name"] for output in model.manifest["outputs"]]
    outputs = {name: Output(name) for name in names}
    pixels = pixels_of(model, COMPARED)
    least, most = (int(end) for end in model.manifest["ranges"]["batch"])
    size = min(max(BATCH, least), most)
    for at in range(0, COMPARED, size):
        batch = pixels[at : at + size]
        fed = np.concatenate([batch, batch[-1:].repeat(max(0, least - len(batch)), 0)])
        found, wanted = model.run({PIXELS: fed}, names), truth.run(batch, names)
        for name in names:
            outputs[name].update(_rows(wanted[name]), _rows(found[name][: len(batch)]))
        progress.step("comparing images", min(at + size, COMPARED), COMPARED)
    embedding = model.manifest.get("embedding")
    return VerifyReport(
        task=task,
        precision=precision,
        sample="synthetic images",
        segments=COMPARED,
        tokens=0,
        outputs=tuple(output.report() for output in outputs.values()),
        embedding=embedding["output"] if embedding else None,
        seconds=time.perf_counter() - begin,
    )


def _rows(values: Array) -> Array:
    """Rows to compare: of a map its places, each with what the channels say of it."""
    if values.ndim < 3:
        return values
    by_place = values if values.ndim == 3 else np.moveaxis(values, 1, -1)
    return by_place.reshape(-1, by_place.shape[-1])
