"""Refusals that the ways of tracing a model share."""

from __future__ import annotations

from lepton_compile.errors import ExportError

__all__ = ["OwnCodeError", "untraceable"]


# What a model's own code says, and what to do then.
_HINTS = {
    "no padding token is defined": "name the token that shorter texts of a batch are filled with "
    "in config.json: pad_token_id",
}


class OwnCodeError(ExportError):
    """The model's own code does what is not captured: traced layer by layer or all at once, it does
    the same, as long as its attention is captured in the same place."""


def untraceable(error: Exception, kind: type[ExportError] = ExportError) -> ExportError:
    """Torch's own words, or the model's, as an error of ours."""
    first = str(error).splitlines()[0] if str(error) else ""
    hint = next((each for words, each in _HINTS.items() if words in first), None)
    found = f"{type(error).__name__}: {first}"
    return kind("torch.export could not trace the model", found=found, hint=hint)
