"""The ops of ``ai.lepton.cpu`` for packed weights: what goes in and out, and what they round.

    QuantizedLinear     y (..., N) = activation(round(x (..., K)) . W (K, N) + bias)
             gated      y (..., N / 2) = the first half of that, times the second half of the sum
    QuantizedEmbedding  y (..., K) = the column of W (K, N) that each id names
    QuantizedExperts    y (T, K) = sum over the chosen e of share * D_e (activation(G_e x) * U_e x)
             not gated           = sum over the chosen e of share * D_e activation(U_e x)

``tiles`` holds W in tiles of 16 columns; ``reference.py`` reads them. With ``offsets``, of 4 and 8
bits, each group of a column has one beside its scale: w = q * scale + offset. With ``floats``, of 4
bits, q is twice a float of E2M1 (OCP Microscaling Formats 1.0, 5.3.3). ``order``, of 4 bits,
says which number of x each one of a dot product is: x[order[k]].

The input of a linear layer is rounded as it comes, with one scale for each block of a row, to as
many levels as its products can be summed of in small integers:

    bits  weights     activations   blocks of activations
    4     -8..7       -127..127     32
          -12..12     the same, with floats
    7     -63..63     -63..63       the group
    8     -128..127   -127..127     32, or the largest power of two that divides the group
"""

from __future__ import annotations

from lepton_plugins.spec import CPU_DOMAIN, Attribute, PluginSpec, Tensor, Tolerance

__all__ = [
    "ACTIVATIONS",
    "EMBEDDING",
    "EXPERTS",
    "FLOATS",
    "LEAST",
    "SCALE_UNIT",
    "SPEC",
    "TILE",
    "UNITS",
    "block",
    "limit",
]

ACTIVATIONS = {"none": 0, "gelu": 1, "gelu_tanh": 2, "silu": 3, "relu2": 4}
"""Values of ``activation``."""

TILE = 16
"""Columns of a tile."""

SCALE_UNIT = 1024
"""Scales are stored in fp16, times this: from 2.4e-7 / 4 to 63."""

FLOATS = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)
"""Twice the floats of E2M1, by their codes."""

UNITS = {4: 32, 7: 8, 8: 8}
"""Bits -> what the length of a group is a multiple of."""

LEAST = 2.0**-120
"""Blocks of activations below it are zeros: the factor that makes integers would be infinite."""

_INT32 = 2**31 - 1


def limit(bits: int) -> int:
    """Largest magnitude of a rounded activation."""
    return 63 if bits == 7 else 127


def block(bits: int, group: int) -> int:
    """Activations that share a scale, beside weights of which ``group`` do."""
    return group if bits == 7 else min(32, group & -group)


_ATTRIBUTES = (
    Attribute("K", "int", None, 1, 2**24, "length of a dot product"),
    Attribute("N", "int", None, 1, _INT32, "columns"),
    Attribute("bits", "int", None, 4, 8, "4, 7 or 8"),
    Attribute(
        "block_size", "int", None, 2, 2**24, "weights of a column that share a scale; divides K"
    ),
    Attribute("offsets", "int", None, 0, 1, "whether groups have some; not of 7 bits"),
    Attribute("floats", "int", None, 0, 1, "whether 4 bits are codes of floats; without offsets"),
)
_TILES = Tensor("tiles", ("uint8",), ("ceil(N/16)", "tile_bytes"))

SPEC = PluginSpec(
    name="QuantizedLinear",
    namespace=CPU_DOMAIN,
    version="1",
    inputs=(
        Tensor("x", ("float32",), ("...", "K")),
        _TILES,
        Tensor("bias", ("float32",), ("N",), optional=True),
        Tensor("order", ("int32",), ("K",), optional=True),
    ),
    outputs=(Tensor("y", ("float32",), ("...", "N")),),
    attributes=(
        *_ATTRIBUTES,
        Attribute("activation", "int", None, 0, 4, "none, gelu, gelu by tanh, silu, relu squared"),
        Attribute("gated", "int", None, 0, 1, "the first half is a gate; N a multiple of 32"),
    ),
    # Sums of integers are exact, so what is left is the order of additions in fp32, relative to
    # the sum of magnitudes of a row.
    tolerance={"float32": Tolerance(0.0, 2e-6)},
)

EMBEDDING = PluginSpec(
    name="QuantizedEmbedding",
    namespace=CPU_DOMAIN,
    version="1",
    inputs=(_TILES, Tensor("ids", ("int64",), ("...",))),
    outputs=(Tensor("y", ("float32",), ("...", "K")),),
    attributes=_ATTRIBUTES,
    tolerance={"float32": Tolerance(0.0, 0.0)},
)

EXPERTS = PluginSpec(
    name="QuantizedExperts",
    namespace=CPU_DOMAIN,
    version="1",
    inputs=(
        Tensor("x", ("float32",), ("T", "K")),
        Tensor("indices", ("int64",), ("T", "chosen")),
        Tensor("shares", ("float32",), ("T", "chosen")),
        Tensor("gate_up", ("uint8",), ("experts*N*(1+gated)/16", "tile_bytes")),
        Tensor("down", ("uint8",), ("experts*K/16", "tile_bytes")),
        Tensor("gate_up_bias", ("float32",), ("experts", "N*(1+gated)"), optional=True),
        Tensor("down_bias", ("float32",), ("experts", "K"), optional=True),
    ),
    outputs=(Tensor("y", ("float32",), ("T", "K")),),
    attributes=(
        Attribute("K", "int", None, 16, 2**24, "width of a token; a multiple of 16"),
        Attribute("N", "int", None, 16, 2**24, "width inside of an expert; a multiple of 16"),
        Attribute("experts", "int", None, 1, 2**24, "how many there are"),
        Attribute("bits", "int", None, 4, 8, "4 or 8"),
        Attribute("block_size", "int", None, 2, 2**24, "as that of QuantizedLinear; divides K"),
        Attribute("down_block_size", "int", None, 2, 2**24, "the same of `down`; divides N"),
        Attribute("activation", "int", None, 0, 4, "of the gate, as that of QuantizedLinear"),
        Attribute("gated", "int", None, 0, 1, "whether there is one; else the activation is of up"),
        Attribute("offsets", "int", None, 0, 1, "whether groups of `gate_up` have some"),
        Attribute("down_offsets", "int", None, 0, 1, "the same of `down`"),
        Attribute("floats", "int", None, 0, 1, "as that of QuantizedLinear, of both"),
        Attribute("alpha", "float", None, 0, 1e3, "of SiLU, g * sigmoid(alpha * g); 1 of others"),
        Attribute("limit", "float", None, 0, 1e6, "largest gate, and up both ways; 0 for none"),
        Attribute("beta", "float", None, -1e3, 1e3, "is added to up"),
    ),
    tolerance={"float32": Tolerance(0.0, 2e-6)},
)
