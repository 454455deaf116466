"""A decoder behind Triton's Python backend: this file is the ``model.py`` of its version folder.

The artifact lies beside it and is run by the loader that it carries, which needs numpy and the
engine's own runtime (and ``tokenizers`` for text), nothing of the compiler. Requests of one
instance are answered one after the other; an instance group answers more at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

__all__ = ["TritonPythonModel"]

ARTIFACT = Path(__file__).resolve().with_name("artifact")

# Input -> setting of Model.generate.
SETTINGS = {
    "max_tokens": "max_new_tokens",
    **{name: name for name in ("chat", "seed", "temperature", "top_k", "top_p", "min_p")},
    **{name: name for name in ("repetition_penalty", "stop")},
}


class TritonPythonModel:
    """What Triton calls: ``initialize`` once, ``execute`` for requests, ``finalize`` at the end."""

    def initialize(self, args: dict[str, str]) -> None:
        """Check the artifact's digests and open its engine."""
        config = json.loads(args["model_config"])
        told = {k: v.get("string_value") for k, v in (config.get("parameters") or {}).items()}
        self.loader = _loader()
        threads: Any = told.get("threads") or "0"  # 0: as many as the loader takes by itself
        threads = int(threads) if threads.isdecimal() else threads
        self.model = self.loader.load(ARTIFACT, threads or None, told.get("target"))
        self.answer = config["output"][0]["name"]

    def execute(self, requests: list[Any]) -> None:
        """Answer each request through its sender, piece by piece where it asks for a stream."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._respond(request, sender)
            except Exception as error:  # whatever one request breaks on, the others are answered
                known = isinstance(error, self.loader.LoaderError | ValueError)
                text = str(error) if known else f"{type(error).__name__}: {error}"
                code = pb_utils.TritonError.INVALID_ARG if known else pb_utils.TritonError.INTERNAL
                sender.send(_failed(text, code), _final())

    def finalize(self) -> None:
        """Let the engine go."""
        self.model.close()

    def _respond(self, request: Any, sender: Any) -> None:
        prompt, settings = _read(request)
        stream = settings.pop("stream", False)
        pieces: list[Any] = []
        for piece in self._pieces(prompt, settings):
            if sender.is_cancelled():
                sender.send(_failed("cancelled", pb_utils.TritonError.CANCELLED), _final())
                return
            if stream:
                sender.send(self._response([piece]))
            else:
                pieces.append(piece)
        # Without a stream there is one response, which is what the plain HTTP endpoint demands.
        sender.send(None if stream else self._response(pieces), _final())

    def _pieces(self, prompt: Any, settings: dict[str, Any]) -> Iterator[Any]:
        found: Iterator[Any] = self.model.generate(prompt, stream=True, **settings)
        return found

    def _response(self, pieces: list[Any]) -> Any:
        if self.answer == "text_output":
            array = np.array(["".join(pieces).encode()], np.object_)
        else:
            array = np.array(pieces, np.int64)
        return pb_utils.InferenceResponse([pb_utils.Tensor(self.answer, array)])


def _final() -> Any:
    # Triton fills in its module only after it has imported this one.
    return pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


def _read(request: Any) -> tuple[Any, dict[str, Any]]:
    """The prompt (text or ids) and what ``generate`` is to be called with, plus ``stream``."""
    text, settings = _values(request, "text_input"), {}
    prompt = text[0] if text is not None else _values(request, "input_ids")
    for name, setting in {**SETTINGS, "stream": "stream"}.items():
        values = _values(request, name)
        if values:
            settings[setting] = values if name == "stop" else values[0]
    return prompt, settings


def _values(request: Any, name: str) -> list[Any] | None:
    """An input's elements as Python values, None where it was not given."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    if tensor is None:
        return None
    flat = tensor.as_numpy().reshape(-1).tolist()
    return [v.decode() if isinstance(v, bytes) else v for v in flat]


def _failed(text: str, code: Any) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(text, code))


def _loader() -> Any:
    """The artifact's own ``loader.py``."""
    spec = spec_from_file_location("lepton_artifact_loader", ARTIFACT / "loader.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(ARTIFACT / "loader.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
