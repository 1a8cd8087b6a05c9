"""What smoothing will do to confidence, foreseen from a model that was trained without it.

Training is what tells; this tells what to expect of it, from held-out predictions alone: whether
smoothing can calibrate, with which alpha, and whether temperature scaling makes the question moot.
How far off it has been, study by study, is in docs/forecast.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from softhot.calibration import cross_fitted
from softhot.core.check import InputError, Interval
from softhot.metrics import Predictions, Rows, accuracy, check_predictions, ece

ALPHA = Interval(0, 1, "()")
WORTH = 0.005  # of ECE: a smaller difference is not worth a training
ALPHAS = (0.02, 0.05, 0.1, 0.2, 0.4)
# All three measured by `python -m docs.forecast`, which writes docs/forecast.md.
QUANTILE = 0.9  # of the held-out logit gaps: the rows that look like those of training
EXPONENT = 0.7  # how much of the way to the optimum of the loss their logits shrink
ERROR = 0.05  # mean absolute error of the mean confidence, on studies that took no part


@dataclass(frozen=True)
class Outlook:
    """What to expect at one alpha: means over rows, as :mod:`softhot.metrics` defines them."""

    alpha: float
    confidence: float
    gap: float
    ece: float


@dataclass(frozen=True)
class Forecast:
    """What :func:`forecast` foresees.

    Attributes:
        baseline: as it is, alpha 0.
        smoothed: what to expect, by rising alpha.
        calibrating_alpha: the alpha that would bring mean confidence down to accuracy; None if
            the model is not overconfident, or more so than any alpha could mend.
        calibrating_range: the alphas at which the forecast, wrong by its mean error, could be
            right; None as before.
        break_even_alpha: beyond it the gap would be larger than it is now, on the other side, and
            raw ECE worse; None as before. About where alpha (c - 1/K) is twice the gap, or less.
        temperature, scaled_ece: temperature scaling instead, ECE on rows it was not fitted on.
        moot: temperature scaling reaches an ECE as good as the best that smoothing is expected
            to, but for half a point.
        sentences: the same in words.
    """

    baseline: Outlook
    smoothed: tuple[Outlook, ...]
    calibrating_alpha: float | None
    calibrating_range: tuple[float, float] | None
    break_even_alpha: float | None
    temperature: float
    scaled_ece: float
    moot: bool
    sentences: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The forecast as plain JSON values."""
        return dataclasses.asdict(self)


def forecast(
    predictions: Predictions,
    alphas: Sequence[float] = ALPHAS,
    *,
    scaled: tuple[Predictions, float] | None = None,
) -> Forecast:
    r"""Foresee confidence, signed gap and ECE under uniform smoothing at each alpha.

    At the optimum of the smoothed loss a row's logit gap, true class to the others, is
    :math:`g_\alpha = \log(1 + K (1 - \alpha) / \alpha)`, and its confidence
    :math:`1 - \alpha + \alpha / K`. A network gets its training rows there; held-out rows follow,
    the uncertain ones too, as if all logits had shrunk by one factor. So every baseline gap m is
    shrunk by :math:`s = \min(1, (g_\alpha / m_{0.9})^{0.7})`, where the gap that one row in ten
    exceeds, :math:`m_{0.9}`, stands for the rows that were learned, and no confidence is left above
    that of the optimum. Rows keep their predicted class, so accuracy is forecast to stay. A network
    that never came as far as :math:`g_\alpha` is not moved: undertrained ones are not.

    It follows that confidence falls by about :math:`\alpha (c - 1/K)` or more, c the mean
    confidence now; that raw ECE improves only if the model is overconfident by more than half of
    that fall (identity 16); and that a model that is not overconfident gets worse at any alpha.

    Args:
        predictions: held-out rows of a model trained *without* smoothing.
        alphas: which to look at, in (0, 1).
        scaled: predictions after temperature scaling by cross-fitting, with T, if they are at
            hand (:func:`softhot.calibration.cross_fitted`).

    Raises:
        InputError: an alpha outside (0, 1).

    Pitfalls: accuracy usually changes by up to a point or two, and the gap with it; held-out
    predictions do not tell how far the training rows were learned, so after few training rows
    confidence falls further than forecast, after few epochs less, and where classes overlap
    (Fashion-MNIST) by about seven points less. Measured on small networks only, and at no alpha
    below 0.02.

    >>> rng = np.random.default_rng(0)
    >>> z = rng.normal(size=(2000, 3))
    >>> labels = (z + rng.gumbel(size=z.shape)).argmax(axis=1)
    >>> found = forecast(Predictions.from_logits(3 * z, labels))    # overconfident, T = 3
    >>> round(found.baseline.gap, 2), found.moot
    (0.22, True)
    """
    k = check_predictions(predictions).num_classes
    if not len(alphas):
        raise InputError("alphas", "at least one alpha", alphas)
    wanted = sorted({ALPHA.check(f"alphas[{i}]", alpha) for i, alpha in enumerate(alphas)})
    after, temperature = scaled or cross_fitted(predictions)
    rows = predictions.rows
    correct = accuracy(rows)

    def gap_at(alpha: float) -> float:
        return float(confidences(rows, alpha, k).mean()) - correct

    def look(alpha: float) -> Outlook:
        smoothed = confidences(rows, alpha, k) if alpha else rows.confidence
        mean = float(smoothed.mean())
        error = ece(dataclasses.replace(rows, confidence=smoothed))
        return Outlook(alpha, mean, mean - correct, error)

    baseline = look(0.0)
    calibrating = _alpha_where(gap_at, 0.0) if baseline.gap > 0 else None
    best = baseline.ece
    between = break_even = None
    if calibrating is not None:
        best = min(best, look(calibrating).ece)
        between = _alpha_where(gap_at, ERROR) or 0.0, _alpha_where(gap_at, -ERROR) or 1.0
        break_even = _alpha_where(gap_at, -baseline.gap)
    scaled_ece = ece(after)
    found = Forecast(
        baseline,
        tuple(map(look, wanted)),
        calibrating,
        between,
        break_even,
        temperature,
        scaled_ece,
        scaled_ece <= best + WORTH,
        (),
    )
    return dataclasses.replace(found, sentences=_sentences(found, best, look(0.1)))


