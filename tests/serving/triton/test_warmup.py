"""Warm-up requests: shapes within the ranges, files of the right size."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_compile.artifact import Artifact
from lepton_compile.errors import ArtifactError
from lepton_compile.serving.triton.warmup import encoder_samples, text_bytes
from tests.serving.artifacts import changed, engine_of


@pytest.mark.parametrize(
    ("sequence", "lengths"),
    [
        ([1, 512], [32, 512]),
        ([64, 512], [64, 512]),
        ([1, 8], [8]),
        ([1, 1 << 20], [32]),  # an imported file, of whose length nothing is known
    ],
)
def test_a_usual_and_a_long_text(
    encoder: Artifact, sequence: list[int], lengths: list[int]
) -> None:
    engine = changed(engine_of(encoder), ranges={"batch": [1, 4], "sequence": sequence})
    samples = list(encoder_samples(engine))
    assert [sample.inputs["input_ids"][1] for sample in samples] == [[n] for n in lengths]
    for sample, length in zip(samples, lengths, strict=True):
        for name in ("input_ids", "attention_mask"):
            assert np.frombuffer(sample.files[name], np.int64).tolist() == [1] * length
        assert "token_type_ids" not in sample.files


def test_text_has_its_length_before_it() -> None:
    assert text_bytes("é") == b"\x02\x00\x00\x00" + "é".encode()


def test_a_request_that_fits_nowhere_is_told(encoder: Artifact) -> None:
    ids = {"name": "input_ids", "dtype": "int64", "shape": ["batch", 1 << 40], "optional": False}
    with pytest.raises(ArtifactError, match="too large"):
        list(encoder_samples(changed(engine_of(encoder), inputs=(ids,))))
    strange = {**ids, "dtype": "int65", "shape": ["batch", 4]}
    with pytest.raises(ArtifactError, match="Triton has no type"):
        list(encoder_samples(changed(engine_of(encoder), inputs=(strange,))))
