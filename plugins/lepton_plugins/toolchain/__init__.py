"""Compiling kernels ahead of time: Triton source to PTX and cubin, on a machine without a GPU."""
