"""Write docs/forecast.md: how far off the forecast has been, on studies of real data.

    python -m docs.forecast [RUN ...] [--runs FOLDER]

Trains thirteen studies, by which the constants were found, and five later ones, by which they
were not (about fifteen minutes on two cores in all), where the folder does not hold them yet. Each
RUN is the folder of any other study of yours, to be told about beside the later ones.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from softhot.calibration import REMEDIES, Desmoothing, VectorScaling, cross_fitted
from softhot.forecast import ERROR, EXPONENT, QUANTILE, WORTH, confidences, forecast
from softhot.metrics import Predictions, Rows, accuracy, ece, nll, score
from softhot.studies import Record, Store, StudySpec, run

PAGE = Path(__file__).with_suffix(".md")
STUDIES = {
    "digits": StudySpec(),
    "digits, 30 epochs": StudySpec(seeds=5, epochs=30),
    "digits, 500 epochs": StudySpec(seeds=5, epochs=500),
    "digits, 150 rows": StudySpec(seeds=5, train=150),
    "digits, 50 rows": StudySpec(seeds=5, train=50),
    "digits, 16 hidden": StudySpec(seeds=5, hidden=(16,)),
    "wine": StudySpec("wine"),
    "wine, 40 epochs": StudySpec("wine", seeds=5, epochs=40),
    "wine, 15 rows": StudySpec("wine", seeds=5, train=15),
    "breast cancer": StudySpec("breast_cancer"),
    "breast cancer, 30 epochs": StudySpec("breast_cancer", seeds=5, epochs=30),
    "breast cancer, 600 epochs": StudySpec("breast_cancer", seeds=5, epochs=600),
    "breast cancer, 20 rows": StudySpec("breast_cancer", seeds=5, train=20),
}
CLOTHES = {"train": 1500, "validation": 500, "test": 2000, "seeds": 3}
LATER = {  # trained when the constants were fixed, and no part of any fit
    "Fashion-MNIST, 40 epochs": StudySpec("fashion_mnist", epochs=40, **CLOTHES),
    "Fashion-MNIST, 8 epochs": StudySpec("fashion_mnist", epochs=8, **CLOTHES),
    "Fashion-MNIST, linear": StudySpec("fashion_mnist", model="linear", epochs=40, **CLOTHES),
    "digits, a fifth of the labels wrong": StudySpec(label_noise=0.2, seeds=5),
    "digits, two fifths wrong": StudySpec(label_noise=0.4, seeds=5),
}
Law = Callable[[Rows, float, int], float]


@dataclass(frozen=True, eq=False)
class Pair:
    """Test rows of one seed without smoothing and at one alpha."""

    study: str
    dataset: str
    alpha: float
    baseline: Predictions
    smoothed: Predictions

    def miss(self, law: Law) -> float:
        """Forecast minus measured mean confidence."""
        expected = law(self.baseline.rows, self.alpha, self.baseline.num_classes)
        return expected - score(self.smoothed)["confidence"]


def networks(quantile: float = QUANTILE, exponent: float = EXPONENT) -> Law:
    return lambda rows, alpha, k: float(confidences(rows, alpha, k, quantile, exponent).mean())


def optimum(rows: Rows, alpha: float, k: int) -> float:
    """What the optimum of the loss would do: confidence c to (1 - alpha) c + alpha / K."""
    return float((1 - alpha) * rows.confidence.mean() + alpha / k)


def fitted(pairs: Iterable[Pair]) -> tuple[float, float]:
    """The quantile and exponent of least squared error, each study counting alike."""
    pairs = list(pairs)
    counts = {study: sum(pair.study == study for pair in pairs) for study in STUDIES}

    def error(constants: tuple[float, float]) -> float:
        law = networks(*constants)
        return sum(pair.miss(law) ** 2 / counts[pair.study] for pair in pairs)

    bounds = (0.05, 0.99), (0.2, 2.0)
    options = {"xatol": 1e-3, "fatol": 1e-6}
    found = minimize(error, (0.9, 0.7), method="Nelder-Mead", bounds=bounds, options=options).x
    return float(found[0]), float(found[1])


def mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def table(header: str, rows: Iterable[Iterable[str]]) -> str:
    columns = header.count("|") - 1
    rule = "|---|" + "---:|" * (columns - 1)
    return "\n".join([header, rule, *("| " + " | ".join(row) + " |" for row in rows)])


def points(value: float, sign: bool = False) -> str:
    return f"{100 * value:{'+' if sign else ''}.1f}"


def studies(specs: dict[str, StudySpec], folder: Path) -> dict[str, list[Record]]:
    found = {}
    for name, spec in specs.items():
        print(name, file=sys.stderr, flush=True)
        found[name] = run(spec, folder / name.replace(", ", "-").replace(" ", "_")).records()
    return found


def pairs_of(records: dict[str, list[Record]]) -> list[Pair]:
    pairs = []
    for study, held in records.items():
        by_key = {
            (record.trial.alpha, record.trial.seed): record
            for record in held
            if record.trial.alpha is not None  # another method
        }
        for (alpha, seed), record in sorted(by_key.items()):
            if alpha and (0.0, seed) in by_key:
                base = by_key[0.0, seed].test
                pairs.append(Pair(study, record.trial.dataset, alpha, base, record.test))
    return pairs


def later(records: dict[str, list[Record]]) -> dict[str, str | int]:
    """What became of the forecast on studies by which nothing was fitted."""
    rows, misses, plain, right, count = [], [], [], 0, 0
    for study, held in records.items():
        pairs = pairs_of({study: held})
        bases = {id(pair.baseline): pair.baseline for pair in pairs}.values()
        off = [pair.miss(networks()) for pair in pairs]
        law = [pair.miss(optimum) for pair in pairs]
        found = [forecast(pair.baseline, [pair.alpha]).smoothed[0] for pair in pairs]
        told = sum(
            (f.ece < ece(p.baseline)) == (ece(p.smoothed) < ece(p.baseline))
            for f, p in zip(found, pairs, strict=True)
        )
        gaps = [abs(f.gap - score(p.smoothed)["gap"]) for f, p in zip(found, pairs, strict=True)]
        errors = [abs(f.ece - ece(p.smoothed)) for f, p in zip(found, pairs, strict=True)]
        misses.append(mean(map(abs, off)))
        plain.append(mean(map(abs, law)))
        right, count = right + told, count + len(pairs)
        rows.append(
            [
                study,
                points(mean(score(b)["confidence"] for b in bases)),
                points(mean(score(b)["gap"] for b in bases), sign=True),
                points(misses[-1]),
                points(mean(off), sign=True),
                points(max(map(abs, off))),
                points(plain[-1]),
                points(mean(gaps)),
                points(mean(errors)),
                f"{told} of {len(pairs)}",
            ]
        )
    return {
        "later": table(
            "| study | confidence | gap | forecast off by | on average | at worst "
            "| optimum off by | gap off by | ECE off by | ECE better or worse |",
            rows,
        ),
        "later_error": points(mean(misses)),
        "later_plain": points(mean(plain)),
        "later_right": right,
        "later_pairs": count,
        "later_studies": len(rows),
    }


def page(records: dict[str, list[Record]], new: dict[str, list[Record]]) -> str:
    pairs = pairs_of(records)
    datasets = sorted({pair.dataset for pair in pairs})
    together = fitted(pairs)
    apart = {d: fitted(pair for pair in pairs if pair.dataset != d) for d in datasets}
    # The data set that is forecast took no part in the exponent.
    held_out = {pair: abs(pair.miss(networks(*apart[pair.dataset]))) for pair in pairs}

    def by_study(values: dict[Pair, float]) -> float:
        return mean(mean(v for p, v in values.items() if p.study == s) for s in STUDIES)

    plain = {pair: abs(pair.miss(optimum)) for pair in pairs}
    with_all = {pair: abs(pair.miss(networks())) for pair in pairs}
    found = {pair: forecast(pair.baseline, [pair.alpha]).smoothed[0] for pair in pairs}
    gaps = {p: abs(f.gap - score(p.smoothed)["gap"]) for p, f in found.items()}
    errors = {p: abs(f.ece - ece(p.smoothed)) for p, f in found.items()}
    moves = {p: abs(accuracy(p.smoothed) - accuracy(p.baseline)) for p in pairs}

    def right(pair: Pair) -> bool:
        """Whether raw ECE got better where that was forecast, and worse where not."""
        better = ece(pair.smoothed) < ece(pair.baseline)
        return better == (found[pair].ece < ece(pair.baseline))

    rows = []
    for study in STUDIES:
        own = [pair for pair in pairs if pair.study == study]
        bases = {id(pair.baseline): pair.baseline for pair in own}.values()
        rows.append(
            [
                study,
                points(mean(score(b)["confidence"] for b in bases)),
                points(mean(score(b)["gap"] for b in bases), sign=True),
                *(
                    f"{points(mean(score(p.smoothed)['confidence'] for p in at))} "
                    f"({points(mean(p.miss(networks()) for p in at), sign=True)})"
                    for alpha in (0.02, 0.1, 0.4)
                    for at in [[p for p in own if p.alpha == alpha]]
                ),
                points(mean(gaps[p] for p in own)),
                points(mean(errors[p] for p in own)),
                f"{sum(map(right, own))} of {len(own)}",
            ]
        )
    studies_table = table(
        "| study | confidence | gap | at 0.02 (miss) | at 0.1 (miss) | at 0.4 (miss) "
        "| gap off by | ECE off by | ECE better or worse |",
        rows,
    )
    alphas = sorted({pair.alpha for pair in pairs})
    by_alpha = table(
        "| alpha | optimum of the loss off by | forecast off by | without the data set | worst |",
        (
            [
                f"{alpha:g}",
                *(
                    points(by_study({p: v for p, v in values.items() if p.alpha == alpha}))
                    for values in (plain, with_all, held_out)
                ),
                points(max(v for p, v in held_out.items() if p.alpha == alpha)),
            ]
            for alpha in alphas
        ),
    )
    bases = {id(p.baseline): p for p in pairs}.values()
    moot = [forecast(p.baseline).moot for p in bases]
    truly = []
    for p in bases:
        same = [q for q in pairs if q.baseline is p.baseline]
        best = min(ece(q.smoothed) for q in same)
        truly.append(ece(cross_fitted(p.baseline)[0]) <= min(best, ece(p.baseline)) + WORTH)
    agree = sum(a == b for a, b in zip(moot, truly, strict=True))
    return TEXT.format(
        fit="{:.2f} and {:.2f}".format(*together),
        quantile=f"{QUANTILE:g}",
        exponent=f"{EXPONENT:g}",
        apart=", ".join(
            "{:.2f} and {:.2f} (without {})".format(*found, name.replace("_", " "))
            for name, found in apart.items()
        ),
        error=points(by_study(held_out)),
        with_all=points(by_study(with_all)),
        plain=points(by_study(plain)),
        worst=points(max(held_out.values())),
        published=points(ERROR),
        gap=points(by_study(gaps)),
        ece=points(by_study(errors)),
        moves=points(by_study(moves)),
        right=sum(map(right, pairs)),
        better=sum(ece(p.smoothed) < ece(p.baseline) for p in pairs),
        never=sum(ece(p.smoothed) >= ece(p.baseline) for p in pairs),
        pairs=len(pairs),
        moot=sum(moot),
        truly=sum(truly),
        agree=agree,
        bases=len(moot),
        studies=studies_table,
        alphas=by_alpha,
        remedies=remedies(records),
        **later(new),
    )


def remedies(records: dict[str, list[Record]]) -> str:
    """NLL and ECE on test of every remedy, fitted on validation, for the three data sets."""
    rows = []
    for study in ("digits", "wine", "breast cancer"):
        for alpha in (0.0, 0.1, 0.4):
            held = [record for record in records[study] if record.trial.alpha == alpha]
            columns = [lambda record: record.test]
            columns.append(lambda r: REMEDIES["temperature"].fit(r.validation).apply(r.test))
            columns.append(lambda r: VectorScaling.fit(r.validation).apply(r.test))
            columns.append(lambda r, a=alpha: Desmoothing(a).apply(r.test))
            columns.append(lambda r: Desmoothing.fit(r.validation).apply(r.test))
            after = [[column(record) for record in held] for column in columns]
            fits = mean(Desmoothing.fit(record.validation).alpha for record in held)
            cells = [f"{mean(map(nll, one)):.3f} / {points(mean(map(ece, one)))}" for one in after]
            cells[-1] += f" at {fits:.2f}"
            rows.append([study, f"{alpha:g}", *cells])
    return table(
        "| study | alpha | as trained | temperature | vector | desmoothing, nominal | fitted |",
        rows,
    )


TEXT = """\
# How good is the forecast?

