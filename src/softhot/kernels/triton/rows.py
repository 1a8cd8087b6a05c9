r"""Rows of logits on a GPU: statistics, what a loss makes of them, and the gradient by logit.

The definitions are those of :mod:`softhot.core.row`; rules are unknown here, as in the native
kernel. What differs is that a row is read once, in tiles, and that the label stays out of all sums
until the end. With :math:`m` the largest of the other logits, :math:`R = \sum_{k \ne y} e^{z_k-m}`:

.. math:: \mathrm{lse}(z) - z_y = \log(1 + R e^{m - z_y}), \qquad p_y - 1 = -R e^{m-M} / S

so that a confident row loses no digits. A tile is ``(TILES, LANES, VEC)``: a thread holds
``TILES`` runs of ``VEC`` neighbours, 16 bytes each, and keeps the running maximum and sums of its
lane to itself; threads meet once, at the end of the row. A row that starts anywhere is read from
the 16-byte boundary before it on, so that only its first and last tile are masked.

What a row becomes is a *plan*: ``g_k = e^{z_k - top} (A + B (z_k - top)) + C + D v_k`` with one
value of its own for the label and one added at the first maximum. The gradient kernel reads that
and the logits, once, and writes the gradient, once.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LOW = tl.constexpr(-1e38)  # below every logit, and far enough from -inf to subtract from
INF = tl.constexpr(float("inf"))
NAN = tl.constexpr(float("nan"))
NOWHERE = tl.constexpr(2147483647)

# Where the prior comes from, and what class weights multiply.
UNIFORM, SHARED, BY_CLASS, BY_ROW = 0, 1, 2, 3
UNWEIGHTED, WEIGH_ROWS, WEIGH_TARGET = 0, 1, 2
_SHARED = tl.constexpr(SHARED)
_BY_CLASS = tl.constexpr(BY_CLASS)
_BY_ROW = tl.constexpr(BY_ROW)
_WEIGH_ROWS = tl.constexpr(WEIGH_ROWS)
_WEIGH_TARGET = tl.constexpr(WEIGH_TARGET)

# What is known of a part of a row, in the order it is stored, one line each.
STATISTICS = (
    "top",  # the largest logit but the label's
    "rest",  # the sum of exp(z - top), without the label, like all that follows
    "count",  # how many classes are allowed
    "total",  # the sum of z - top
    "expected",  # the sum of exp(z - top) (z - top)
    "peak",  # the first class with the largest logit
    "mass",  # the sum of u
    "weighted",  # the sum of u w
    "dot",  # the sum of u w (z - top)
    "own",  # 1 if the label is in this part: of it are
    "true",  # its logit,
    "mass_true",  # its u
    "weight_true",  # and its w
)
PLAN = ("top", "a", "b", "c", "d", "label", "peak")
N_STATISTICS = tl.constexpr(len(STATISTICS))


@triton.jit
def _log1p(x):
    """log(1 + x) for x >= 0, exact to the last digits for a small x too."""
    w = x / (2 + x)
    q = w * w
    series = 1 / 15.0 + q / 17
    series = 1 / 13.0 + q * series
    series = 1 / 11.0 + q * series
    series = 1 / 9.0 + q * series
    series = 1 / 7.0 + q * series
    series = 1 / 5.0 + q * series
    series = 1 / 3.0 + q * series
    return tl.where(x <= 1, 2 * w * (1 + q * series), tl.log(1 + x))


@triton.jit
def _skipped(labels, counted, row, ignore, HAS_IGNORE: tl.constexpr, HAS_COUNTED: tl.constexpr):
    """Whether a row does not count."""
    skip = row < 0
    if HAS_IGNORE:
        skip = tl.load(labels + row) == ignore
    if HAS_COUNTED:
        skip = skip | (tl.load(counted + row) == 0)
    return skip


@triton.jit
def _prior_row(prior, row, y, prior_stride, PRIOR: tl.constexpr):
    """Where the prior of a row starts."""
    at = prior
    if PRIOR == _BY_CLASS:  # a label out of range is found out elsewhere
        at = prior + tl.minimum(tl.maximum(y, 0), prior_stride - 1).to(tl.int64) * prior_stride
    if PRIOR == _BY_ROW:
        at = prior + row * prior_stride
    return at


@triton.jit
def _scan(
    logits,
    prior,
    weight,
    base,
    lo,
    hi,
    y,
    first,
    PRIOR: tl.constexpr,
    WEIGHT: tl.constexpr,
    MAX: tl.constexpr,
    EXPECTED: tl.constexpr,
    TILES: tl.constexpr,
    LANES: tl.constexpr,
    VEC: tl.constexpr,
):
    """The statistics of classes ``lo`` to ``hi`` of the row that starts at ``base``, but label y.

    ``prior`` and ``weight`` are those of the class ``first + lo`` on.
    """
    BLOCK: tl.constexpr = TILES * LANES * VEC
    runs = tl.arange(0, TILES)[:, None, None] * (LANES * VEC)
    tile = runs + tl.arange(0, LANES)[None, :, None] * VEC + tl.arange(0, VEC)[None, None, :]
    start = base + lo
    aligned = start // VEC * VEC
    before = (start - aligned).to(tl.int32)  # what lies between the boundary and the row
    top = tl.full([LANES], LOW, tl.float32)
    rest = tl.zeros([LANES], tl.float32)
    count = tl.zeros([LANES], tl.float32)
    total = tl.zeros([LANES], tl.float32)
    expected = tl.zeros([LANES], tl.float32)
    peak = tl.full([LANES], NOWHERE, tl.int32)
    mass = tl.zeros([LANES], tl.float32)
    weighted = tl.zeros([LANES], tl.float32)
    dot = tl.zeros([LANES], tl.float32)
    span = hi - lo + before
    for c in tl.range(0, span, BLOCK):
        k0 = lo - before + c
        k = k0 + tile
        inside = (c >= before) & (c + BLOCK <= span) & ((y < k0) | (y >= k0 + BLOCK))
        if inside:
            x = tl.load(logits + aligned + c + tile).to(tl.float32)
        else:
            valid = (k >= lo) & (k < hi) & (k != y)
            x = tl.load(logits + aligned + c + tile, mask=valid, other=-INF).to(tl.float32)
        here = tl.max(tl.max(x, axis=2), axis=0)
        higher = tl.maximum(top, here)
        lower = top - higher
        d = x - higher[None, :, None]
        e = tl.exp2(d * LOG2E)
        finite = x > -INF
        shrink = tl.exp2(lower * LOG2E)
        if EXPECTED:
            more = tl.sum(tl.sum(tl.where(finite, e * d, 0.0), axis=2), axis=0)
            expected = shrink * (expected + rest * lower) + more
        if MAX:
            at = tl.min(tl.min(tl.where(x == higher[None, :, None], k, NOWHERE), axis=2), axis=0)
            peak = tl.where(here > top, at, peak)
        rest = rest * shrink + tl.sum(tl.sum(e, axis=2), axis=0)
        if PRIOR != 0 or WEIGHT == _WEIGH_TARGET:
            u = tl.where(finite, 1.0, 0.0)
            if PRIOR != 0:
                u = tl.load(prior + first + k, mask=finite, other=0.0)
            v = u
            if WEIGHT == _WEIGH_TARGET:
                v = u * tl.load(weight + first + k, mask=finite, other=0.0)
            product = tl.where(v > 0, v * d, 0.0)
            dot = dot + weighted * lower + tl.sum(tl.sum(product, axis=2), axis=0)
            mass += tl.sum(tl.sum(u, axis=2), axis=0)
            weighted += tl.sum(tl.sum(v, axis=2), axis=0)
        total = total + count * lower + tl.sum(tl.sum(tl.where(finite, d, 0.0), axis=2), axis=0)
        count += tl.sum(tl.sum(finite.to(tl.float32), axis=2), axis=0)
        top = higher
    highest = tl.max(top, axis=0)
    lower = tl.where(count > 0, top - highest, 0.0)
    shrink = tl.exp2(lower * LOG2E)
    peak = tl.min(tl.where(top == highest, peak, NOWHERE), axis=0)
    expected = tl.sum(shrink * (expected + rest * lower), axis=0)
    dot = tl.sum(dot + weighted * lower, axis=0)
    total = tl.sum(total + count * lower, axis=0)
    rest = tl.sum(rest * shrink, axis=0)
    count = tl.sum(count, axis=0)
    mass = tl.sum(mass, axis=0)
    weighted = tl.sum(weighted, axis=0)
    return highest, rest, count, total, expected, peak, mass, weighted, dot


@triton.jit
def _label(
    logits,
    prior,
    weight,
    base,
    k,
    y,
    first,
    PRIOR: tl.constexpr,
    WEIGHT: tl.constexpr,
):
    """Of a label y among the ``k`` classes here: whether it is, its logit, u and w."""
    own = (y >= 0) & (y < k)
    true = tl.load(logits + base + y, mask=own, other=-INF).to(tl.float32)
    mass = 1.0
    if PRIOR != 0:
        mass = tl.load(prior + first + y, mask=own, other=0.0)
    by = 1.0
    if WEIGHT != 0:
        by = tl.load(weight + first + y, mask=own, other=0.0)
    return own.to(tl.float32), true, mass, by


@triton.jit
def _finish(
    top,
    rest,
    count,
    total,
    expected,
    peak,
    mass,
    weighted,
    dot,
    own,
    true,
    mass_true,
    weight_true,
    y,
    share,
    others,
    by_lse,
    by_mean,
    by_expected,
    by_square,
    PRIOR: tl.constexpr,
    WEIGHT: tl.constexpr,
    MAX: tl.constexpr,
    EXPECTED: tl.constexpr,
):
    """Loss and plan of a row, or of many, from the statistics of all of its classes.

    A share ``share`` of the target goes to the prior; of ``others`` 1 it is meant for the wrong
    classes only. ``by_square`` multiplies the square of lse(z) itself (z-loss).
    """
    alone = count == 0
    masked = true == -INF
    peak = tl.where((true > top) | ((true == top) & (y < peak)), y, peak)
    highest = tl.maximum(tl.where(alone, LOW, top), true)
    lower = tl.where(alone, 0.0, top - highest)
    at_true = tl.where(masked, 0.0, true - highest)
    exp_true = tl.where(masked, 0.0, tl.exp2(at_true * LOG2E))
    shrink = tl.exp2(lower * LOG2E)
    others_sum = rest * shrink
    sum = others_sum + exp_true
    lse = tl.where(at_true == 0, _log1p(others_sum), tl.log(sum))
    n = count + tl.where(masked, 0.0, 1.0)
    mean = (total + count * lower + at_true) / n
    share = tl.where(others > 0, share * n / tl.maximum(n - 1, 1.0), share)
    keep = 1 - share
    moved = share  # the mass of the target beside the label
    toward = mean
    d = top * 0.0
    flat = by_mean / n
    value_true = 0.0
    if PRIOR != 0 or WEIGHT == _WEIGH_TARGET:
        value_true = mass_true
        if WEIGHT == _WEIGH_TARGET:
            value_true = mass_true * weight_true
            keep = keep * weight_true
        value_true = tl.where(masked, 0.0, value_true)
        all_mass = mass + tl.where(masked, 0.0, mass_true)
        toward = (dot + weighted * lower + value_true * at_true) / all_mass
        if WEIGHT == _WEIGH_TARGET:
            moved = share * (weighted + value_true) / all_mass
        d = -share / all_mass
    else:
        flat = flat - share / n
    mean_part = tl.where(by_mean == 0, 0.0, by_mean * mean)
    loss = (keep + moved) * lse - keep * at_true + by_lse * lse + mean_part
    loss -= tl.where(share == 0, 0.0, share * toward)
    whole = tl.where(by_square == 0, 0.0, lse + highest)
    loss += by_square * whole * whole
    extra = by_lse + 2 * by_square * whole
    slope = keep + moved + extra
    over = 1 / sum
    label = moved - (keep + moved) * others_sum * over + extra * exp_true * over + flat
    label += d * value_true
    b = top * 0.0
    if EXPECTED:
        inner = expected + rest * lower
        average = (inner * shrink + exp_true * at_true) * over
        loss += by_expected * average
        label += by_expected * exp_true * over * (1 + at_true - average)
        slope += by_expected * (1 - average)
        b = by_expected * over
    loss = tl.where(masked, INF, loss)
    loss = tl.where(own > 0, loss, NAN)  # no such class
    if WEIGHT == _WEIGH_ROWS:
        loss *= weight_true
    label = tl.where(masked, 0.0, label)
    return loss, highest, slope * over, b, flat, d, label, peak


@triton.jit
def _store_plan(plan, row, n, mask, highest, a, b, c, d, label, peak):
    at = plan + row
    tl.store(at, highest, mask=mask)
    tl.store(at + n, a, mask=mask)
    tl.store(at + 2 * n, b, mask=mask)
    tl.store(at + 3 * n, c, mask=mask)
    tl.store(at + 4 * n, d, mask=mask)
    tl.store(at + 5 * n, label, mask=mask)
    tl.store(at + 6 * n, peak.to(tl.float32), mask=mask)


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
    if _skipped(labels, counted, row, ignore, HAS_IGNORE, HAS_COUNTED):
        return
    label = tl.load(labels + row)
    prior = _prior_row(prior, row, label, prior_stride, PRIOR)
    y = tl.minimum(tl.maximum(label - first, -1), k).to(tl.int32)
    base = row * stride
    lo = part * width
    hi = tl.minimum(lo + width, k)
    top, rest, count, total, expected, peak, mass, weighted, dot = _scan(
        logits, prior, weight, base, lo, hi, y, first,
        PRIOR, WEIGHT, MAX, EXPECTED, TILES, LANES, VEC,
    )  # fmt: skip
    own, true, mass_true, weight_true = _label(
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
        if PRIOR != 0 or WEIGHT == _WEIGH_TARGET:
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
    value, highest, a, b, c, d, at_label, peak = _finish(
        top, rest, count, total, expected, peak, mass, weighted, dot,
        own, true, mass_true, weight_true, y,
        share, others, by_lse, by_mean, by_expected, by_square, PRIOR, WEIGHT, MAX, EXPECTED,
    )  # fmt: skip
    tl.store(loss + row, tl.where(skip, 0.0, value), mask=inside)
    _store_plan(plan, row, n, read, highest, a, b, c, d, at_label, peak)


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
    if _skipped(labels, counted, row, ignore, HAS_IGNORE, HAS_COUNTED):
        tl.store(loss + row, 0.0)
        return
    label = tl.load(labels + row)
    prior = _prior_row(prior, row, label, prior_stride, PRIOR)
    y = tl.minimum(tl.maximum(label, -1), k).to(tl.int32)
    base = row * stride
    top, rest, count, total, expected, peak, mass, weighted, dot = _scan(
        logits, prior, weight, base, 0, k, y, 0,
        PRIOR, WEIGHT, MAX, EXPECTED, TILES, LANES, VEC,
    )  # fmt: skip
    own, true, mass_true, weight_true = _label(logits, prior, weight, base, k, y, 0, PRIOR, WEIGHT)
    if HAS_ALPHA:
        share = tl.load(alpha + row)
    value, highest, a, b, c, d, at_label, peak = _finish(
        top, rest, count, total, expected, peak, mass, weighted, dot,
        own, true, mass_true, weight_true, y,
        share, others, by_lse, by_mean, by_expected, by_square, PRIOR, WEIGHT, MAX, EXPECTED,
    )  # fmt: skip
    tl.store(loss + row, value)
    _store_plan(plan, row, n, True, highest, a, b, c, d, at_label, peak)


@triton.jit
def _factor(
    upstream,
    divisor,
    weight,
    row,
    label,
    classes,
    upstream_stride,
    WEIGHT: tl.constexpr,
    HAS_DIVISOR: tl.constexpr,
):
    """What the gradient of a row is multiplied by."""
    by = tl.load(upstream + row * upstream_stride).to(tl.float32)
    if HAS_DIVISOR:
        by = by / tl.load(divisor)
    if WEIGHT == _WEIGH_ROWS:
        by *= tl.load(weight + label, mask=(label >= 0) & (label < classes), other=0.0)
    return by


@triton.jit
def _slope(x, k, y, by, highest, a, b, c, d, label, peak, by_max, prior, weight, first, edge,
           PRIOR: tl.constexpr, WEIGHT: tl.constexpr, MAX: tl.constexpr,
           EXPECTED: tl.constexpr):  # fmt: skip
    """The gradient of a tile of logits."""
    s = x - highest
    e = tl.exp2(s * LOG2E)
    g = e * a + c
    finite = x > -INF
    if EXPECTED:
        g = e * (a + b * s) + c
    if PRIOR != 0 or WEIGHT == _WEIGH_TARGET:
        v = tl.where(finite, 1.0, 0.0)
        if PRIOR != 0:
            v = tl.load(prior + first + k, mask=finite, other=0.0)
        if WEIGHT == _WEIGH_TARGET:
            v *= tl.load(weight + first + k, mask=finite, other=0.0)
        g += d * v
    g = tl.where(x == -INF, 0.0, g)
    if edge:
        g = tl.where(k == y, label, g)
    if MAX:
        g = tl.where(k + first == peak, g + by_max, g)
    return g * by


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
    if _skipped(labels, counted, row, ignore, HAS_IGNORE, HAS_COUNTED):
        valid = (k_tile >= 0) & (k_tile < k)
        tl.store(out + aligned + tile, tl.zeros([BLOCK], tl.float32), mask=valid)
    else:
        label = tl.load(labels + row)
        prior = _prior_row(prior, row, label, prior_stride, PRIOR)
        y = tl.minimum(tl.maximum(label - first, -1), k).to(tl.int32)
        at = plan + row
        highest = tl.load(at)
        a = tl.load(at + n)
        b = tl.load(at + 2 * n)
        c = tl.load(at + 3 * n)
        d = tl.load(at + 4 * n)
        at_label = tl.load(at + 5 * n)
        peak = tl.load(at + 6 * n).to(tl.int32)
        by = _factor(
            upstream, divisor, weight, row, label, classes, upstream_stride, WEIGHT, HAS_DIVISOR
        )
        if inside:
            x = tl.load(logits + aligned + tile).to(tl.float32)
            g = _slope(
                x, k_tile, y, by, highest, a, b, c, d, at_label, peak, by_max,
                prior, weight, first, (y >= c0 - before) & (y < c0 - before + BLOCK),
                PRIOR, WEIGHT, MAX, EXPECTED,
            )  # fmt: skip
            tl.store(out + aligned + tile, g)
        else:
            valid = (k_tile >= 0) & (k_tile < k)
            x = tl.load(logits + aligned + tile, mask=valid, other=-INF).to(tl.float32)
            g = _slope(
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
        if _skipped(labels, counted, row, ignore, HAS_IGNORE, HAS_COUNTED):
            tl.store(loss + row, 0.0)
            for c in tl.range(0, k + before, BLOCK):
                k_tile = c + tile - before
                valid = (k_tile >= 0) & (k_tile < k)
                zeros = tl.zeros([BLOCK], tl.float32)
                tl.store(logits + aligned + c + tile, zeros, mask=valid)
        else:
            label = tl.load(labels + row)
            own_prior = _prior_row(prior, row, label, prior_stride, PRIOR)
            y = tl.minimum(tl.maximum(label, -1), k).to(tl.int32)
            top, rest, count, total, expected, peak, mass, weighted, dot = _scan(
                logits, own_prior, weight, base, 0, k, y, 0,
                PRIOR, WEIGHT, MAX, EXPECTED, TILES, LANES, VEC,
            )  # fmt: skip
            own, true, mass_true, weight_true = _label(
                logits, own_prior, weight, base, k, y, 0, PRIOR, WEIGHT
            )
            own_share = share
            if HAS_ALPHA:
                own_share = tl.load(alpha + row)
            value, highest, a, b, c1, d, at_label, peak = _finish(
                top, rest, count, total, expected, peak, mass, weighted, dot,
                own, true, mass_true, weight_true, y,
                own_share, others, by_lse, by_mean, by_expected, by_square,
                PRIOR, WEIGHT, MAX, EXPECTED,
            )  # fmt: skip
            tl.store(loss + row, value)
            by = _factor(
                upstream, divisor, weight, row, label, k, upstream_stride, WEIGHT, HAS_DIVISOR
            )
            tl.debug_barrier()  # the label's logit is read before it is written over
            for c in tl.range(0, k + before, BLOCK):
                k_tile = c + tile - before
                if (c >= before) & (c + BLOCK <= k + before):
                    x = tl.load(logits + aligned + c + tile).to(tl.float32)
                    g = _slope(
                        x, k_tile, y, by, highest, a, b, c1, d, at_label, peak, by_max,
                        own_prior, weight, 0, True, PRIOR, WEIGHT, MAX, EXPECTED,
                    )  # fmt: skip
                    tl.store(logits + aligned + c + tile, g)
                else:
                    valid = (k_tile >= 0) & (k_tile < k)
                    at = logits + aligned + c + tile
                    x = tl.load(at, mask=valid, other=-INF).to(tl.float32)
                    g = _slope(
                        x, k_tile, y, by, highest, a, b, c1, d, at_label, peak, by_max,
                        own_prior, weight, 0, True, PRIOR, WEIGHT, MAX, EXPECTED,
                    )  # fmt: skip
                    tl.store(at, g, mask=valid)
        row += tl.num_programs(0)


@triton.jit
def scale(values, factor, size, BLOCK: tl.constexpr):
    """Multiply in place by one number on the device; by 1 nothing is read or written."""
    by = tl.load(factor).to(tl.float32)
    if by != 1:
        at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        x = tl.load(values + at, mask=at < size)
        tl.store(values + at, x.to(tl.float32) * by, mask=at < size)
