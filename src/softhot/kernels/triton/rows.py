"""The kernels over rows of logits: grids, pointers and stores around :mod:`.row`."""

import triton
import triton.language as tl

from softhot.kernels.triton.row import (
    INF,
    IS_WEIGH_TARGET,
    LOG2E,
    LOW,
    N_STATISTICS,
    NOWHERE,
    factor,
    finish_row,
    label_of,
    prior_row,
    scan,
    skipped,
    slope,
    store_plan,
    whole_row,
)


@triton.jit(do_not_specialize=["n", "first", "ignore"])
def statistics(
    logits,
    labels,
    counted,
    prior,
    weight,
    out,
    n,
    k,
    stride,
    prior_stride,
    width,
    first,
    ignore,
    HAS_IGNORE: tl.constexpr,
    HAS_COUNTED: tl.constexpr,
    PRIOR: tl.constexpr,
    WEIGHT: tl.constexpr,
    MAX: tl.constexpr,
    EXPECTED: tl.constexpr,
    TILES: tl.constexpr,
    LANES: tl.constexpr,
    VEC: tl.constexpr,
):
    """What ``width`` classes of a row come to: ``out`` is ``(parts, STATISTICS, n)``.

    The classes here are ``first`` to ``first + k`` of all. Grid: (rows, parts of a row).
    """
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    if skipped(labels, counted, row, ignore, HAS_IGNORE, HAS_COUNTED):
        return
    label = tl.load(labels + row)
    prior = prior_row(prior, row, label, prior_stride, PRIOR)
    y = tl.minimum(tl.maximum(label - first, -1), k).to(tl.int32)
    base = row * stride
    lo = part * width
    hi = tl.minimum(lo + width, k)
    top, rest, count, total, expected, peak, mass, weighted, dot = scan(
        logits, prior, weight, base, lo, hi, y, first,
        PRIOR, WEIGHT, MAX, EXPECTED, TILES, LANES, VEC,
    )  # fmt: skip
    own, true, mass_true, weight_true = label_of(
        logits, prior, weight, base, k, y, first, PRIOR, WEIGHT
    )
    own = tl.where((y >= lo) & (y < hi), own, 0.0)
    at = out + part.to(tl.int64) * N_STATISTICS * n + row
    tl.store(at, top)
    tl.store(at + n, rest)
    tl.store(at + 2 * n, count)
    tl.store(at + 3 * n, total)
    tl.store(at + 4 * n, expected)
    tl.store(at + 5 * n, (first + peak).to(tl.float32))
    tl.store(at + 6 * n, mass)
    tl.store(at + 7 * n, weighted)
    tl.store(at + 8 * n, dot)
    tl.store(at + 9 * n, own)
    tl.store(at + 10 * n, tl.where(own > 0, true, 0.0))
    tl.store(at + 11 * n, mass_true * own)
    tl.store(at + 12 * n, weight_true * own)


