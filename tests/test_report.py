"""The page of a study and of a judgement: right numbers, and every part that it should have."""

import base64
import io
import json
import re

import numpy as np
import pytest
from matplotlib import pyplot

from report_pages import (
    IMAGES,
    ROUNDED,
    Tree,
    as_read,
    attributes,
    metric_tables,
    plain,
    texts,
)
from softhot import plots, report
from softhot.advice import advise
from softhot.calibration import Desmoothing, Temperature, VectorScaling, apply_temperature
from softhot.core.check import InputError
from softhot.metrics import METRICS, Predictions, nll, score
from softhot.report import examples, harm, words
from softhot.report.alerts import alerts
from test_plots import study

# --- Numbers -----------------------------------------------------------------------------------


def test_tables_hold_every_arm_and_metric_with_the_right_numbers(page, comparison):
    assert set(ROUNDED) == set(METRICS)
    tables = metric_tables(page)
    assert len(tables) == 2
    for rows, column in zip(tables, ("raw", "scaled"), strict=True):
        lead = 1 + (column == "scaled")  # the arm, and T
        assert len(rows[0]) == lead + len(METRICS)
        assert [row[0].split("  ")[0].strip() for row in rows[1:]] == [
            arm.name + (f" {'chosen'}" if arm.name == comparison.chosen else "")
            for arm in comparison.arms
        ]
        for row, arm in zip(rows[1:], comparison.arms, strict=True):
            if column == "scaled":
                assert row[1] == f"{arm.temperature.mean:.2f}"
            for cell, name in zip(row[lead:], METRICS, strict=True):
                mean = getattr(arm, f"test_{column}")[name]
                change = getattr(arm, f"difference_{column}")[name]
                expected = [as_read(name, mean.mean, signed=name == "gap")]
                ends = mean
                if arm.alpha:
                    expected.append(as_read(name, change.mean, signed=True))
                    ends = change
                signed = bool(arm.alpha) or name == "gap"
                low, high = (as_read(name, end, signed) for end in (ends.low, ends.high))
                expected += [f"[{low},", f"{high}]"]
                found = [word for word in cell.split() if word not in ("better", "worse")]
                assert found == expected, (arm.name, column, name)


def test_better_and_worse_stand_where_the_interval_excludes_0(page, comparison):
    rows = metric_tables(page)[0]
    for row, arm in zip(rows[1:], comparison.arms, strict=True):
        for cell, (name, metric) in zip(row[1:], METRICS.items(), strict=True):
            change = arm.difference_raw[name]
            good = {"high": change.low > 0, "low": change.high < 0}.get(metric.best, False)
            bad = {"high": change.high < 0, "low": change.low > 0}.get(metric.best, False)
            assert ("better" in cell, "worse" in cell) == (good, bad)


def test_verdict_provenance_and_every_curve_are_told(page, comparison):
    text = " ".join(" ".join(Tree(page).text).split())
    answer, _, reason = comparison.verdict.headline.partition(": ")
    assert answer[1:] in text
    assert reason[1:] in text
    for sentence in comparison.verdict.sentences:
        assert sentence in text
    for fact in ("ab" * 32, comparison.spec.digest, "--alphas 0.1,0.3", "torch 2", "altair 6"):
        assert fact in text
    assert "0, 1, 2, 3" in text
    for line in comparison.spec.to_toml().splitlines():
        assert line in text
    for name in METRICS:
        finding = words.curve_finding(name, comparison.arms[0], plots.focus(comparison))
        assert " ".join(finding.split()) in text


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_study_of_few_seeds_has_a_page_without_intervals(seeds):
    found, records = study(seeds=seeds)
    html = report.render(found, records, command="c", versions={}, split_digest="d")
    rows = metric_tables(html)[0]
    assert not any("[" in cell or "better" in cell for row in rows for cell in row)
    assert "nan" not in " ".join(Tree(html).text).lower().split()


# --- The parts of a study ----------------------------------------------------------------------


def test_the_advice_stands_in_the_verdict(page, comparison):
    _, records = study()
    arms = {}
    for record in records:
        arms.setdefault(record.trial.arm.name, []).append(record.validation)
    found = advise({arm.name: arms[arm.name] for arm in comparison.curve})
    told = texts(page)
    for goal, one in found.items():
        assert f"If you care about {goal} {words.ACTIONS[one.action]}" in told
        assert one.temperature is None or f"T = {one.temperature:.2f}" in told


