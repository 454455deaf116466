"""The process that loads a TensorRT, parses and builds; ``python -P -m …child ORDER.json``.

It speaks in lines of JSON on its first standard output (``events``), writes whatever the library
prints to standard error, and gives up when its standard input ends: that is how it is cancelled,
and what happens when its parent dies.
"""
