"""Any ONNX file in summary: what goes in and out, its ops, layers, weights and quantization."""

from __future__ import annotations

from lepton_compile.cli.onnxfile.summary import ModelSummary, summarize
from lepton_compile.cli.onnxfile.view import model_tables

__all__ = ["ModelSummary", "model_tables", "summarize"]
