"""Pictures made of numbers."""

from __future__ import annotations

import numpy as np

from lepton_compile.numerics.sample_images import digest, normalized, pictures


def test_they_are_the_same_every_time_and_all_different() -> None:
    seen = pictures(4, 32, 48)
    assert (seen.shape, seen.dtype) == ((4, 32, 48, 3), np.uint8)
    assert np.array_equal(seen, pictures(4, 32, 48))
    fitted = pictures(4, 32, 48, which="calibration")
    rows = [one.tobytes() for one in (*seen, *fitted)]
    assert len(set(rows)) == len(rows)
    assert digest(8, 8) == digest(8, 8) != digest(8, 9)


def test_their_amplitude_falls_with_the_frequency_as_that_of_photographs() -> None:
    grey = pictures(16, 64, 64).astype(np.float64).mean(-1)
    amplitude = np.abs(np.fft.fft2(grey - grey.mean((1, 2), keepdims=True))).mean(0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64)))
    bands = [
        amplitude[(frequency >= low) & (frequency < 2 * low)].mean() for low in (1 / 32, 1 / 8)
    ]
    falls = np.log(bands[0] / bands[1]) / np.log(4)
    assert 0.8 < falls < 1.8


def test_they_are_normalized_as_the_model_says() -> None:
    seen = pictures(2, 8, 8)
    made = {"scale": 1 / 255, "mean": [0.1, 0.2, 0.3], "std": [0.5, 1.0, 2.0]}
    found = normalized(seen, made)
    wanted = (seen / 255 - made["mean"]) / made["std"]
    np.testing.assert_allclose(found, wanted.transpose(0, 3, 1, 2), atol=1e-6)
    assert normalized(seen, None, channels=1).shape == (2, 1, 8, 8)
    assert np.abs(normalized(seen, None)).max() <= 1.0
