# mypy: ignore-errors
# ruff: noqa: N803
"""The four kernels, in Triton. ``launch.py`` says how each is called.

Importing this imports triton, so only the toolchain and the tests do.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lepton_plugins.attention.blocks import MASKED_SCORE, attend, load_chunk, stored

__all__ = [
    "lepton_attention_append",
    "lepton_attention_combine",
    "lepton_attention_decode",
    "lepton_attention_prefill",
]

LOG2_E = tl.constexpr(1.4426950408889634)
# A split's sum below this comes from masked scores only.
NOTHING_SEEN = tl.constexpr(-1.0e20)
# New rows that a decode block writes at a time.
APPENDED = tl.constexpr(4)


@triton.jit
def lepton_attention_append(
    key, value, past_lengths, key_cache, value_cache, sequence, capacity,
    present_key, present_value,
    KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, WIDTH: tl.constexpr,
    KEY_INVERSE: tl.constexpr, VALUE_INVERSE: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """New keys and values into the cache, at ``past_lengths``. Grid (tokens, key heads, batch)."""
    head, batch = tl.program_id(1), tl.program_id(2)
    tokens = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    slots = tl.load(past_lengths + batch) + tokens
    columns = tl.arange(0, WIDTH)
    mask = ((tokens < sequence) & (slots < capacity))[:, None] & (columns < HEAD_DIM)[None, :]
    source = (batch.to(tl.int64) * sequence * KV_HEADS + head) * HEAD_DIM
    source += tokens[:, None] * (KV_HEADS * HEAD_DIM) + columns[None, :]
    target = (batch.to(tl.int64) * KV_HEADS + head) * capacity * HEAD_DIM
    target += slots[:, None] * HEAD_DIM + columns[None, :]
    dtype: tl.constexpr = present_key.dtype.element_ty
    keys = stored(tl.load(key + source, mask=mask), KEY_INVERSE, dtype)
    values = stored(tl.load(value + source, mask=mask), VALUE_INVERSE, dtype)
    tl.store(present_key + target, keys, mask=mask)
    tl.store(present_value + target, values, mask=mask)


@triton.jit
def lepton_attention_prefill(
    query, past_lengths, key_cache, value_cache, sinks, sequence, capacity, output,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, HEAD_DIM: tl.constexpr,
    D0: tl.constexpr, D1: tl.constexpr,
    SCORE_SCALE: tl.constexpr, CAP_SCALE: tl.constexpr, WINDOW: tl.constexpr,
    VALUE_SCALE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Many new tokens against the cache. Grid (row tiles, key heads, batch)."""
    # Keys come in three runs: cut by the window, seen by every row (no masks), cut by causality.
    # The last tiles have the most keys: they start first.
    first_row = (tl.num_programs(0) - 1 - tl.program_id(0)) * BLOCK_M
    head, batch = tl.program_id(1), tl.program_id(2)
    past = tl.load(past_lengths + batch)
    length = tl.minimum(past + sequence, capacity)
    rows = first_row + tl.arange(0, BLOCK_M)
    tokens, real = rows // GROUP, rows < sequence * GROUP
    positions = past + tokens
    first_position = past + first_row // GROUP
    last_position = past + tl.minimum((first_row + BLOCK_M - 1) // GROUP, sequence - 1)
    at = batch.to(tl.int64) * sequence * (KV_HEADS * GROUP * HEAD_DIM)
    lines = tokens * (KV_HEADS * GROUP) + head * GROUP + rows % GROUP
    q0 = load_chunk(query + at, lines, real, HEAD_DIM, 0, D0, True)
    m = tl.full([BLOCK_M], MASKED_SCORE, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc0 = tl.zeros([BLOCK_M, D0], tl.float32)
    q1, acc1 = q0, m
    if D1 > 0:
        q1 = load_chunk(query + at, lines, real, HEAD_DIM, D0, D1, True)
        acc1 = tl.zeros([BLOCK_M, D1], tl.float32)
    cache = (batch.to(tl.int64) * KV_HEADS + head) * capacity * HEAD_DIM
    keys, values = key_cache + cache, value_cache + cache
    end = tl.minimum(last_position + 1, length)
    whole = tl.minimum(first_position + 1, length) // BLOCK_N * BLOCK_N
    begin = 0
    if WINDOW > 0:
        start = tl.maximum(first_position - WINDOW + 1, 0) // BLOCK_N * BLOCK_N
        begin = tl.cdiv(tl.maximum(last_position - WINDOW + 1, 0), BLOCK_N) * BLOCK_N
        begin = tl.minimum(begin, end)
        m, total, acc0, acc1 = attend(
            m, total, acc0, acc1, q0, q1, positions, keys, values, start, begin, length,
            HEAD_DIM, D0, D1, SCORE_SCALE, CAP_SCALE, WINDOW, BLOCK_N, True,
        )  # fmt: skip
        begin = tl.cdiv(begin, BLOCK_N) * BLOCK_N
    m, total, acc0, acc1 = attend(
        m, total, acc0, acc1, q0, q1, positions, keys, values, begin, whole, length,
        HEAD_DIM, D0, D1, SCORE_SCALE, CAP_SCALE, WINDOW, BLOCK_N, False,
    )  # fmt: skip
    begin = tl.maximum(begin, whole)
    m, total, acc0, acc1 = attend(
        m, total, acc0, acc1, q0, q1, positions, keys, values, begin, end, length,
        HEAD_DIM, D0, D1, SCORE_SCALE, CAP_SCALE, WINDOW, BLOCK_N, True,
    )  # fmt: skip
    factor = VALUE_SCALE / total
    if sinks is not None:
        sink = tl.load(sinks + head * GROUP + rows % GROUP).to(tl.float32) * LOG2_E
        factor = _factor_with_sink(m, total, sink, VALUE_SCALE)
    _store_rows(output + at, acc0 * factor[:, None], lines, real, HEAD_DIM, 0, D0)
    if D1 > 0:
        _store_rows(output + at, acc1 * factor[:, None], lines, real, HEAD_DIM, D0, D1)


@triton.jit
def lepton_attention_decode(
    query, key, value, past_lengths, key_cache, value_cache, sequence, capacity, splits,
    present_key, present_value, partial, partial_lse,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, HEAD_DIM: tl.constexpr,
    D0: tl.constexpr, D1: tl.constexpr,
    SCORE_SCALE: tl.constexpr, CAP_SCALE: tl.constexpr, WINDOW: tl.constexpr,
    KEY_INVERSE: tl.constexpr, VALUE_INVERSE: tl.constexpr, VALUE_SCALE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Few new tokens: one split of the keys. Grid (splits, row tiles * key heads, batch).
    Each split first writes those new keys that fall into its own range, so no split waits for
    another; then it reads its range back. A split without keys says so in ``partial_lse``.
    """
    split, batch = tl.program_id(0), tl.program_id(2)
    head, first_row = tl.program_id(1) % KV_HEADS, tl.program_id(1) // KV_HEADS * BLOCK_M
    past = tl.load(past_lengths + batch)
    length = tl.minimum(past + sequence, capacity)
    rows = first_row + tl.arange(0, BLOCK_M)
    tokens, real = rows // GROUP, rows < sequence * GROUP
    positions = past + tokens
    end = past + tl.minimum((first_row + BLOCK_M - 1) // GROUP, sequence - 1) + 1
    end = tl.minimum(end, length)
    begin = 0
    if WINDOW > 0:
        begin = tl.maximum(past + first_row // GROUP - WINDOW + 1, 0) // BLOCK_N
    share = tl.cdiv(tl.cdiv(end, BLOCK_N) - begin, splits)
    start = (begin + split * share) * BLOCK_N
    end = tl.minimum(start + share * BLOCK_N, end)
    line = (batch.to(tl.int64) * KV_HEADS + head) * splits + split
    line = line * (sequence * GROUP)
    if start >= end:
        tl.store(partial_lse + line + rows, MASKED_SCORE, mask=real)
        return
    # Queries first: they arrive while the new rows are written.
    at = batch.to(tl.int64) * sequence * (KV_HEADS * GROUP * HEAD_DIM)
    lines = tokens * (KV_HEADS * GROUP) + head * GROUP + rows % GROUP
    q0 = load_chunk(query + at, lines, real, HEAD_DIM, 0, D0, True)
    m = tl.full([BLOCK_M], MASKED_SCORE, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc0 = tl.zeros([BLOCK_M, D0], tl.float32)
    q1, acc1 = q0, m
    if D1 > 0:
        q1 = load_chunk(query + at, lines, real, HEAD_DIM, D0, D1, True)
        acc1 = tl.zeros([BLOCK_M, D1], tl.float32)
    cache = (batch.to(tl.int64) * KV_HEADS + head) * capacity * HEAD_DIM
    keys, values = present_key + cache, present_value + cache
    _append_rows(
        key, value, keys, values, batch.to(tl.int64) * sequence * KV_HEADS + head,
        past, tl.maximum(start, past), end, KV_HEADS, HEAD_DIM, D0, D1, KEY_INVERSE, VALUE_INVERSE,
    )  # fmt: skip
    m, total, acc0, acc1 = attend(
        m, total, acc0, acc1, q0, q1, positions, keys, values, start, end, end,
        HEAD_DIM, D0, D1, SCORE_SCALE, CAP_SCALE, WINDOW, BLOCK_N, True,
    )  # fmt: skip
    factor = VALUE_SCALE / total
    here = partial + line * HEAD_DIM
    _store_rows(here, acc0 * factor[:, None], rows, real, HEAD_DIM, 0, D0)
    if D1 > 0:
        _store_rows(here, acc1 * factor[:, None], rows, real, HEAD_DIM, D0, D1)
    tl.store(partial_lse + line + rows, m + tl.log2(total), mask=real)


@triton.jit
def lepton_attention_combine(
    partial, partial_lse, sinks, sequence, splits, output,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, WIDTH: tl.constexpr,
    BLOCK_N: tl.constexpr,
):  # fmt: skip
    """The splits of one row into its output. Grid (tokens * group, key heads, batch)."""
    row, head, batch = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    lines = sequence * GROUP
    at = (batch.to(tl.int64) * KV_HEADS + head) * splits * lines + row
    columns = tl.arange(0, WIDTH)
    m, total = tl.full([], MASKED_SCORE, tl.float32), tl.full([], 0.0, tl.float32)
    if sinks is not None:
        m = tl.load(sinks + head * GROUP + row % GROUP).to(tl.float32) * LOG2_E
        total += 1.0
    acc = tl.zeros([WIDTH], tl.float32)
    for first in range(0, splits, BLOCK_N):
        places = first + tl.arange(0, BLOCK_N)
        lse = tl.load(partial_lse + at + places * lines, mask=places < splits, other=MASKED_SCORE)
        seen = lse > NOTHING_SEEN
        mask = seen[:, None] & (columns < HEAD_DIM)[None, :]
        offsets = (places * lines)[:, None] * HEAD_DIM + columns[None, :]
        part = tl.load(partial + at * HEAD_DIM + offsets, mask=mask, other=0.0)
        highest = tl.maximum(m, tl.max(lse, 0))
        weights = tl.where(seen, tl.exp2(lse - highest), 0.0)
        shrink = tl.exp2(m - highest)
        total = total * shrink + tl.sum(weights, 0)
        acc = acc * shrink + tl.sum(weights[:, None] * part, 0)
        m = highest
    token = batch.to(tl.int64) * sequence + row // GROUP
    target = (token * (KV_HEADS * GROUP) + head * GROUP + row % GROUP) * HEAD_DIM
    tl.store(
        output + target + columns, (acc / total).to(output.dtype.element_ty), columns < HEAD_DIM
    )


@triton.jit
def _factor_with_sink(m, total, sink, VALUE_SCALE: tl.constexpr):
    """What makes of a sum of values their mean, with ``sink`` a score that has no value."""
    highest = tl.maximum(m, sink)
    kept = tl.exp2(m - highest)
    return VALUE_SCALE * kept / (total * kept + tl.exp2(sink - highest))


@triton.jit
def _store_rows(
    pointers, numbers, rows, real, HEAD_DIM: tl.constexpr, AT: tl.constexpr, D: tl.constexpr
):  # fmt: skip
    """Columns ``AT .. AT + D`` of ``rows``, where ``real``."""
    columns = AT + tl.arange(0, D)
    mask = real[:, None] & (columns < HEAD_DIM)[None, :]
    numbers = numbers.to(pointers.dtype.element_ty)
    tl.store(pointers + rows[:, None] * HEAD_DIM + columns[None, :], numbers, mask=mask)


@triton.jit
def _append_rows(
    key, value, keys, values, source, past, first, last,
    KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr,
    KEY_INVERSE: tl.constexpr, VALUE_INVERSE: tl.constexpr,
):  # fmt: skip
    """New rows ``first .. last`` (positions) into this head's cache, visible to the whole block."""
    dtype: tl.constexpr = keys.dtype.element_ty
    columns = tl.arange(0, 2 * D0 if D1 > 0 else D0)
    for slot in range(first, last, APPENDED):
        slots = slot + tl.arange(0, APPENDED)
        mask = (slots < last)[:, None] & (columns < HEAD_DIM)[None, :]
        at = (source + (slots - past)[:, None] * KV_HEADS) * HEAD_DIM + columns[None, :]
        to = slots[:, None] * HEAD_DIM + columns[None, :]
        # Both on their way before either is waited for.
        new_keys, new_values = tl.load(key + at, mask=mask), tl.load(value + at, mask=mask)
        tl.store(keys + to, stored(new_keys, KEY_INVERSE, dtype), mask=mask)
        tl.store(values + to, stored(new_values, VALUE_INVERSE, dtype), mask=mask)
    if first < last:
        tl.debug_barrier()