`softhot judge` foresees what smoothing would do to the confidence of a model that was trained
without it; [`softhot.forecast`](../src/softhot/forecast.py) says how. This page compares it with
what training did. `python -m docs.forecast` writes it: thirteen studies of small networks on three
real data sets, at five alphas and five or ten seeds, {pairs} pairs of a baseline and a smoothed
network. Numbers are points (per cent) on test rows.

**The two constants.** The forecast shrinks logits as if the row at quantile {quantile} came to the
optimum of the smoothed loss, to the power {exponent}. Least squares gives {fit}; of two data sets
alone
{apart}.
Its error, {published} points, is the mean of |forecast - measured| mean confidence over the studies
further down, by which nothing was fitted ({later_error}). On the thirteen it is {error} with the
constants of the other two data sets, and {with_all} with those of all: three small data sets
flattered it.
The plain formula, a fall by alpha (c - 1/K), is off by {plain}: networks move further than the
optimum of the loss, most of all at small alpha, and undertrained ones less. The worst single
forecast was off by {worst}.

{alphas}

**What it is not told.** It expects accuracy to stay; in truth it changed by {moves} points on
average. So the signed gap is off by {gap} points, and the ECE by {ece}. Smoothing made raw ECE
better in {better} of {pairs} pairs; whether it would was foretold right in {right}, where "never"
would have been right in {never}. That temperature scaling would do as well as the best of the five
alphas, but for half a point of ECE, was foretold for {moot} of {bases} baselines and was true for
{truly}; the two agree for {agree}, where "always" would be right for {truly}.

