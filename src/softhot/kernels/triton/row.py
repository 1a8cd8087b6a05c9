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
IS_BY_CLASS = tl.constexpr(BY_CLASS)
IS_BY_ROW = tl.constexpr(BY_ROW)
IS_WEIGH_ROWS = tl.constexpr(WEIGH_ROWS)
IS_WEIGH_TARGET = tl.constexpr(WEIGH_TARGET)

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
def log1p(x):
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
def skipped(labels, counted, row, ignore, HAS_IGNORE: tl.constexpr, HAS_COUNTED: tl.constexpr):
    """Whether a row does not count."""
    skip = row < 0
    if HAS_IGNORE:
        skip = tl.load(labels + row) == ignore
    if HAS_COUNTED:
        skip = skip | (tl.load(counted + row) == 0)
    return skip


@triton.jit
def prior_row(prior, row, y, prior_stride, PRIOR: tl.constexpr):
    """Where the prior of a row starts."""
    at = prior
    if PRIOR == IS_BY_CLASS:  # a label out of range is found out elsewhere
        at = prior + tl.minimum(tl.maximum(y, 0), prior_stride - 1).to(tl.int64) * prior_stride
    if PRIOR == IS_BY_ROW:
        at = prior + row * prior_stride
    return at


@triton.jit
def scan(
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
        if PRIOR != 0 or WEIGHT == IS_WEIGH_TARGET:
            u = tl.where(finite, 1.0, 0.0)
            if PRIOR != 0:
                u = tl.load(prior + first + k, mask=finite, other=0.0)
            v = u
            if WEIGHT == IS_WEIGH_TARGET:
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
def label_of(
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
def finish_row(
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
    lse = tl.where(at_true == 0, log1p(others_sum), tl.log(sum))
    n = count + tl.where(masked, 0.0, 1.0)
    mean = (total + count * lower + at_true) / n
    share = tl.where(others > 0, share * n / tl.maximum(n - 1, 1.0), share)
    keep = 1 - share
    moved = share  # the mass of the target beside the label
    toward = mean
    d = top * 0.0
    flat = by_mean / n
    value_true = 0.0
    if PRIOR != 0 or WEIGHT == IS_WEIGH_TARGET:
        value_true = mass_true
        if WEIGHT == IS_WEIGH_TARGET:
            value_true = mass_true * weight_true
            keep = keep * weight_true
        value_true = tl.where(masked, 0.0, value_true)
        all_mass = mass + tl.where(masked, 0.0, mass_true)
        toward = (dot + weighted * lower + value_true * at_true) / all_mass
        if WEIGHT == IS_WEIGH_TARGET:
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
    if WEIGHT == IS_WEIGH_ROWS:
        loss *= weight_true
    label = tl.where(masked, 0.0, label)
    return loss, highest, slope * over, b, flat, d, label, peak


@triton.jit
def whole_row(logits, prior, weight, base, k, y, share, others, by_lse, by_mean, by_expected,
              by_square, PRIOR: tl.constexpr, WEIGHT: tl.constexpr, MAX: tl.constexpr,
              EXPECTED: tl.constexpr, TILES: tl.constexpr, LANES: tl.constexpr,
              VEC: tl.constexpr):  # fmt: skip
    """Loss and plan of a row all of whose ``k`` classes are here, from ``base`` on."""
    top, rest, count, total, expected, peak, mass, weighted, dot = scan(
        logits, prior, weight, base, 0, k, y, 0,
        PRIOR, WEIGHT, MAX, EXPECTED, TILES, LANES, VEC,
    )  # fmt: skip
    own, true, mass_true, weight_true = label_of(
        logits, prior, weight, base, k, y, 0, PRIOR, WEIGHT
    )
    return finish_row(
        top, rest, count, total, expected, peak, mass, weighted, dot,
        own, true, mass_true, weight_true, y,
        share, others, by_lse, by_mean, by_expected, by_square, PRIOR, WEIGHT, MAX, EXPECTED,
    )  # fmt: skip


@triton.jit
def store_plan(plan, row, n, mask, highest, a, b, c, d, label, peak):
    """The plan of a row, or of many."""
    at = plan + row
    tl.store(at, highest, mask=mask)
    tl.store(at + n, a, mask=mask)
    tl.store(at + 2 * n, b, mask=mask)
    tl.store(at + 3 * n, c, mask=mask)
    tl.store(at + 4 * n, d, mask=mask)
    tl.store(at + 5 * n, label, mask=mask)
    tl.store(at + 6 * n, peak.to(tl.float32), mask=mask)


@triton.jit
def factor(
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
    if WEIGHT == IS_WEIGH_ROWS:
        by *= tl.load(weight + label, mask=(label >= 0) & (label < classes), other=0.0)
    return by


@triton.jit
def slope(x, k, y, by, highest, a, b, c, d, label, peak, by_max, prior, weight, first, edge,
           PRIOR: tl.constexpr, WEIGHT: tl.constexpr, MAX: tl.constexpr,
           EXPECTED: tl.constexpr):  # fmt: skip
    """The gradient of a tile of logits."""
    s = x - highest
    e = tl.exp2(s * LOG2E)
    g = e * a + c
    finite = x > -INF
    if EXPECTED:
        g = e * (a + b * s) + c
    if PRIOR != 0 or WEIGHT == IS_WEIGH_TARGET:
        v = tl.where(finite, 1.0, 0.0)
        if PRIOR != 0:
            v = tl.load(prior + first + k, mask=finite, other=0.0)
        if WEIGHT == IS_WEIGH_TARGET:
            v *= tl.load(weight + first + k, mask=finite, other=0.0)
        g += d * v
    g = tl.where(x == -INF, 0.0, g)
    if edge:
        g = tl.where(k == y, label, g)
    if MAX:
        g = tl.where(k + first == peak, g + by_max, g)
    return g * by
