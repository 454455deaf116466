"""Cached attention: grouped heads, window, softcap, sinks, in-place and quantized caches."""
