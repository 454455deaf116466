# mypy: ignore-errors
# ruff: noqa: N803
"""What the kernels share, in Triton: one step of online softmax, and how a cache stores a number.

Rows of a tile are (token, head of the group): row ``r`` is token ``r // GROUP`` and head
``r % GROUP``, so the heads that share keys read them once. Scores are kept in base 2. A masked
score is a large negative number, not infinity: a row that has seen masked keys only carries
nonsense, with a weight of ``exp2(-huge) = 0`` against the first key it does see, and every row sees
its own.

A row of ``HEAD_DIM`` numbers is cut into chunks of ``D0`` and ``D1`` (a power of two each, D1 may
be 0), so that 80 costs 64 + 16 columns and not 128.

Online softmax: Milakov and Gimelshein, arXiv 1805.02867; tiled attention: Dao, arXiv 2307.08691.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["attend", "load_chunk", "softcapped", "stored"]

# A power of two, about -1.3e30: the multiply-add that scales a score and subtracts the row's maximum
# rounds once where the maximum was rounded by itself; of any other number the difference of the two
# is some 1e21, and a row that has seen masked keys only would carry infinity.
MASKED_SCORE = tl.constexpr(-(2.0**100))


@triton.jit
def stored(numbers, inverse_scale, dtype: tl.constexpr):
    """``numbers`` as the cache holds them: cast, or scaled, clamped and rounded half to even."""
    if dtype == tl.int8:
        scaled = tl.minimum(tl.maximum(numbers.to(tl.float32) * inverse_scale, -127.0), 127.0)
        # 1.5 * 2**23: the sum's last bit is worth one, so adding rounds to a whole number.
        return ((scaled + 12582912.0) - 12582912.0).to(tl.int8)
    elif dtype == tl.float8e4nv:
        scaled = tl.minimum(tl.maximum(numbers.to(tl.float32) * inverse_scale, -448.0), 448.0)
        return scaled.to(tl.float8e4nv)
    else:
        return numbers.to(dtype)


@triton.jit
def softcapped(scores, to_cap, cap):
    """``cap * tanh(scores * to_cap)``; one exponential, exact at both ends."""
    grown = tl.exp2(scores * (to_cap * 2.8853900817779268))
    return cap - (2.0 * cap) / (grown + 1.0)


@triton.jit
def load_chunk(
    pointers, rows, present, HEAD_DIM: tl.constexpr, AT: tl.constexpr, D: tl.constexpr,
    MASKED: tl.constexpr,
):  # fmt: skip
    """Columns ``AT .. AT + D`` of ``rows``; zero where not ``present`` or past the end."""
    columns = AT + tl.arange(0, D)
    offsets = rows[:, None] * HEAD_DIM + columns[None, :]
    if AT + D > HEAD_DIM:
        inside = (columns < HEAD_DIM)[None, :]
        if MASKED:
            inside = inside & present[:, None]
        return tl.load(pointers + offsets, mask=inside, other=0.0)
    elif MASKED:
        return tl.load(pointers + offsets, mask=present[:, None], other=0.0)
    else:
        return tl.load(pointers + offsets)


@triton.jit
def attend(
    m, total, acc0, acc1, q0, q1, positions, keys, values, first, last, length,
    HEAD_DIM: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr,
    SCORE_SCALE: tl.constexpr, CAP_SCALE: tl.constexpr, WINDOW: tl.constexpr,
    BLOCK_N: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Take the keys ``first .. last`` (whole blocks) into ``m``, ``total`` and the accumulators.

    m, total: (rows) running maximum and sum. acc0, acc1: (rows, D0) and (rows, D1), fp32.
    positions: (rows) of the queries. length: keys behind it are not read. With ``MASKED`` false the
    caller promises that every row sees every key of these blocks.
    """
    for start in range(first, last, BLOCK_N):
        columns = start + tl.arange(0, BLOCK_N)
        present = columns < length
        k0 = load_chunk(keys, columns, present, HEAD_DIM, 0, D0, MASKED).to(q0.dtype)
        scores = tl.dot(q0, tl.trans(k0))
        if D1 > 0:
            k1 = load_chunk(keys, columns, present, HEAD_DIM, D0, D1, MASKED).to(q0.dtype)
            scores = tl.dot(q1, tl.trans(k1), scores)
        if CAP_SCALE > 0:
            scores = softcapped(scores, CAP_SCALE, SCORE_SCALE)
        if MASKED:
            seen = (columns[None, :] <= positions[:, None]) & present[None, :]
            if WINDOW > 0:
                seen = seen & (columns[None, :] > positions[:, None] - WINDOW)
            scores = tl.where(seen, scores, MASKED_SCORE)
        if CAP_SCALE > 0:
            highest = tl.maximum(m, tl.max(scores, 1))
            weights = tl.exp2(scores - highest[:, None])
        else:  # the scale rides in the multiply-add that subtracts the maximum
            highest = tl.maximum(m, tl.max(scores, 1) * SCORE_SCALE)
            weights = tl.exp2(scores * SCORE_SCALE - highest[:, None])
        shrink = tl.exp2(m - highest)
        total = total * shrink + tl.sum(weights, 1)
        weights = weights.to(q0.dtype)
        v0 = load_chunk(values, columns, present, HEAD_DIM, 0, D0, MASKED).to(q0.dtype)
        acc0 = tl.dot(weights, v0, acc0 * shrink[:, None])
        if D1 > 0:
            v1 = load_chunk(values, columns, present, HEAD_DIM, D0, D1, MASKED).to(q0.dtype)
            acc1 = tl.dot(weights, v1, acc1 * shrink[:, None])
        m = highest
    return m, total, acc0, acc1
