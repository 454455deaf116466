"""What is read or heard, beside what is written.

An encoder runs once for each call, and its outputs stay bound to the decoder, which runs for each
token; both are engines of ONNX Runtime, over the same weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_guard import check_form, failing, refuse
from lepton_compile.runtime.loader_ruled import NO_TOKENS

__all__ = ["IDS", "MASK", "Begun", "Pair", "Reading", "check_source", "ready"]

IDS, MASK, SOUND = "encoder_input_ids", "encoder_attention_mask", "encoder_input_features"
PAIR = {"engines": [{"encoder": str}], "generation": {"start": [int]}}


def check_source(manifest: dict[str, Any]) -> None:
    """Refuse a manifest that does not say what is opened, and what answers begin with."""
    check_form(manifest, PAIR, "manifest")
    told, most = manifest["generation"], manifest["generation"]["vocabulary"]
    lost = [e["encoder"] for e in manifest["engines"] if e["encoder"] not in e["files"]]
    refuse(lost, f"manifest.json uses {lost} without giving their digests")
    refuse(not told["start"] or max(told["start"]) >= most, NO_TOKENS)
    if manifest["task"] == "automatic-speech-recognition":
        from lepton_compile.runtime.loader_speech import check_sound

        check_sound(manifest)
    manifest["ranges"].setdefault(IDS, [0, most - 1])


class Pair:
    """The sessions of an encoder and a decoder, as one."""

    def __init__(self, encoder: Any, decoder: Any) -> None:
        self.encoder, self.decoder = encoder, decoder
        self.reads = {value.name for value in encoder.get_inputs()}
        self.takes = {value.name for value in decoder.get_inputs()} | {"logits_to_keep"}
        self.gives = [value.name for value in encoder.get_outputs()]

    def run(self, names: list[str], given: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Outputs of the decoder by all that both are given."""
        made = self.encoder.run(self.gives, {name: given[name] for name in self.reads})
        known = {**given, **dict(zip(self.gives, made, strict=True))}
        found: list[np.ndarray] = self.decoder.run(
            names, {name: array for name, array in known.items() if name in self.takes}
        )
        return found

    def reading(self, sources: Sequence[Any]) -> Reading:
        """The decoder, once the encoder has taken texts (ids), or windows of sound (features)."""
        from onnxruntime import OrtValue

        arrays = {SOUND: np.stack(sources)} if SOUND in self.reads else _padded(sources)
        known = {name: OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
        with failing("the engine failed on what it reads"):
            source = {name: known[name] for name in self.reads}
            made = self.encoder.run_with_ort_values(self.gives, source)
        known |= zip(self.gives, made, strict=True)
        return Reading(self.decoder, {n: v for n, v in known.items() if n in self.takes})


def _padded(rows: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
    lengths = np.array([len(row) for row in rows])
    mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
    ids = np.zeros_like(mask)
    ids[mask == 1] = np.concatenate([np.asarray(row, np.int64) for row in rows])
    return {IDS: ids, MASK: mask}


class Reading:
    """A decoder's session that has read something: bindings to it know what."""

    def __init__(self, session: Any, values: Mapping[str, Any]) -> None:
        self.run_with_iobinding, self.new_binding = session.run_with_iobinding, session.io_binding
        self.values = dict(values)

    def repeat(self, times: int) -> None:
        """Each row so many times, one after the other."""
        from onnxruntime import OrtValue

        for name, value in self.values.items():
            rows = np.repeat(value.numpy(), times, axis=0)
            self.values[name] = OrtValue.ortvalue_from_numpy(rows, value.device_name(), 0)

    def io_binding(self) -> Any:
        """A binding that lacks what changes from token to token."""
        binding = self.new_binding()
        for name, value in self.values.items():
            binding.bind_ortvalue_input(name, value)
        return binding


def ready(model: Any, cache: Any, rows: Sequence[Any]) -> None:
    """Have the encoder take what rows answer to."""
    cache.session = model.session.reading([row.ids.source for row in rows])
    if model.task == "automatic-speech-recognition":
        from lepton_compile.runtime.loader_speech import tell_languages

        tell_languages(model, cache, rows)


class Begun(list[int]):
    """What is written first, and the ``source`` that it is of: ids, or features of a sound."""

    source: Any
