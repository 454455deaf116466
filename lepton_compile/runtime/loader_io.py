"""What an engine takes and gives where that is not what the model does."""

from __future__ import annotations

from typing import Any

__all__ = ["own_io"]


def own_io(model: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The inputs and outputs of a model on this engine, by name."""
    own, hidden = model.engine.get("io") or {}, getattr(model.session, "hidden", ())
    told = own.get("inputs") if model.target.startswith("ort") else ()  # trt has the model's
    inputs = {spec["name"]: spec for spec in told or ()}
    outputs = {spec["name"]: spec for spec in own.get("outputs") or ()} or model.outputs
    shown = {name: spec for name, spec in outputs.items() if name not in hidden}
    return model.inputs | inputs, shown