def confidences(
    rows: Rows,
    alpha: float,
    num_classes: int,
    quantile: float = QUANTILE,
    exponent: float = EXPONENT,
) -> np.ndarray:
    """(N,) expected confidences of the rows after training with ``alpha``; see :func:`forecast`."""
    others = np.log(num_classes - 1)
    gaps = rows.log_odds + others  # to the mean of the other classes
    optimum = np.log1p(num_classes * (1 - alpha) / alpha)
    learned = float(np.quantile(gaps, quantile))
    shrink = (optimum / learned) ** exponent if learned > optimum else 1.0
    expected = 1 / (1 + np.exp(others - shrink * gaps))
    return np.minimum(expected, 1 - alpha + alpha / num_classes)


def _alpha_where(gap_at: Any, value: float) -> float | None:
    """The alpha at which the falling forecast gap is ``value``, by bisection; None if nowhere."""
    low, high = 1e-6, 0.99
    if not gap_at(low) >= value >= gap_at(high):
        return None
    while high - low > 1e-4 * high:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if gap_at(middle) > value else (low, middle)
    return float(high)


def _sentences(found: Forecast, best: float, tenth: Outlook) -> tuple[str, ...]:
    gap = found.baseline.gap
    if found.calibrating_alpha is not None and found.calibrating_range is not None:
        low, high = found.calibrating_range
        low = low if low >= 0.001 else 0
        beyond = ""
        if found.break_even_alpha is not None:
            beyond = (
                f"; beyond {found.break_even_alpha:.2g} raw calibration would be worse than now"
            )
        first = (
            "If it was trained without smoothing, uniform smoothing at alpha of about "
            f"{found.calibrating_alpha:.2g} ({low:.2g} to {high:.2g}) would bring confidence down "
            f"to accuracy{beyond}."
        )
    else:
        first = (
            "Smoothing would not help raw calibration: at alpha 0.1 confidence would fall by about "
            f"{100 * (found.baseline.confidence - tenth.confidence):.1f} points, from a gap of "
            f"{100 * gap:+.1f} to {100 * tenth.gap:+.1f}."
        )
    if found.moot:
        instead = (
            f"For calibration alone the question is moot: temperature scaling, T = "
            f"{found.temperature:.2f}, needs no training and reaches an ECE of "
            f"{found.scaled_ece:.1%}, where the best that smoothing is expected to reach is "
            f"{best:.1%} (now {found.baseline.ece:.1%})."
        )
    else:
        instead = (
            f"Temperature scaling, T = {found.temperature:.2f}, reaches an ECE of "
            f"{found.scaled_ece:.1%} only; smoothing might reach {best:.1%} (now "
            f"{found.baseline.ece:.1%})."
        )
    return first, instead