def test_examples_show_measured_probabilities_with_their_input(page, comparison):
    _, records = study()
    chosen = plots.focus(comparison).name
    by_arm = {
        name: [r.test for r in records if r.trial.arm.name == name]
        for name in (arm.name for arm in comparison.arms)
    }
    rows = examples.chosen_rows(by_arm["none"], by_arm[chosen])
    assert "A typical row" in rows
    tables = [rows for rows in Tree(page).tables if rows[0][0] == "Arm" and len(rows[0]) == 4]
    assert len(tables) == len(rows)
    for table, row in zip(tables, rows.values(), strict=True):
        assert table[0][1] == ("zero", "one", "two")[records[0].test.labels[row]]
        for line in table[1:]:
            mean = np.mean([p.probs[row] for p in by_arm[line[0]]], axis=0)
            shown = dict(zip(table[0][1:], line[1:], strict=True))
            for name, value in zip(("zero", "one", "two"), mean, strict=True):
                assert shown[name] == words.surely(value)
    before, after = (np.median([p.confidence for p in by_arm[n]]) for n in ("none", chosen))
    said = f"“{words.surely(before)} sure” becomes “{words.surely(after)} sure”"
    assert plain(said) in texts(page)
    for source, row in zip(attributes(Tree(page), "src"), rows.values(), strict=True):
        picture = pyplot.imread(io.BytesIO(base64.b64decode(source.partition(",")[2])))
        assert np.round(255 * picture) == pytest.approx(
            np.round(255 * IMAGES[row, 0] / IMAGES.max())
        )


def test_linked_panels_hold_every_arm_before_and_after_every_remedy(page, comparison):
    _, records = study()
    data = json.loads(Tree(page).scripts[0])
    held = {(r.trial.arm.name, r.trial.seed): r for r in records}
    told = texts(page)
    for number, arm in enumerate(comparison.arms):
        own = [held[arm.name, seed] for seed in comparison.seeds]
        for i, remedy in enumerate((None, Temperature, VectorScaling, Desmoothing)):
            after = [
                r.test if remedy is None else remedy.fit(r.validation).apply(r.test) for r in own
            ]
            columns = data["datasets"][data["charts"][f"linked-top-{i}"]["data"]["bins"]]
            mine = np.array(columns["arm"]) == number
            share, stated, true = (
                np.array(columns[k])[mine] for k in ("share", "confidence", "accuracy")
            )
            assert share @ stated == pytest.approx(np.mean([p.confidence for p in after]), abs=2e-3)
            assert share @ true == pytest.approx(np.mean([p.correct for p in after]), abs=2e-3)
            said = f"NLL {words.quantity('nll', np.mean([nll(p) for p in after]))}"
            assert plain(said) in told
            each = data["datasets"][data["charts"][f"linked-each-{i}"]["data"]["bins"]]
            mine = (np.array(each["arm"]) == number) & (np.array(each["class"]) == 1)
            stated = np.array(each["share"])[mine] @ np.array(each["confidence"])[mine]
            assert stated == pytest.approx(np.mean([p.probs[:, 1] for p in after]), abs=2e-3)


def test_every_number_can_be_downloaded(page, comparison):
    (link,) = [a for t, a in Tree(page).tags if t == "a"]
    assert link["download"].endswith(".json")
    content = json.loads(base64.b64decode(link["href"].partition("base64,")[2]))
    assert content["chosen"] == comparison.chosen
    for told, arm in zip(content["arms"], comparison.arms, strict=True):
        assert told["test_scaled"]["nll"]["values"] == pytest.approx(
            arm.test_scaled["nll"].values, rel=1e-6
        )


def test_methods_are_ranked_with_corrected_p_values(hostile_methods):
    comparison, _ = study(methods=("uniform", "dropout"), settings={"dropout": [0.2, 0.5]})
    (league,) = [rows for rows in Tree(hostile_methods).tables if "Method" in rows[0][0]]
    by_nll = sorted(comparison.methods, key=lambda m: m.advantages["nll"].difference.mean)
    for row, method in zip(league[2:], by_nll, strict=True):
        assert row[0].startswith(method.name)
        assert method.chosen in row[1]
        for at, name in ((2, "accuracy"), (5, "nll")):
            found = method.advantages[name]
            assert words.number(name, found.difference.mean, signed=True) in row[at]
            assert row[at + 1] == ("< 0.001" if found.p < 0.001 else f"{found.p:.3f}")
            assert row[at + 2].strip().startswith(f"{100 * found.practical:.0f}")


def test_dangers_are_named(page, hostile_methods):
    told = texts(hostile_methods)
    assert "2 trials failed and are missing here" in told
    (rows,) = [rows for rows in Tree(hostile_methods).tables if rows[0] == ["Arm", "Seed", "Error"]]
    assert [row[:2] for row in rows[1:]] == [["none", "0"], ["uniform 0.1", "0"]]
    assert all(row[2].startswith("ValueError: </script>") for row in rows[1:])
    assert "looked at 3 times before" in told
    assert "4 seeds say little" in told
    assert "60 validation rows are few" in told
    assert "failed" not in texts(page)
    few, records = study(seeds=1)
    html = report.render(few, records, command="c", versions={}, split_digest="d")
    assert "1 seed says little" in texts(html)


