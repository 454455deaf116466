"""Artifacts in the form that other servers load.

Each export checks every digest, links or copies the engine's files unchanged, adds the description
that the server wants, and stands whole or not at all. ``docs/serving.md`` says how each is used.
"""

from __future__ import annotations

from .epcontext import export_epcontext
from .genai import export_genai
from .genai_rules import genai_left_out
from .triton import export_triton

__all__ = ["export_epcontext", "export_genai", "export_triton", "genai_left_out"]
