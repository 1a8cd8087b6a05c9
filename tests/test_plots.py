"""Plot data against the metrics they draw, and the laws of what is computed for drawing alone."""

import dataclasses
import itertools

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import softhot
from softhot import plots
from softhot.calibration import apply_temperature
from softhot.core.check import InputError
from softhot.metrics import METRICS, Predictions, accuracy, aurc, ece, reliability, template_plane
from softhot.studies import Record, StudySpec, compare

matplotlib.use("agg")  # no window, wherever the tests run
LABELS = np.arange(60) % 3


def study(alphas=(0.1, 0.3), seeds=4, goal="probabilities", **settings):
    """A study as if trained: smoothing makes these logits smaller and slightly more often right."""
    sizes = {"test": len(LABELS), "validation": len(LABELS)}
    spec = StudySpec(alphas=alphas, seeds=seeds, **sizes, **settings)

    def predictions(trial, part):
        noise = np.random.default_rng([trial.seed, part]).normal(size=(len(LABELS), 3))
        alpha = 0.05 if trial.alpha is None else trial.alpha  # another method: a little of both
        right = np.eye(3)[LABELS] * (1.5 + alpha)
        return Predictions.from_logits((right + noise) * (3 - 4 * alpha), LABELS)

    records = [
        Record(t, 0.5, {"torch": "2"}, "ab" * 32, predictions(t, 0), predictions(t, 1))
        for t in spec.trials()
    ]
    return compare(records, spec, goal), records


@pytest.fixture(scope="module")
def found():
    return study()


def test_curves_are_the_comparison_s_numbers(found):
    comparison, _ = found
    curves = plots.prepare_curves(comparison)
    by = {(r["metric"], r["column"], r["alpha"]): r for r in curves["means"]}
    assert len(by) == len(curves["means"]) == (2 * len(METRICS) - 1) * 3  # accuracy: one column
    for arm in comparison.arms:
        for column in ("raw", "scaled"):
            for name in METRICS:
                row = by[name, "both" if name == "accuracy" else column, arm.alpha]
                value = getattr(arm, f"test_{column}")[name]
                change = getattr(arm, f"difference_{column}")[name]
                assert (row["value"], row["low"], row["high"]) == (
                    value.mean,
                    value.low,
                    value.high,
                )
                assert (row["change"], row["change_low"]) == (change.mean, change.low)
    one = [r for r in curves["seeds"] if (r["metric"], r["column"], r["seed"]) == ("nll", "raw", 2)]
    assert [r["value"] for r in one] == [arm.test_raw["nll"].values[2] for arm in comparison.arms]
    assert one[0]["change"] == 0


def test_curve_labels_stand_at_the_right_end_and_apart(found):
    comparison, _ = found
    curves = plots.prepare_curves(comparison)
    for name in METRICS:
        labels = [row for row in curves["labels"] if row["metric"] == name]
        assert {row["alpha"] for row in labels} == {0.3}
        for field in ("value", "change"):
            drawn = [r[field] for r in curves["means"] + curves["seeds"] if r["metric"] == name]
            heights = sorted(row[field] for row in labels)
            room = 0.07 * (max(drawn) - min(drawn))
            assert all(b - a >= room * (1 - 1e-9) for a, b in itertools.pairwise(heights))


def test_only_so_many_seeds_are_drawn(found, monkeypatch):
    monkeypatch.setattr(plots.curves, "SEED_LINES", 2)
    curves = plots.prepare_curves(found[0])
    assert {row["seed"] for row in curves["seeds"]} == {0, 1}


def test_too_few_seeds_have_no_interval():
    comparison, _ = study(seeds=1)
    means = plots.prepare_curves(comparison)["means"]
    assert {row["low"] for row in means} == {row["change_high"] for row in means} == {None}


def test_the_arm_in_focus_is_the_best_smoothed_one_on_validation(found):
    comparison, _ = found
    assert comparison.chosen != "none"
    assert plots.focus(comparison).name == comparison.chosen
    refused = dataclasses.replace(comparison, chosen="none")
    assert plots.focus(refused).name == comparison.rival