def test_an_ece_below_its_noise_is_named():
    comparison, _ = study()
    rng = np.random.default_rng(0)
    z = rng.normal(size=(60, 3))
    y = (z + rng.gumbel(size=z.shape)).argmax(axis=1)
    calibrated = {arm.name: [Predictions.from_logits(z, y)] for arm in comparison.arms}
    found = alerts(comparison, plots.focus(comparison), calibrated)
    assert any("below its own noise" in sentence for sentence in found)


def test_classes_that_lose_are_named():
    y = np.arange(40) % 2
    z = 3.0 * np.eye(2)[y]
    base = [Predictions.from_logits(z + 0.01 * s, y) for s in range(4)]
    hurt = z.copy()
    hurt[:20:2] *= -1  # ten of the twenty rows of class 0
    arm = [Predictions.from_logits(hurt, y)] * 4
    rows = harm.prepare_classes(base, arm, ("cat", "dog"))
    assert [(r["name"], r["change"]) for r in rows] == [("cat", -0.5), ("dog", 0.0)]
    assert harm.classes_finding(rows, "alpha = 0.1") == "Class cat loses at alpha = 0.1"
    same = harm.prepare_classes(base, base)
    assert "No single class" in harm.classes_finding(same, "alpha = 0.1")


@pytest.mark.parametrize(
    ("given", "said"),
    [({"inputs": ["a"]}, "those of the 60 test rows"), ({"class_names": "ab"}, "3 names")],
)
def test_inputs_and_names_must_fit(given, said):
    comparison, records = study(seeds=1)
    with pytest.raises(InputError, match=said):
        report.render(comparison, records, command="c", versions={}, split_digest="d", **given)


def test_classes_whose_rows_are_all_alike_lie_no_closer_together():
    alike = Predictions.from_logits(np.eye(2).repeat(3, axis=0), [0] * 3 + [1] * 3)
    assert "no closer together at uniform 0.1" in harm.distillation([alike], [alike], "uniform 0.1")


def test_findings_say_rises_falls_or_neither():
    found, _ = study()
    base, arm = found.arms[0], found.arms[2]
    told = words.curve_finding("confidence", base, arm)
    assert re.match(
        r"At alpha\u00a0=\u00a00\.3, confidence falls from \d+\.\d to \d+\.\d\u00a0% as tr", told
    )
    assert arm.difference_raw["confidence"].high < 0
    wide = study(seeds=2)[0]
    told = words.curve_finding("accuracy", wide.arms[0], wide.arms[1])
    assert "does not clearly move, from" in told
    assert "as trained" not in told  # scaling cannot change it


def test_numbers_of_other_metrics_are_shown_in_their_own_unit():
    assert words.number("nll", -0.00001, signed=True) == "0.000"
    assert words.quantity("gap", 0.0123) == "+1.2\u00a0points"
    assert words.quantity("accuracy", -0.01, change=True) == "−1.00\u00a0points"
    assert words.interval("nll", None, None) == words.interval("nll", float("nan"), 1.0) == ""
    assert words.joined(["a"]) == "a"
    assert words.joined(["a", "b", "c"]) == "a, b and c"


def test_a_judgement_shows_scores_temperatures_and_intervals(hostile):
    _, records = study(seeds=2)
    raw, scaled = Tree(hostile).tables
    assert [row[0].strip() for row in raw[1:]][1] == "field.with[brackets]"
    assert len(scaled) == 2  # one model was rescaled
    first = score(records[0].test)
    assert raw[1][1].split() == [as_read("accuracy", first["accuracy"]), "[20.00,", "31.00]"]
    assert raw[1][2].split() == [as_read("nll", first["nll"])]
    after = score(apply_temperature(records[0].test, 0.5))
    assert scaled[1][1] == "0.50"
    assert scaled[1][3].split() == [as_read("nll", after["nll"])]


def test_a_judgement_of_one_model_without_scaling():
    html = report.render_judgement(
        "t", {"m": study(seeds=1)[1][0].test}, [], command="c", versions={}
    )
    assert len(Tree(html).tables) == 1
    assert "After scaling" not in html


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"models": {}}, "models must be at least one"),
        ({"models": {"m": [1]}}, "must be a softhot.metrics.Predictions"),
        ({"scaled": {"x": None}}, "must be a softhot.metrics.Predictions"),
        ({"temperatures": {"x": 1.0}}, r"each name in temperatures must be one of \['m'\]"),
    ],
)
def test_a_judgement_refuses_what_it_cannot_show(change, said):
    test = Predictions.from_logits(np.eye(3), [0, 1, 2])
    given = {"models": {"m": test}, "sentences": (), "command": "c", "versions": {}} | change
    with pytest.raises(InputError, match=said):
        report.render_judgement("t", **given)
