"""Fusion: fewer, larger nodes, still in standard ops, so that every target profits."""