def test_scaled_predictions_use_each_seed_s_temperature(found):
    comparison, records = found
    predictions = plots.prepare_predictions(comparison, reversed(records))
    assert list(predictions) == [arm.name for arm in comparison.arms]
    for arm in comparison.arms:
        both = predictions[arm.name]
        for raw, scaled, t in zip(both["raw"], both["scaled"], arm.temperature.values, strict=True):
            assert np.array_equal(scaled.log_probs, apply_temperature(raw, t).log_probs)
        ours = np.mean([ece(one) for one in both["scaled"]])
        assert ours == pytest.approx(arm.test_scaled["ece"].mean, abs=1e-12)


def test_a_missing_record_is_named(found):
    comparison, records = found
    with pytest.raises(InputError, match=r"records must be .*'uniform 0.3' with seed 3"):
        plots.prepare_predictions(comparison, records[:-1])


def test_reliability_rows_sum_to_the_calibration_error(found):
    _, records = found
    rows = plots.prepare_reliability([records[0].test])
    total = sum(row["share"] * abs(row["accuracy"] - row["confidence"]) for row in rows)
    assert total == pytest.approx(ece(records[0].test), abs=1e-12)
    assert sum(row["share"] for row in rows) == pytest.approx(1)


def test_pooled_reliability_is_that_of_all_rows_together(found):
    parts = [record.test for record in found[1][:5]]
    together = Predictions(
        np.concatenate([p.log_probs for p in parts]), np.concatenate([p.labels for p in parts])
    )
    expected = reliability(together, 15)
    rows = plots.prepare_reliability(parts)
    assert [row["rows"] for row in rows] == expected.count.tolist()
    for name in ("lower", "upper", "confidence", "accuracy"):
        assert [row[name] for row in rows] == pytest.approx(getattr(expected, name), abs=1e-12)


@pytest.mark.parametrize(("bad", "said"), [([], "at least one"), ([1], "softhot.metrics.Predict")])
def test_reliability_refuses_what_is_no_predictions(bad, said):
    with pytest.raises(InputError, match=said):
        plots.prepare_reliability(bad)


@pytest.mark.parametrize("bad", [0, 1.5, True, None])
def test_counts_are_checked(found, bad):
    test = found[1][0].test
    with pytest.raises(InputError, match="bins must be"):
        plots.prepare_reliability([test], bins=bad)
    with pytest.raises(InputError, match="bins must be"):
        plots.prepare_confidence({"m": test}, bins=bad)
    with pytest.raises(InputError, match="points must be"):
        plots.prepare_risk_coverage({"m": [test]}, points=bad)


def test_the_area_under_risk_coverage_is_the_aurc(found):
    test = found[1][0].test
    lines = plots.prepare_risk_coverage({"m": [test]}, points=len(test), start=0)["lines"]
    assert len(lines) == len(test)
    assert np.mean([row["risk"] for row in lines]) == pytest.approx(aurc(test), abs=1e-12)
    assert lines[-1]["risk"] == pytest.approx(1 - accuracy(test), abs=1e-12)


def test_ties_in_confidence_do_not_depend_on_the_order_of_rows():
    probs = np.array([[0.7, 0.3]] * 4 + [[0.6, 0.4]] * 4)
    labels = np.array([0, 0, 1, 1, 1, 0, 0, 0])
    forward = Predictions.from_probs(probs, labels)
    lines = plots.prepare_risk_coverage(
        {"forward": [forward], "backward": [forward[::-1]]}, points=8
    )["lines"]
    risks = [row["risk"] for row in lines]
    assert risks[:8] == risks[8:]
    assert risks[:4] == [0.5] * 4


def test_risk_coverage_averages_seeds_and_starts_where_told(found):
    parts = [record.test for record in found[1][:2]]
    lines = plots.prepare_risk_coverage({"m": parts})["lines"]
    assert [lines[0]["coverage"], lines[-1]["coverage"], len(lines)] == [0.1, 1.0, 91]
    assert lines[-1]["risk"] == pytest.approx(1 - np.mean([accuracy(p) for p in parts]))
    # 60 rows: coverage 0.5 keeps 30 of them.
    surest = [p.correct[np.argsort(-p.confidence, kind="stable")[:30]] for p in parts]
    half = next(row for row in lines if row["coverage"] == 0.5)
    assert half["risk"] == pytest.approx(1 - np.mean(surest))


