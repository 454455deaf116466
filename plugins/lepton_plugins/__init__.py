"""Plugins: ops of our own for the runtimes, a folder each (see plugins/README.md)."""
