"""Checkpoints whose weights are quantized already, read as the fp32 values that they stand for.

A file for each way of storing them; ``methods`` goes by what config.json calls it. Weights with
zero points have their integers behind them (``lepton_passes.grouped``).
"""

from __future__ import annotations

from .methods import METHODS, check_settings, method_of, read_quantized

__all__ = ["METHODS", "check_settings", "method_of", "read_quantized"]
