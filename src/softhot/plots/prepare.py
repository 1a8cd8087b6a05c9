"""What the figures of predictions and of rules show, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from softhot.core.check import InputError, Interval
from softhot.metrics import (
    LastLayer,
    Predictions,
    check_predictions,
    risk_coverage,
    template_plane,
    template_plane_of_logits,
)

if TYPE_CHECKING:
    from softhot.core.rule import Rule

Rows = list[dict[str, Any]]
Models = Mapping[str, "Predictions | Sequence[Predictions]"]

BINS = Interval(1, 1000, integer=True)
POINTS = Interval(2, 10_000, integer=True)
START = Interval(0, 1)
DRAWS = Interval(0, 10_000, integer=True)
RULES = (0.0, 0.05, 0.1, 0.2)  # alphas of uniform smoothing that a figure of losses shows unasked


def prepare_confidence(models: Models, bins: int = 25) -> Rows:
    """The distribution of confidence, apart for rows predicted right and wrong; seeds averaged.

    Args:
        models: predictions by name, or several of one model, as its seeds.
        bins: of equal width over [0, 1].

    Returns:
        One row for each model and bin: model, lower, upper, right, wrong (shares of all rows).

    >>> p = Predictions.from_probs([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]], [0, 1, 1])
    >>> [(row["right"], row["wrong"]) for row in prepare_confidence({"m": p}, bins=2)]
    [(0.0, 0.0), (0.6666666666666666, 0.3333333333333333)]
    """
    bins = BINS.check("bins", bins)
    edges = np.arange(bins + 1) / bins
    rows: Rows = []
    for name, predictions in every(models).items():
        shares = np.zeros((2, bins))
        for one in predictions:
            which = np.maximum(np.searchsorted(edges, one.confidence, side="left") - 1, 0)
            for into, chosen in zip(shares, (one.correct, ~one.correct), strict=True):
                into += np.bincount(which[chosen], minlength=bins) / len(one) / len(predictions)
        rows += [
            {"model": name, "lower": lower, "upper": upper, "right": right, "wrong": wrong}
            for lower, upper, right, wrong in zip(
                edges[:-1].tolist(), edges[1:].tolist(), *shares.tolist(), strict=True
            )
        ]
    return rows


def prepare_softmax(
    models: Models,
    rows: Sequence[int],
    class_names: Sequence[str] | None = None,
    most: int = 10,
) -> Rows:
    """Every model's probabilities for single rows: what a user of the model is shown.

    Args:
        models: predictions of the same rows by name; probabilities are the mean over seeds.
        rows: which rows, counted from 0.
        class_names: K names; without them the class ids.
        most: classes shown of each row: the true one, and those that any model finds likeliest.

    Returns:
        One dict for each row, class and model: row, class, name, model, probability, true.

    Raises:
        InputError: models of other rows or classes, a row out of range, another number of names.

    >>> p = Predictions.from_probs([[0.9, 0.1], [0.4, 0.6]], [0, 0])
    >>> [(r["name"], r["probability"], r["true"]) for r in prepare_softmax({"m": p}, [1], "ab")]
    [('a', 0.4, True), ('b', 0.6, False)]
    """
    found = every(models)
    first = next(iter(found.values()))[0]
    n, k = len(first), first.num_classes
    for predictions in found.values():
        for one in predictions:
            if (len(one), one.num_classes) != (n, k) or (one.labels != first.labels).any():
                raise InputError("models", "predictions of the same rows", f"{len(one)} rows")
    names = [str(c) for c in range(k)] if class_names is None else [*map(str, class_names)]
    if len(names) != k:
        raise InputError("class_names", f"{k} names, one for each class", class_names)
    index = np.array([Interval(0, n - 1, integer=True).check("rows", row) for row in rows], int)
    if not len(index):
        raise InputError("rows", "at least one row number", rows)
    means = {
        name: np.mean([np.exp(one[index].log_probs) for one in predictions], axis=0)
        for name, predictions in found.items()
    }
    result: Rows = []
    for i, row in enumerate(index.tolist()):
        true = int(first.labels[row])
        highest = np.max([mean[i] for mean in means.values()], axis=0)
        highest[true] = np.inf  # the true class is always shown
        shown = sorted(np.argsort(-highest, kind="stable")[:most].tolist())
        result += [
            {
                "row": row,
                "class": c,
                "name": names[c],
                "model": name,
                "probability": float(mean[i, c]),
                "true": c == true,
            }
            for c in shown
            for name, mean in means.items()
        ]
    return result


def prepare_reliability(
    predictions: Predictions | Sequence[Predictions],
    bins: int = 15,
    *,
    class_id: int | None = None,
    draws: int = 200,
    seed: int = 0,
) -> Rows:
    """Confidence against accuracy in bins of equal width, seeds pooled: diagram and histogram.

    Beside each bin stands the band in which its accuracy would lie in 95 of 100 cases if the
    model were calibrated: rows keep their confidence, and whether they are right is drawn with
    it (Bröcker and Smith 2007, "Increasing the reliability of reliability diagrams"). Seeds that
    predict the same rows share the luck of each row, so that ten of them do not count as ten
    times the rows. A bin outside of its band is off by more than chance.

    Args:
        predictions: of one model, or several, as its seeds.
        bins: of equal width.
        class_id: the diagram of this one class instead: its probability against how often it is
            true, over all rows. None is that of the predicted class.
        draws: of the band; 0 leaves it out.
        seed: of the draws.

    Returns:
        One row for each bin that holds predictions: lower, upper, share (of all predictions),
        confidence, accuracy, rows (their number, all seeds together), and the band's low and
        high, None without draws.

    >>> p = Predictions.from_probs([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]], [0, 1, 1])
    >>> [(row["lower"], row["rows"]) for row in prepare_reliability([p, p], bins=4)]
    [(0.5, 2), (0.75, 4)]
    """
    bins = BINS.check("bins", bins)
    DRAWS.check("draws", draws)
    given = every({"predictions": predictions}, "predictions")["predictions"]
    columns = [_column(one, class_id) for one in given]
    edges = np.arange(bins + 1) / bins
    places = [np.maximum(np.searchsorted(edges, c, side="left") - 1, 0) for c, _ in columns]
    count = np.sum([np.bincount(at, minlength=bins) for at in places], axis=0)
    sums = np.zeros((2, bins))
    for at, column in zip(places, columns, strict=True):
        sums += [np.bincount(at, values, bins) for values in column]
    used = count > 0
    with np.errstate(invalid="ignore"):
        confidence, accuracy = sums / count
    band = np.full((2, bins), np.nan)
    if draws:
        rng = np.random.default_rng(seed)
        drawn = np.zeros((draws, bins))
        for into in drawn:
            luck = rng.random(len(columns[0][0]))
            for at, (values, _) in zip(places, columns, strict=True):
                if len(values) != len(luck):
                    luck = rng.random(len(values))
                into += np.bincount(at, luck < values, bins)
        with np.errstate(invalid="ignore"):
            band = np.quantile(drawn / count, (0.025, 0.975), axis=0)
    total = int(count.sum())
    return [
        {
            "lower": float(edges[b]),
            "upper": float(edges[b + 1]),
            "share": float(count[b] / total),
            "confidence": float(confidence[b]),
            "accuracy": float(accuracy[b]),
            "rows": int(count[b]),
            "low": float(band[0, b]) if draws else None,
            "high": float(band[1, b]) if draws else None,
        }
        for b in np.flatnonzero(used)
    ]


def _column(predictions: Predictions, class_id: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Stated probability and truth of each row, for the predicted class or for one."""
    if class_id is None:
        return predictions.confidence, predictions.correct
    k = predictions.num_classes
    c = Interval(0, k - 1, integer=True).check("class_id", class_id)
    return predictions.probs[:, c], predictions.truth(slice(None), predictions.probs)[:, c]


