"""The loss by its definition, to 40 digits: what float64 is measured against.

It knows a rule only through its line in the case table, and computes the slow way: softmax, the
target row, minus the sum of q log p. Nothing here is shared with the library.
"""

import mpmath
import numpy as np

mpmath.mp.dps = 40


def oracle(case, batch):
    """Loss of every row, or reduced, and the size of the terms it is made of, both float64.

    The size is what a relative error means when terms cancel: the sum of their absolute values.
    """
    rows, sizes = [], []
    for n in np.flatnonzero(batch.counted):
        value, size = row_loss(case, batch, n)
        rows.append(value)
        sizes.append(size)
    if batch.reduction == "none":
        loss, scale = np.zeros(len(batch.logits)), np.zeros(len(batch.logits))
        loss[batch.counted], scale[batch.counted] = (
            [float(v) for v in rows],
            [float(s) for s in sizes],
        )
        return loss, scale
    total = mpmath.fsum(map(mpmath.mpf, batch.row_weights)) if batch.reduction == "mean" else 1
    return np.array(float(mpmath.fsum(rows) / total)), np.array(float(mpmath.fsum(sizes) / total))


def row_loss(case, batch, n):
    k = batch.logits.shape[1]
    classes = [c for c in range(k) if batch.support[n, c]]
    z = {c: mpmath.mpf(float(batch.logits[n, c])) for c in classes}
    top = max(z.values())
    lse = top + mpmath.log(mpmath.fsum(mpmath.exp(v - top) for v in z.values()))
    log_p = {c: v - lse for c, v in z.items()}
    y = (
        list(map(mpmath.mpf, batch.labels[n].tolist()))
        if batch.soft
        else [mpmath.mpf(int(c == batch.labels[n])) for c in range(k)]
    )
    weight = (
        [mpmath.mpf(1)] * k
        if batch.weight is None
        else list(map(mpmath.mpf, batch.weight.tolist()))
    )
    by_row = mpmath.fsum(a * b for a, b in zip(y, weight, strict=True))
    if case.loss is not None:
        (true,) = [c for c in range(k) if y[c]]
        value = by_row * case.loss(mpmath.exp(log_p[true]), mpmath)
        size = abs(value)
    else:
        q = target(case, batch, n, y, classes)
        if batch.weighting == "class":
            parts = [-weight[c] * q[c] * log_p[c] for c in classes]
        else:
            parts = [-by_row * q[c] * log_p[c] for c in classes]
        value, size = mpmath.fsum(parts), mpmath.fsum(map(abs, parts))
    if case.penalty is not None:
        values = list(z.values())
        factor = 1 if batch.weighting == "class" else by_row
        penalty = factor * case.penalty(values, [mpmath.exp(v) for v in log_p.values()], mpmath)
        value += penalty
        size += abs(penalty) + factor * (max(values) - min(values) + 1) / 8
    return value, size


def target(case, batch, n, y, classes):
    """``sum_c y_c ((1 - a_c) e_c + a_c u_c)`` with every ``u_c`` restricted to the classes."""
    k = len(y)
    q = [mpmath.mpf(0)] * k
    given = None
    if batch.prior is not None:
        given = batch.prior[n] if batch.by_row else batch.prior
    for c in range(k):
        if not y[c]:
            continue
        a = case.a(c) if callable(case.a) else case.a
        a = mpmath.mpf(float(batch.alpha[n] if a is None else a))
        u = [mpmath.mpf(float(v)) for v in case.u(c, given)]
        total = mpmath.fsum(u[j] for j in classes)
        q[c] += y[c] * (1 - a)
        for j in classes:
            q[j] += y[c] * a * u[j] / total
    return q
