"""A double of Triton's Python backend: it loads ``model.py`` as Triton does, checks its conduct.

What is checked is what the backend itself enforces or documents: its module is filled in only
after the model's was imported; inputs fit the configuration; a response carries the configured
outputs in their types; ``execute`` returns None; each request is closed exactly once, after which
nothing is sent.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

__all__ = ["Answer", "Server"]

NAME = "triton_python_backend_utils"
FINAL = 1
DTYPES = {
    "TYPE_STRING": np.object_,
    "TYPE_INT32": np.int32,
    "TYPE_INT64": np.int64,
    "TYPE_FP32": np.float32,
    "TYPE_BOOL": np.bool_,
}


class Tensor:
    def __init__(self, name: str, array: np.ndarray) -> None:
        assert isinstance(array, np.ndarray)
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> np.ndarray:
        return self._array


class TritonError(Exception):
    UNKNOWN, INTERNAL, INVALID_ARG, CANCELLED = "UNKNOWN", "INTERNAL", "INVALID_ARG", "CANCELLED"

    def __init__(self, message: str, code: str = "UNKNOWN") -> None:
        assert isinstance(message, str)
        super().__init__(message)
        self.code = code


class InferenceResponse:
    def __init__(self, output_tensors: Any = (), error: TritonError | None = None) -> None:
        assert error is None or isinstance(error, TritonError)
        self.tensors, self.error = list(output_tensors), error


@dataclass
class Answer:
    """What a client got: each response's outputs by name, and the error if there was one."""

    responses: list[dict[str, Any]] = field(default_factory=list)
    error: TritonError | None = None
    closed: bool = False


class Sender:
    def __init__(self, server: Server, cancel_after: int | None) -> None:
        self.server, self.cancel_after = server, cancel_after
        self.answer = Answer()

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        assert not self.answer.closed, "Response sender has been closed."
        assert flags in (0, FINAL)
        assert response is not None or flags == FINAL, "nothing to send"
        self.answer.closed = flags == FINAL
        if response is None:
            return
        if response.error is not None:
            self.answer.error = response.error
        else:
            self.answer.responses.append(self.server.outputs_of(response))

    def is_cancelled(self) -> bool:
        sent = len(self.answer.responses)
        return self.cancel_after is not None and sent >= self.cancel_after


class Request:
    def __init__(self, tensors: list[Tensor], sender: Sender) -> None:
        self.tensors, self.sender = tensors, sender

    def inputs(self) -> list[Tensor]:
        return self.tensors

    def get_response_sender(self) -> Sender:
        return self.sender


class Server:
    """A model folder of a repository, served by its Python backend.

    Args:
        folder: with ``config.pbtxt`` and version folders.
        version: the one to serve.
    """

    def __init__(self, folder: Path, version: int = 1) -> None:
        self.config = _config(folder)
        assert self.config["name"] == folder.name
        assert self.config["backend"] == "python"
        assert self.config["model_transaction_policy"]["decoupled"] is True
        self.backend = ModuleType(NAME)
        self.backend.get_input_tensor_by_name = _tensor_of  # type: ignore[attr-defined]
        self.model = _import(folder / str(version) / "model.py", self.backend).TritonPythonModel()
        self._fill_in()
        self.model.initialize(
            {
                "model_config": json.dumps(self.config),
                "model_repository": str(folder),
                "model_version": str(version),
                "model_name": folder.name,
            }
        )

    def infer(self, cancel_after: int | None = None, **inputs: Any) -> Answer:
        """One request; ``cancel_after``: the client leaves when it has so many responses."""
        return self.infer_all([inputs], cancel_after)[0]

    def infer_all(
        self, requests: list[dict[str, Any]], cancel_after: int | None = None
    ) -> list[Answer]:
        """Several requests that the backend hands over at once."""
        made = [Request(self._tensors(one), Sender(self, cancel_after)) for one in requests]
        assert self.model.execute(made) is None, "a decoupled model returns None"
        for request in made:
            assert request.sender.answer.closed, "a request was left open"
        return [request.sender.answer for request in made]

    def warm_up(self) -> list[Answer]:
        """The requests of ``model_warmup``, from their files, as Triton makes them."""
        folder = Path(sys.modules[type(self.model).__module__].__file__ or "").parent.parent
        return [
            self.infer(
                **{
                    name: _from_file(value, folder / "warmup" / value["input_data_file"])
                    for name, value in sample["inputs"].items()
                }
            )
            for sample in self.config["model_warmup"]
        ]

    def outputs_of(self, response: InferenceResponse) -> dict[str, Any]:
        """The tensors of a response as Python lists, checked against the configuration."""
        known = {entry["name"]: entry for entry in self.config["output"]}
        found = {}
        for tensor in response.tensors:
            entry = known.pop(tensor.name())
            _check(tensor.as_numpy(), entry)
            found[tensor.name()] = [
                v.decode() if isinstance(v, bytes) else v for v in tensor.as_numpy().tolist()
            ]
        assert not known, f"no value for {list(known)}"
        return found

    def _tensors(self, inputs: dict[str, Any]) -> list[Tensor]:
        known = {entry["name"]: entry for entry in self.config["input"]}
        missing = [n for n, e in known.items() if n not in inputs and not e.get("optional")]
        assert not missing, f"Triton refuses a request without {missing}"
        tensors = []
        for name, value in inputs.items():
            values = value if isinstance(value, list) else [value]
            values = [v.encode() if isinstance(v, str) else v for v in values]
            tensors.append(Tensor(name, np.array(values, DTYPES[known[name]["data_type"]])))
            _check(tensors[-1].as_numpy(), known[name])
        return tensors

    def _fill_in(self) -> None:
        for name, value in {
            "Tensor": Tensor,
            "TritonError": TritonError,
            "InferenceResponse": InferenceResponse,
            "TRITONSERVER_RESPONSE_COMPLETE_FINAL": FINAL,
        }.items():
            setattr(self.backend, name, value)


def _config(folder: Path) -> dict[str, Any]:
    """``config.pbtxt`` in the form a model gets it: JSON with the names of the protobuf."""
    from google.protobuf import json_format, text_format
    from tritonclient.grpc import model_config_pb2

    text = (folder / "config.pbtxt").read_text()
    message = text_format.Parse(text, model_config_pb2.ModelConfig())
    data = json_format.MessageToDict(message, preserving_proto_field_name=True)
    for entry in (*data["input"], *data["output"]):
        entry["dims"] = [int(size) for size in entry["dims"]]
    return dict(data)


def _import(path: Path, backend: ModuleType) -> Any:
    spec = importlib.util.spec_from_file_location(f"served_{path.parent.parent.name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME], sys.modules[spec.name] = backend, module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[NAME]
    return module


def _tensor_of(request: Request, name: str) -> Tensor | None:
    return next((tensor for tensor in request.inputs() if tensor.name() == name), None)


def _check(array: np.ndarray, entry: dict[str, Any]) -> None:
    assert array.dtype == DTYPES[entry["data_type"]], entry["name"]
    assert array.ndim == len(entry["dims"]), entry["name"]
    for size, dim in zip(array.shape, entry["dims"], strict=True):
        assert dim in (-1, size), entry["name"]


def _from_file(value: dict[str, Any], path: Path) -> list[Any]:
    data = path.read_bytes()
    if value["data_type"] != "TYPE_STRING":
        return list(np.frombuffer(data, DTYPES[value["data_type"]]).tolist())
    length = int.from_bytes(data[:4], "little")
    assert len(data) == 4 + length
    return [data[4:].decode()]