def prepare_risk_coverage(models: Models, points: int = 100, start: float = 0.1) -> dict[str, Rows]:
    """Error rate among the most confident rows, against the share of rows kept.

    At coverage c = k / points a model keeps its ceil(c N) surest rows; rows of equal rank count
    with the mean over all their orders, as in :func:`softhot.metrics.aurc`, whose value is the
    area under the whole curve. The rows start at coverage ``start``: under it a single wrong
    row makes a rate of many per cent, which would flatten everything else. Several predictions of
    one model (its seeds) are averaged.

    Returns:
        ``lines``: model, coverage, risk.
        ``labels``: model, coverage (1), risk: heights at the right end, moved apart.

    >>> p = Predictions.from_probs([[0.9, 0.1], [0.4, 0.6]], [0, 0])
    >>> prepare_risk_coverage({"m": [p]}, points=2)["lines"]
    [{'model': 'm', 'coverage': 0.5, 'risk': 0.0}, {'model': 'm', 'coverage': 1.0, 'risk': 0.5}]
    """
    POINTS.check("points", points)
    START.check("start", start)
    steps = [k for k in range(1, points + 1) if k / points >= start]
    lines: Rows = []
    for name, predictions in every(models).items():
        kept = [[-(-k * len(p) // points) - 1 for k in steps] for p in predictions]
        curves = [risk_coverage(p)[rows] for p, rows in zip(predictions, kept, strict=True)]
        lines += [
            {"model": name, "coverage": k / points, "risk": float(r)}
            for k, r in zip(steps, np.mean(curves, axis=0), strict=True)
        ]
    ends = [dict(row) for row in lines[len(steps) - 1 :: len(steps)]]
    room = 0.065 * max(row["risk"] for row in lines)
    for row, height in zip(ends, spread([row["risk"] for row in ends], room), strict=True):
        row["risk"] = height
    return {"lines": lines, "labels": ends}


def prepare_plane(
    features: Any,
    labels: Any,
    weights: Any,
    classes: Sequence[int],
    bias: Any = None,
    class_names: Sequence[str] | None = None,
) -> dict[str, Rows]:
    """Rows of three classes in the plane of their templates (Müller et al. 2019, figure 1).

    Lengths are those of the first side of the triangle, so that two models can be compared; see
    :func:`softhot.metrics.template_plane` for the projection.

    Args:
        features: (N, D) penultimate activations.
        labels: (N,) class ids; rows of other classes are left out.
        weights, bias: of the last layer, (K, D) and (K,).
        classes: three class ids.
        class_names: K names; without them the class ids.

    Returns:
        ``points``: class, name, x, y. ``corners``: the three templates, with the same fields.
    """
    y = np.asarray(labels)
    corners = template_plane(features, weights, classes, bias)
    if y.shape != (len(corners.points),):
        raise InputError("labels", f"class ids of shape ({len(corners.points)},)", labels)
    scale = 1 / corners.corners[1, 0]

    def told(c: int, at: np.ndarray) -> dict[str, Any]:
        name = str(c) if class_names is None else str(class_names[c])
        return {"class": int(c), "name": name, "x": float(at[0]), "y": float(at[1])}

    wanted = np.flatnonzero(np.isin(y, classes))
    return {
        "points": [told(y[i], corners.points[i] * scale) for i in wanted],
        "corners": [told(c, at * scale) for c, at in zip(classes, corners.corners, strict=True)],
    }


def prepare_logit_plane(
    predictions: Predictions,
    classes: Sequence[int] | None = None,
    class_names: Sequence[str] | None = None,
    most: int = 100,
    layer: LastLayer | None = None,
) -> dict[str, Rows]:
    """Rows of three classes in the plane of their templates, where only logits were kept.

    With ``layer`` that is the projection of the penultimate activations, exactly
    (:func:`softhot.metrics.template_plane_of_logits`), turned so that the first class's template
    is left of the second's and below the third's. Without it the axes are those of the three
    logits, at 120 degrees: a logit is the product of the activations with its class's template, so
    this is that projection up to a linear map that is the same for all rows. Lengths are such that
    the mean distance between the centres of the classes is 1, so that two models can be compared.

    Args:
        predictions: of one model.
        classes: three class ids; without them the three that are confused most.
        class_names: K names; without them the class ids.
        most: rows of each class, the first in their order.
        layer: the last layer that the logits come from.

    Returns:
        ``points``: class, name, x, y. ``corners``: the centres of the classes.

    Raises:
        InputError: fewer than three classes, or not three of them, or no row of one; templates
            that lie on one line.
    """
    p = check_predictions(predictions)
    k = p.num_classes
    if k < 3:
        raise InputError("predictions", "of three classes or more", f"{k} classes")
    ids = _confused(p) if classes is None else list(classes)
    if len(set(ids)) != 3 or len(ids) != 3 or not set(ids) <= set(range(k)):
        raise InputError("classes", f"three different ids in [0, {k - 1}]", classes)
    rows = [np.flatnonzero(p.labels == c)[:most] for c in ids]
    if not all(map(len, rows)):
        raise InputError("classes", "classes that some row has", ids)
    logits = [np.asarray(p.log_probs)[own] for own in rows]
    if layer is None:
        axes = np.array([[-1, 1, 0] / np.sqrt(2), [-1, -1, 2] / np.sqrt(6)])
        places = [np.maximum(z[:, ids], -1e4) @ axes.T for z in logits]
    else:
        places = [template_plane_of_logits(z, layer, ids).points for z in logits]
    centres = np.array([at.mean(axis=0) for at in places])
    size = np.mean([np.linalg.norm(centres[i] - centres[i - 1]) for i in range(3)])
    middle = centres.mean(axis=0)

    def told(c: int, at: np.ndarray) -> dict[str, Any]:
        name = str(c) if class_names is None else str(class_names[c])
        x, y = ((at - middle) / (size or 1.0)).tolist()
        return {"class": int(c), "name": name, "x": x, "y": y}

    return {
        "points": [told(c, at) for c, own in zip(ids, places, strict=True) for at in own],
        "corners": [told(c, at) for c, at in zip(ids, centres, strict=True)],
    }


def _confused(predictions: Predictions) -> list[int]:
    """The three classes that share most probability with each other, by id."""
    k, y = predictions.num_classes, predictions.labels
    shared = np.zeros((k, k))
    np.add.at(shared, y, np.exp(np.asarray(predictions.log_probs)))
    shared = np.where(np.bincount(y, minlength=k)[:, None] * np.ones(k) > 0, shared, -np.inf)
    shared = shared + shared.T
    np.fill_diagonal(shared, -np.inf)
    first, second = np.unravel_index(int(shared.argmax()), shared.shape)
    both = shared[first] + shared[second]
    both[[first, second]] = -np.inf
    return sorted((int(first), int(second), int(both.argmax())))


def prepare_loss(
    rules: Mapping[str, Rule] | None = None, num_classes: int = 10, points: int = 199
) -> Rows:
    """Loss and gradient of a row against the probability it gives the true class.

    The other classes share the rest alike. The gradient is that to the true class's logit: where
    it is 0 training stops, at 1 - alpha + alpha / K under uniform smoothing.

    Args:
        rules: rules by name; without them cross entropy and uniform smoothing at a few alphas.
        num_classes: K.
        points: evenly spaced probabilities inside (0, 1).

    Returns:
        One row for each rule and probability: rule, probability, loss (nats), gradient.

    >>> import softhot
    >>> rows = prepare_loss({"plain": softhot.Uniform(0.0)}, num_classes=2, points=3)
    >>> [(r["probability"], round(r["loss"], 3), round(r["gradient"], 3)) for r in rows]
    [(0.25, 1.386, -0.75), (0.5, 0.693, -0.5), (0.75, 0.288, -0.25)]
    """
    from softhot.core.losses import cross_entropy_and_gradient
    from softhot.core.rule import Uniform

    k = Interval(2, 1_000_000, integer=True).check("num_classes", num_classes)
    POINTS.check("points", points)
    if rules is None:
        rules = {(f"alpha = {a:g}" if a else "no smoothing"): Uniform(a) for a in RULES}
    p = np.arange(1, points + 1) / (points + 1)
    logits = np.zeros((points, k))
    logits[:, 0] = np.log(p) - np.log1p(-p) + np.log(k - 1)
    rows: Rows = []
    for name, rule in rules.items():
        loss, slope = cross_entropy_and_gradient(logits, np.zeros(points, int), rule)
        rows += [
            {"rule": name, "probability": a, "loss": b, "gradient": c}
            for a, b, c in zip(p.tolist(), loss.tolist(), slope[:, 0].tolist(), strict=True)
        ]
    return rows


def every(models: Any, argument: str = "models") -> dict[str, Sequence[Predictions]]:
    """Models by name with their seeds: a single :class:`Predictions` is one seed."""
    allowed = "names with at least one softhot.metrics.Predictions"
    if not isinstance(models, Mapping) or not models:
        raise InputError(argument, allowed, models)
    found: dict[str, Sequence[Predictions]] = {}
    for name, given in models.items():
        seeds = [given] if isinstance(given, Predictions) else given
        if not isinstance(seeds, Sequence) or not seeds:
            raise InputError(argument, allowed, given)
        found[name] = [check_predictions(one) for one in seeds]
    return found


def spread(values: Sequence[float], room: float) -> list[float]:
    """``values`` moved, as little as least squares allow, until any two are ``room`` apart.

    >>> spread([1.0, 0.0, 1.0], 0.5)
    [0.75, 0.0, 1.25]
    """
    from scipy.optimize import isotonic_regression

    order = np.argsort(values, kind="stable")
    steps = room * np.arange(len(order))
    result = np.empty(len(order))
    result[order] = isotonic_regression(np.asarray(values)[order] - steps).x + steps
    return [float(value) for value in result]
