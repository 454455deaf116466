"""Pictures that engines are compared on, made of numbers: none are shipped, and all are free.

Each is one of many with the spectrum of photographs (an amplitude that falls with the frequency),
and in front of it slopes of colour, round and straight shapes with edges, and stripes: what vision
models respond to. They are the same everywhere but for the last bit of a few of their bytes.
Weights are fitted to other pictures than engines are compared on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["COMPARED", "FITTED", "digest", "normalized", "pictures"]

COMPARED, FITTED = 32, 16
"""How many are compared on, and how many weights are fitted to."""

HALVES = {"scale": 1 / 255, "mean": [0.5], "std": [0.5]}
"""What is made of bytes where a model's files do not say."""

_FIRST = {"sample": 0, "calibration": 1_000}
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def pictures(count: int, height: int, width: int, *, which: str = "sample") -> Bytes:
    """Pictures (count, height, width, 3); ``sample`` or ``calibration``."""
    first = _FIRST[which]
    return np.stack([_picture(first + n, height, width) for n in range(count)])


def normalized(given: Bytes, made: Mapping[str, Any] | None, channels: int = 3) -> Floats:
    """Pictures as a model takes them, (count, channels, height, width).

    Args:
        made: ``image`` of the manifest: what each byte is multiplied by, the mean, the deviation.
        channels: how many the model takes; the three colours come round again where it takes more.
    """
    how: Mapping[str, Any] = made or HALVES
    mean, std = (np.array(how[key], np.float32) for key in ("mean", "std"))
    values = (given * np.float32(how["scale"]) - mean) / std
    turned = values.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(turned[:, np.arange(channels) % 3])


def digest(height: int, width: int, which: str = "calibration") -> str:
    """SHA-256 of the pictures that are fitted to."""
    return hashlib.sha256(pictures(FITTED, height, width, which=which).tobytes()).hexdigest()


def _picture(seed: int, height: int, width: int) -> Bytes:
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    y, x = (y + 0.5) / height - 0.5, (x + 0.5) / width - 0.5
    picture = _slope(random, y, x)
    grain = _noise(random, height, width)
    picture += random.uniform(0.1, 0.5) * grain
    for _ in range(random.integers(2, 7)):
        inside = _shape(random, y, x)[..., None]
        filled = random.uniform(-1, 1, 3) + random.uniform(0, 0.4) * grain
        if random.random() < 0.3:
            filled = filled + 0.5 * _stripes(random, y, x)[..., None]
        picture += inside * (filled - picture)
    low, high = np.percentile(picture, (1, 99))
    spread = np.clip((picture - low) / max(high - low, 1e-6), 0, 1)
    return np.asarray(np.round(255 * spread), np.uint8)


def _noise(random: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float64]:
    """(height, width, 3) of deviation 1; mostly the same in all colours, as light is."""
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.maximum(np.hypot(rows, columns), 1 / max(height, width))
    falls = frequency ** -random.uniform(1.0, 1.5)

    def one() -> npt.NDArray[np.float64]:
        spectrum = np.fft.rfft2(random.standard_normal((height, width))) * falls
        made = np.fft.irfft2(spectrum, s=(height, width))
        return np.asarray((made - made.mean()) / max(float(made.std()), 1e-9))

    light = one()
    return np.stack([light + 0.3 * one() for _ in range(3)], axis=-1)


def _slope(
    random: np.random.Generator, y: npt.NDArray[np.float64], x: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """From one colour to another, in some direction."""
    angle = random.uniform(0, 2 * np.pi)
    along = (np.cos(angle) * x + np.sin(angle) * y + 0.5)[..., None]
    first, last = random.uniform(-1, 1, (2, 3))
    return np.asarray(first + along * (last - first))


def _shape(
    random: np.random.Generator, y: npt.NDArray[np.float64], x: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """1 inside of a turned ellipse or rectangle, 0 outside; its edge is more or less sharp."""
    angle, (top, left) = random.uniform(0, np.pi), random.uniform(-0.4, 0.4, 2)
    across = np.cos(angle) * (x - left) + np.sin(angle) * (y - top)
    up = np.cos(angle) * (y - top) - np.sin(angle) * (x - left)
    across, up = across / random.uniform(0.08, 0.35), up / random.uniform(0.08, 0.35)
    round_one = random.random() < 0.5
    far = np.hypot(across, up) if round_one else np.maximum(np.abs(across), np.abs(up))
    return np.asarray(np.clip((1 - far) / random.uniform(0.02, 0.3) + 0.5, 0, 1))


def _stripes(
    random: np.random.Generator, y: npt.NDArray[np.float64], x: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    angle, waves = random.uniform(0, np.pi), random.uniform(3, 14)
    return np.asarray(np.sin(2 * np.pi * waves * (np.cos(angle) * x + np.sin(angle) * y)))
