"""Sounds that engines are verified on: made up, with what speech has.

Harmonics of a voice whose pitch wanders, shaped by resonances that change from syllable to syllable
(Fant, Acoustic Theory of Speech Production, 1960), with hiss and pauses in between. Nobody says
anything in them; a model writes something all the same.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["heard", "sounds"]

SECONDS = (4.0, 11.0, 30.0)
SYLLABLE = 0.22
FORMANTS = (
    (730, 1090, 2440),
    (270, 2290, 3010),
    (570, 840, 2410),
    (440, 1020, 2240),
    (530, 1840, 2480),
)
"""Hz of the vowels in father, beet, bought, book and bet (Peterson and Barney, 1952)."""

Array = npt.NDArray[np.float32]


def sounds(rate: int, longest: float) -> list[Array]:
    """Samples from -1 to 1, one sound after the other; each time the same.

    Args:
        rate: samples a second.
        longest: seconds of the longest.
    """
    return [_voice(rate, min(s, longest), seed) for seed, s in enumerate(SECONDS)]


def heard(shape: tuple[int, int], count: int, seed: int = 0) -> Array:
    """What a model would hear of such sounds, roughly: (count, bands, frames) of slow powers.

    Noise that falls off with its frequency along both axes, within the range of features.
    """
    random = np.random.default_rng(seed)
    waves = np.fft.rfft2(random.standard_normal((count, *shape)))
    rows, columns = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])
    waves /= 0.02 + np.hypot(rows, columns)
    found = np.fft.irfft2(waves, shape)
    found *= 0.5 / found.std(axis=(1, 2), keepdims=True)
    return np.asarray(found.clip(-1, 1.5), np.float32)


def _voice(rate: int, seconds: float, seed: int) -> Array:
    random = np.random.default_rng(seed)
    times = np.arange(int(rate * seconds)) / rate
    syllable = (times / SYLLABLE).astype(int)
    count = int(syllable.max(initial=0)) + 1
    pitch = 110 * (1 + seed / 3) * (1 + 0.15 * np.sin(2 * np.pi * 0.7 * times + seed))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    vowels = np.array(FORMANTS)[random.integers(0, len(FORMANTS), count)][syllable]
    loud = np.where(random.random(count) < 0.2, 0.0, random.uniform(0.3, 1.0, count))[syllable]
    loud *= np.sin(np.pi * (times / SYLLABLE % 1)) ** 0.5
    sound = np.zeros_like(times)
    for harmonic in range(1, 24):
        place = harmonic * pitch
        near = sum(np.exp(-(((place - vowels[:, f]) / 150) ** 2)) / (f + 1) for f in range(3))
        sound += (0.02 + near) * np.sin(harmonic * phase) / harmonic**0.5
    sound = loud * sound + 0.01 * random.standard_normal(len(times))
    return np.asarray(0.5 * sound / np.abs(sound).max(), np.float32)