# --- The band of a calibrated model ------------------------------------------------------------


def calibrated(rows, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(rows, 4)) * 2
    return Predictions.from_logits(z, (z + rng.gumbel(size=z.shape)).argmax(axis=1))


def test_a_calibrated_model_stays_inside_its_band_and_an_overconfident_one_does_not():
    inside = outside = 0
    for seed in range(8):
        p = calibrated(1500, seed)
        for row in plots.prepare_reliability(p, bins=8, seed=seed):
            assert 0 <= row["low"] <= row["high"] <= 1
            inside += row["low"] <= row["accuracy"] <= row["high"]
            outside += not row["low"] <= row["accuracy"] <= row["high"]
    assert inside / (inside + outside) > 0.88  # 95 % of about 56, less the luck of so few
    sharp = plots.prepare_reliability(Predictions.from_logits(3 * p.log_probs, p.labels), bins=8)
    assert sum(not row["low"] <= row["accuracy"] <= row["high"] for row in sharp) >= 3


def test_ten_seeds_on_the_same_rows_are_not_ten_times_the_rows():
    p = calibrated(800)
    width = [
        [row["high"] - row["low"] for row in plots.prepare_reliability(many, bins=5)]
        for many in ([p], [p] * 10)
    ]
    assert width[1] == pytest.approx(width[0])
    assert {row["low"] for row in plots.prepare_reliability(p, draws=0)} == {None}


def test_the_diagram_of_a_class_counts_all_its_probabilities():
    p = calibrated(500)
    rows = plots.prepare_reliability(p, bins=10, class_id=2)
    assert sum(row["rows"] for row in rows) == 500
    assert sum(row["share"] * row["confidence"] for row in rows) == pytest.approx(
        p.probs[:, 2].mean()
    )
    assert sum(row["share"] * row["accuracy"] for row in rows) == pytest.approx(
        (p.labels == 2).mean()
    )
    with pytest.raises(InputError, match="class_id must be"):
        plots.prepare_reliability(p, class_id=4)


# --- Rows and rules ----------------------------------------------------------------------------


def test_confidence_shares_add_up_to_accuracy_and_error(found):
    parts = [record.test for record in found[1][:2]]
    rows = plots.prepare_confidence({"a": parts, "b": parts[0]}, bins=7)
    right = sum(row["right"] for row in rows if row["model"] == "a")
    wrong = sum(row["wrong"] for row in rows if row["model"] == "b")
    assert right == pytest.approx(np.mean([accuracy(p) for p in parts]))
    assert wrong == pytest.approx(1 - accuracy(parts[0]))


def test_softmax_rows_are_means_over_seeds_and_show_the_true_class():
    p, q = calibrated(30), calibrated(30)
    q = Predictions.from_logits(0.1 * q.log_probs, q.labels)
    rows = plots.prepare_softmax({"a": [p, q], "b": q}, [7, 3], class_names="wxyz", most=2)
    assert len(rows) == 2 * 2 * 2
    for row in rows:
        mean = (p.probs + q.probs) / 2 if row["model"] == "a" else q.probs
        assert row["probability"] == pytest.approx(mean[row["row"], row["class"]])
        assert row["name"] == "wxyz"[row["class"]]
        assert row["true"] == (row["class"] == p.labels[row["row"]])
    assert sum(row["true"] for row in rows) == 4
    with pytest.raises(InputError, match="same rows"):
        plots.prepare_softmax({"a": p, "b": calibrated(30, seed=1)}, [0])
    with pytest.raises(InputError, match="rows must be an integer in"):
        plots.prepare_softmax({"a": p}, [30])
    with pytest.raises(InputError, match="4 names"):
        plots.prepare_softmax({"a": p}, [0], class_names="xyz")


@pytest.mark.parametrize("k", [2, 10, 1000])
@pytest.mark.parametrize("alpha", [0.05, 0.3])
def test_training_stops_where_the_loss_is_lowest(alpha, k):
    rows = plots.prepare_loss({"u": softhot.Uniform(alpha)}, num_classes=k, points=499)
    best = 1 - alpha + alpha / k
    least = min(rows, key=lambda row: row["loss"])
    assert least["probability"] == pytest.approx(best, abs=4e-3)
    # The gradient to the true logit is p - q of the true class.
    assert [r["gradient"] for r in rows] == pytest.approx(
        [r["probability"] - best for r in rows], abs=1e-12
    )


