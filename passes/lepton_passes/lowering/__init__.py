"""Lowering: from the neutral dialect to ops that a target has kernels for. Last in every plan."""
