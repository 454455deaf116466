"""Quantization of weights, written as DequantizeLinear: the form every target is lowered from."""