@triton.jit(do_not_specialize=["n", "number", "ignore"])
def finish(
    parts,
    labels,
    counted,
    alpha,
    loss,
    plan,
    n,
    number,
    ignore,
    share,
    others,
    by_lse,
    by_mean,
    by_expected,
    by_square,
    HAS_IGNORE: tl.constexpr,
    HAS_COUNTED: tl.constexpr,
    HAS_ALPHA: tl.constexpr,
    PRIOR: tl.constexpr,
    WEIGHT: tl.constexpr,
    MAX: tl.constexpr,
    EXPECTED: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Merge the ``number`` parts of every row; loss ``(n,)`` and plan ``(PLAN, n)``."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row < n
    label = tl.load(labels + row, mask=inside, other=0)
    skip = row < 0
    if HAS_IGNORE:
        skip = label == ignore
    if HAS_COUNTED:
        skip = skip | (tl.load(counted + row, mask=inside, other=1) == 0)
    if HAS_ALPHA:
        share = tl.load(alpha + row, mask=inside, other=0.0)
    top = tl.full([ROWS], LOW, tl.float32)
    rest = tl.zeros([ROWS], tl.float32)
    count = tl.zeros([ROWS], tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    expected = tl.zeros([ROWS], tl.float32)
    peak = tl.full([ROWS], NOWHERE, tl.int32)
    mass = tl.zeros([ROWS], tl.float32)
    weighted = tl.zeros([ROWS], tl.float32)
    dot = tl.zeros([ROWS], tl.float32)
    own = tl.zeros([ROWS], tl.float32)
    true = tl.zeros([ROWS], tl.float32)
    mass_true = tl.zeros([ROWS], tl.float32)
    weight_true = tl.zeros([ROWS], tl.float32)
    read = inside & (skip == 0)
    at = parts + row
    for _ in tl.range(0, number):
        here = tl.load(at, mask=read, other=LOW)
        rest1 = tl.load(at + n, mask=read, other=0.0)
        count1 = tl.load(at + 2 * n, mask=read, other=0.0)
        higher = tl.maximum(top, here)
        lower = tl.where(count > 0, top - higher, 0.0)
        lower1 = tl.where(count1 > 0, here - higher, 0.0)
        shrink, shrink1 = tl.exp2(lower * LOG2E), tl.exp2(lower1 * LOG2E)
        total = total + count * lower
        total += tl.load(at + 3 * n, mask=read, other=0.0) + count1 * lower1
        if EXPECTED:
            expected1 = tl.load(at + 4 * n, mask=read, other=0.0)
            expected = shrink * (expected + rest * lower) + shrink1 * (expected1 + rest1 * lower1)
        if MAX:
            peak1 = tl.load(at + 5 * n, mask=read, other=0.0).to(tl.int32)
            peak = tl.where((here > top) & (count1 > 0), peak1, peak)
        if PRIOR != 0 or WEIGHT == IS_WEIGH_TARGET:
            weighted1 = tl.load(at + 7 * n, mask=read, other=0.0)
            dot += weighted * lower + weighted1 * lower1
            dot += tl.load(at + 8 * n, mask=read, other=0.0)
            mass += tl.load(at + 6 * n, mask=read, other=0.0)
            weighted += weighted1
        rest = rest * shrink + rest1 * shrink1
        count += count1
        top = higher
        own += tl.load(at + 9 * n, mask=read, other=0.0)
        true += tl.load(at + 10 * n, mask=read, other=0.0)
        mass_true += tl.load(at + 11 * n, mask=read, other=0.0)
        weight_true += tl.load(at + 12 * n, mask=read, other=0.0)
        at += N_STATISTICS * n
    y = label.to(tl.int32)
    value, highest, a, b, c, d, at_label, peak = finish_row(
        top, rest, count, total, expected, peak, mass, weighted, dot,
        own, true, mass_true, weight_true, y,
        share, others, by_lse, by_mean, by_expected, by_square, PRIOR, WEIGHT, MAX, EXPECTED,
    )  # fmt: skip
    tl.store(loss + row, tl.where(skip, 0.0, value), mask=inside)
    store_plan(plan, row, n, read, highest, a, b, c, d, at_label, peak)


@triton.jit(do_not_specialize=["n", "ignore"])
def forward(
    logits,
    labels,
    counted,
    prior,
    weight,
    alpha,
    loss,
    plan,
    n,
    k,
    stride,
    prior_stride,
    ignore,
    share,
    others,
    by_lse,
    by_mean,
    by_expected,
    by_square,
    HAS_IGNORE: tl.constexpr,
    HAS_COUNTED: tl.constexpr,
    HAS_ALPHA: tl.constexpr,
    PRIOR: tl.constexpr,
    WEIGHT: tl.constexpr,
    MAX: tl.constexpr,
    EXPECTED: tl.constexpr,
    TILES: tl.constexpr,
    LANES: tl.constexpr,
    VEC: tl.constexpr,
):
    """Loss and plan of whole rows in one go: :func:`statistics` and :func:`finish`."""
    row = tl.program_id(0).to(tl.int64)
    if skipped(labels, counted, row, ignore, HAS_IGNORE, HAS_COUNTED):
        tl.store(loss + row, 0.0)
        return
    label = tl.load(labels + row)
    prior = prior_row(prior, row, label, prior_stride, PRIOR)
    y = tl.minimum(tl.maximum(label, -1), k).to(tl.int32)
    if HAS_ALPHA:
        share = tl.load(alpha + row)
    value, highest, a, b, c, d, at_label, peak = whole_row(
        logits, prior, weight, row * stride, k, y,
        share, others, by_lse, by_mean, by_expected, by_square,
        PRIOR, WEIGHT, MAX, EXPECTED, TILES, LANES, VEC,
    )  # fmt: skip
    tl.store(loss + row, value)
    store_plan(plan, row, n, True, highest, a, b, c, d, at_label, peak)


@triton.jit(do_not_specialize=["n", "first", "classes", "blocks", "ignore"])
def gradient(
    logits,
    labels,
    counted,
    prior,
    weight,
    plan,
    upstream,
    divisor,
    out,
    n,
    k,
    stride,
    prior_stride,
    first,
    classes,
    blocks,
    upstream_stride,
    ignore,
    by_max,
    HAS_IGNORE: tl.constexpr,
    HAS_COUNTED: tl.constexpr,
    HAS_DIVISOR: tl.constexpr,
    PRIOR: tl.constexpr,
    WEIGHT: tl.constexpr,
    MAX: tl.constexpr,
    EXPECTED: tl.constexpr,
    BLOCK: tl.constexpr,
    VEC: tl.constexpr,
):
    """``out``, with the strides of ``logits`` or in their place. Grid: rows times blocks."""
    program = tl.program_id(0)
    row = (program // blocks).to(tl.int64)
    start = row * stride
    aligned = start // VEC * VEC
    before = (start - aligned).to(tl.int32)
    c0 = (program % blocks) * BLOCK
    tile = c0 + tl.arange(0, BLOCK)
    k_tile = tile - before
    inside = (c0 >= before) & (c0 + BLOCK <= k + before)
    if skipped(labels, counted, row, ignore, HAS_IGNORE, HAS_COUNTED):
        valid = (k_tile >= 0) & (k_tile < k)
        tl.store(out + aligned + tile, tl.zeros([BLOCK], tl.float32), mask=valid)
    else:
        label = tl.load(labels + row)
        prior = prior_row(prior, row, label, prior_stride, PRIOR)
        y = tl.minimum(tl.maximum(label - first, -1), k).to(tl.int32)
        at = plan + row
        highest = tl.load(at)
        a = tl.load(at + n)
        b = tl.load(at + 2 * n)
        c = tl.load(at + 3 * n)
        d = tl.load(at + 4 * n)
        at_label = tl.load(at + 5 * n)
        peak = tl.load(at + 6 * n).to(tl.int32)
        by = factor(
            upstream, divisor, weight, row, label, classes, upstream_stride, WEIGHT, HAS_DIVISOR
        )
        if inside:
            x = tl.load(logits + aligned + tile).to(tl.float32)
            g = slope(
                x, k_tile, y, by, highest, a, b, c, d, at_label, peak, by_max,
                prior, weight, first, (y >= c0 - before) & (y < c0 - before + BLOCK),
                PRIOR, WEIGHT, MAX, EXPECTED,
            )  # fmt: skip
            tl.store(out + aligned + tile, g)
        else:
            valid = (k_tile >= 0) & (k_tile < k)
            x = tl.load(logits + aligned + tile, mask=valid, other=-INF).to(tl.float32)
            g = slope(
                x, k_tile, y, by, highest, a, b, c, d, at_label, peak, by_max,
                prior, weight, first, True, PRIOR, WEIGHT, MAX, EXPECTED,
            )  # fmt: skip
            tl.store(out + aligned + tile, g, mask=valid)


@triton.jit(do_not_specialize=["n", "ignore"])
def in_place(
    logits,
    labels,
    counted,
    prior,
    weight,
    alpha,
    loss,
    upstream,
    divisor,
    n,
    k,
    stride,
    prior_stride,
    upstream_stride,
    ignore,
    share,
    others,
    by_lse,
    by_mean,
    by_max,
    by_expected,
    by_square,
    HAS_IGNORE: tl.constexpr,
    HAS_COUNTED: tl.constexpr,
    HAS_ALPHA: tl.constexpr,
    HAS_DIVISOR: tl.constexpr,
    PRIOR: tl.constexpr,
    WEIGHT: tl.constexpr,
    MAX: tl.constexpr,
    EXPECTED: tl.constexpr,
    TILES: tl.constexpr,
    LANES: tl.constexpr,
    VEC: tl.constexpr,
):
    """Loss, and the gradient where the logits were.

    A program goes through rows one after the other, and there are only so many programs that
    their rows stay in the L2 cache until they are read for the second time.
    """
    BLOCK: tl.constexpr = TILES * LANES * VEC // 2 if TILES > 1 else LANES * VEC
    tile = tl.arange(0, BLOCK)
    row = tl.program_id(0).to(tl.int64)
    for _ in tl.range(tl.program_id(0), n, tl.num_programs(0)):
        base = row * stride
        aligned = base // VEC * VEC
        before = (base - aligned).to(tl.int32)
        if skipped(labels, counted, row, ignore, HAS_IGNORE, HAS_COUNTED):
            tl.store(loss + row, 0.0)
            for c in tl.range(0, k + before, BLOCK):
                k_tile = c + tile - before
                valid = (k_tile >= 0) & (k_tile < k)
                zeros = tl.zeros([BLOCK], tl.float32)
                tl.store(logits + aligned + c + tile, zeros, mask=valid)
        else:
            label = tl.load(labels + row)
            own_prior = prior_row(prior, row, label, prior_stride, PRIOR)
            y = tl.minimum(tl.maximum(label, -1), k).to(tl.int32)
            own_share = share
            if HAS_ALPHA:
                own_share = tl.load(alpha + row)
            value, highest, a, b, c1, d, at_label, peak = whole_row(
                logits, own_prior, weight, base, k, y,
                own_share, others, by_lse, by_mean, by_expected, by_square,
                PRIOR, WEIGHT, MAX, EXPECTED, TILES, LANES, VEC,
            )  # fmt: skip
            tl.store(loss + row, value)
            by = factor(
                upstream, divisor, weight, row, label, k, upstream_stride, WEIGHT, HAS_DIVISOR
            )
            tl.debug_barrier()  # the label's logit is read before it is written over
            for c in tl.range(0, k + before, BLOCK):
                k_tile = c + tile - before
                if (c >= before) & (c + BLOCK <= k + before):
                    x = tl.load(logits + aligned + c + tile).to(tl.float32)
                    g = slope(
                        x, k_tile, y, by, highest, a, b, c1, d, at_label, peak, by_max,
                        own_prior, weight, 0, True, PRIOR, WEIGHT, MAX, EXPECTED,
                    )  # fmt: skip
                    tl.store(logits + aligned + c + tile, g)
                else:
                    valid = (k_tile >= 0) & (k_tile < k)
                    at = logits + aligned + c + tile
                    x = tl.load(at, mask=valid, other=-INF).to(tl.float32)
                    g = slope(
                        x, k_tile, y, by, highest, a, b, c1, d, at_label, peak, by_max,
                        own_prior, weight, 0, True, PRIOR, WEIGHT, MAX, EXPECTED,
                    )  # fmt: skip
                    tl.store(at, g, mask=valid)
        row += tl.num_programs(0)


@triton.jit
def scale(values, by, size, BLOCK: tl.constexpr):
    """Multiply in place by one number on the device; by 1 nothing is read or written."""
    number = tl.load(by).to(tl.float32)
    if number != 1:
        at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        x = tl.load(values + at, mask=at < size)
        tl.store(values + at, x.to(tl.float32) * number, mask=at < size)