{studies}

"Miss" is forecast minus measured. Held-out predictions do not tell how well the training rows were
learned, and that is what decides: after few training rows confidence falls further than forecast
(digits, 50 rows), after few epochs less (wine, 40 epochs), and one pair of constants cannot serve
both. Nothing here is larger than a network of three layers. So the forecast is a first guess, and
`softhot study` settles what matters.

## On studies by which nothing was fitted

{later_studies} studies more, {later_pairs} pairs, were trained when the constants were fixed: other
pictures, other networks, and labels that are wrong in training, not on the rows that judge.
Mean confidence is off by {later_error} points on average over these studies; the optimum of
the loss by {later_plain}. Whether raw ECE would get better or worse was foretold right in
{later_right} of {later_pairs}.

{later}

“On average” has the sign: below 0, the smoothed networks stayed surer than forecast. So it was with
perceptrons and the linear model on Fashion-MNIST, by six to eleven points, and there the plain
formula was nearer: where classes overlap, many rows are unsure without smoothing, and the forecast
shrinks them as if they had been learned like the rest. Under label noise, and for the head on film
reviews, it is the plain formula that fails. The range that `softhot judge` prints around its alpha
is as wide as this error. Those that name their model are the uniform arms of the runs of
{{doc}}`what real studies found <results>`, given to `python -m docs.forecast RUN ...`.

