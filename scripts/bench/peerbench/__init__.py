"""Comparison of lepton-compile with other tools, each in an environment of its own."""