def test_the_plane_s_first_side_is_one_long():
    rng = np.random.default_rng(0)
    w, y = rng.normal(size=(5, 6)), rng.integers(5, size=50)
    plane = plots.prepare_plane(w[y], y, w, [4, 0, 2], class_names="abcde")
    (a, b, c) = plane["corners"]
    assert (a["x"], a["y"], b["x"], a["name"]) == (0, 0, pytest.approx(1), "e")
    assert b["y"] == pytest.approx(0)
    assert c["y"] > 0
    assert len(plane["points"]) == np.isin(y, [4, 0, 2]).sum()
    at = {corner["class"]: (corner["x"], corner["y"]) for corner in plane["corners"]}
    for point in plane["points"]:  # every row lies on its own template
        assert (point["x"], point["y"]) == pytest.approx(at[point["class"]])


def test_every_plot_draws_on_the_axes_given_or_on_its_own(found):
    from matplotlib import pyplot

    comparison, records = found
    p = records[0].test
    w = np.random.default_rng(0).normal(size=(3, 4))
    models = {"costs $5 or $6": p, "b": [records[1].test, records[2].test]}
    draws = {
        "confidence": lambda ax: plots.plot_confidence(models, ax=ax),
        "softmax": lambda ax: plots.plot_softmax(models, 3, ax=ax),
        "reliability": lambda ax: plots.plot_reliability(p, label="$a$", ax=ax),
        "curve": lambda ax: plots.plot_curve(comparison, "gap", ax=ax),
        "risk_coverage": lambda ax: plots.plot_risk_coverage(models, ax=ax),
        "plane": lambda ax: plots.plot_plane(w[LABELS], LABELS, w, [0, 1, 2], ax=ax),
        "loss": lambda ax: plots.plot_loss(ax=ax),
        "gradient": lambda ax: plots.plot_gradient(ax=ax),
    }
    assert {f"plot_{name}" for name in draws} == {n for n in plots.__all__ if n[:5] == "plot_"}
    for name, draw in draws.items():
        own = draw(None)
        own.figure.canvas.draw()
        assert own.get_xlabel() or own.child_axes[0].get_xlabel(), name
        assert own.get_ylabel() or name in ("softmax", "plane"), name
        _, given = pyplot.subplots()
        assert draw(given) is given
        pyplot.close("all")
    with pytest.raises(InputError, match="ax must be matplotlib axes"):
        plots.plot_loss(ax="here")


@given(
    st.lists(st.floats(-100, 100), min_size=1, max_size=12),
    st.floats(0, 10),
)
def test_spread_keeps_order_and_mean_and_leaves_room(values, room):
    moved = plots.spread(values, room)
    order = np.argsort(values, kind="stable")
    steps = np.diff(np.array(moved)[order])
    assert (steps >= room - 1e-9).all()
    assert np.mean(moved) == pytest.approx(np.mean(values), abs=1e-9)
    if (np.diff(np.array(values)[order]) >= room).all():
        assert moved == pytest.approx(values, abs=1e-9)


def test_the_plane_of_logits_is_the_template_plane_but_for_one_linear_map():
    """z_i - z_j = <h, w_i - w_j> + b_i - b_j: two numbers that fix the projection of h."""
    rng = np.random.default_rng(0)
    h, w, b = rng.normal(size=(60, 9)), rng.normal(size=(4, 9)), rng.normal(size=4)
    p = Predictions.from_logits(h @ w.T + b, np.arange(60) % 4)
    drawn = plots.prepare_logit_plane(p, [0, 1, 2])["points"]
    order = np.concatenate([np.flatnonzero(p.labels == c) for c in range(3)])
    for bias in (None, b):
        projected = template_plane(h, w, [0, 1, 2], bias=bias).points[order]
        given = np.array([[row["x"], row["y"], 1.0] for row in drawn])
        linear, *_ = np.linalg.lstsq(given, projected, rcond=None)
        assert given @ linear == pytest.approx(projected, abs=1e-9)