## What the remedies do on the same studies

NLL in nats / ECE in points on test rows, mean over seeds; every remedy fitted on validation rows
only. Nominal desmoothing is told the alpha of training and sees no data; the last column finds its
own, and says which.

{remedies}

Nominal desmoothing goes part of the way, because networks stop further from the corner than the
optimum. With a fitted alpha it rivals temperature scaling and does not beat it. Validation rows
are few for wine (40), which costs vector scaling, of six numbers, most. The temperature is the
cautious one, which few rows cost little.
"""


def named(folder: Path) -> tuple[str, list[Record]]:
    """The records of a run, and what to call it."""
    store = Store.open(folder)
    spec = store.spec
    name = f"{Path(spec.dataset).stem}, {spec.model}, {spec.subset or spec.train} rows"
    if spec.label_noise:
        name += f", {spec.label_noise:.0%} wrong"
    return name.replace("_", " "), store.records()


def main() -> None:
    words = argparse.ArgumentParser("python -m docs.forecast", description="Write the page.")
    words.add_argument("run", type=Path, nargs="*", help="folder of another study")
    words.add_argument("--runs", type=Path, default=Path("runs/forecast"), help="where to train")
    given = words.parse_args()
    new = studies(LATER, given.runs) | dict(map(named, given.run))
    PAGE.write_text(page(studies(STUDIES, given.runs), new), encoding="utf-8")


if __name__ == "__main__":
    main()
