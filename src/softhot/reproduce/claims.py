"""The claims: what each says, who says it, in which direction, and how it is measured.

A measurement is a function of an :class:`Experiment`, which trains what is asked for once and
keeps it. It returns, for each condition, one number a seed: the paired difference that the claim is
about.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from softhot.calibration import Desmoothing
from softhot.datasets import corrupt_labels
from softhot.metrics import (
    Predictions,
    accuracy,
    apply_temperature,
    aurc,
    confidence,
    ece,
    fit_temperature,
    gap,
    nll,
    within_over_between,
)
from softhot.reproduce.settings import Setting

ALPHAS = (0.0, 0.05, 0.1, 0.2)
NOISE = 0.4
NOISY_ALPHAS = (0.0, 0.1, 0.3)
TEMPERATURES = (1.0, 2.0, 4.0, 8.0)
Values = dict[str, np.ndarray]


@dataclass(eq=False)
class Experiment:
    """Networks on one data set, trained when a claim first asks for them.

    Attributes:
        setting, seeds: what and how often.
        tick: called with a name and a share of it that is done.
    """

    setting: Setting
    seeds: int
    tick: Callable[[str, float], None] = lambda name, share: None
    kept: dict[str, Any] = field(default_factory=dict)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What ``make`` returns, made the first time only."""
        if name not in self.kept:
            self.kept[name] = make()
        return self.kept[name]

    @property
    def problem(self) -> Any:
        """The data as tensors."""
        from softhot.reproduce.networks import problem

        return self.once("problem", lambda: problem(self.setting))

    def _ticks(self, name: str) -> Callable[[int], None]:
        return lambda epoch: self.tick(name, epoch / self.setting.epochs)

    def _trained(self, **options: Any) -> Any:
        from softhot.reproduce.networks import train

        name = options.pop("name")
        ticks = self._ticks(name)
        return train(self.problem, self.setting, self.seeds, tick=ticks, **options)

    @property
    def plain(self) -> Any:
        """Networks on the labels as they are, an arm for each of ``ALPHAS``."""
        return self.once("plain", lambda: self._trained(name="smoothing", alphas=ALPHAS))

    def logits(self, part: str) -> np.ndarray:
        """(A, S, N, K) of :attr:`plain` on "train", "validation" or "test"."""
        rows = getattr(self.problem.split, part)
        return self.once(f"logits {part}", lambda: self.plain.said(rows))

    def said(self, alpha: float, part: str = "test") -> list[Predictions]:
        """What the networks of an arm say, seed by seed."""
        labels = self.problem.y[getattr(self.problem.split, part)]
        arm = self.logits(part)[ALPHAS.index(alpha)]
        make = [Predictions.from_logits(z, labels) for z in arm]
        return self.once(f"said {alpha} {part}", lambda: make)

    def scores(self, metric: Callable[[Any], float], alpha: float) -> np.ndarray:
        """A metric on test rows, seed by seed."""
        name = f"{metric.__name__} {alpha}"
        return self.once(name, lambda: np.array([metric(p) for p in self.said(alpha)]))

    def change(self, metric: Callable[[Any], float], alpha: float) -> np.ndarray:
        """What smoothing did to a metric on test rows, seed by seed."""
        return self.scores(metric, alpha) - self.scores(metric, 0.0)

    def scaled(self, alpha: float) -> list[Predictions]:
        """Test rows at the temperature fitted on validation."""
        pairs = zip(self.said(alpha, "validation"), self.said(alpha), strict=True)
        return self.once(
            f"scaled {alpha}", lambda: [apply_temperature(t, fit_temperature(v)) for v, t in pairs]
        )


@dataclass(frozen=True)
class Claim:
    """One claim of the literature.

    Attributes:
        number, name: its place in the table, and its key.
        title: in a few words.
        says: what is claimed.
        source: by whom.
        direction: +1 if the measured difference should be above 0, -1 if below.
        unit: of the difference.
        measured: what the difference is.
        measure: function of an :class:`Experiment`: condition to one value a seed.
    """

    number: int
    name: str
    title: str
    says: str
    source: str
    direction: int
    unit: str
    measured: str
    measure: Callable[[Experiment], Values]


def confidence_falls(run: Experiment) -> Values:
    """Mean confidence on test rows, smoothed minus plain, in points."""
    return {f"alpha {a}": 100 * run.change(confidence, a) for a in (0.1, 0.2)}


def accuracy_rises(run: Experiment) -> Values:
    """Accuracy on test rows, smoothed minus plain, in points."""
    return {f"alpha {a}": 100 * run.change(accuracy, a) for a in (0.1, 0.2)}


def nll_worsens(run: Experiment) -> Values:
    """Hard-label NLL on test rows, smoothed minus plain, in nats."""
    return {f"alpha {a}": run.change(nll, a) for a in (0.05, 0.1, 0.2)}


def calibration(run: Experiment) -> Values:
    """Calibration error, smoothed minus plain, in points; the gap of the plain network decides."""
    before = 100 * run.scores(gap, 0.0).mean()
    return {f"alpha {a}, gap {before:+.1f}": 100 * run.change(ece, a) for a in (0.05, 0.1)}


def less_calibratable(run: Experiment) -> Values:
    """NLL after temperature scaling, smoothed minus plain, in nats."""
    hard = np.array([nll(p) for p in run.scaled(0.0)])
    return {f"alpha {a}": np.array([nll(p) for p in run.scaled(a)]) - hard for a in (0.05, 0.1)}


def desmoothing(run: Experiment) -> Values:
    """NLL of smoothed networks, de-smoothed minus as trained, and minus scaled, in nats."""
    found = {}
    for a in (0.05, 0.1):
        mended = np.array([nll(Desmoothing(a).apply(p)) for p in run.said(a)])
        scaled = np.array([nll(p) for p in run.scaled(a)])
        found[f"alpha {a}, against as trained"] = mended - run.scores(nll, a)
        found[f"alpha {a}, against temperature scaling"] = mended - scaled
    return found


def selective(run: Experiment) -> Values:
    """Area under the risk-coverage curve, smoothed minus plain, times 1000."""
    return {f"alpha {a}": 1000 * run.change(aurc, a) for a in (0.1, 0.2)}


def clusters(run: Experiment) -> Values:
    """Log of within over between variance of training logits, smoothed minus plain."""
    labels = run.problem.y[run.problem.split.train].numpy()
    centred = run.logits("train") - run.logits("train").mean(axis=-1, keepdims=True)
    spread = np.array([[np.log(within_over_between(z, labels)) for z in arm] for arm in centred])
    return {f"alpha {a}": spread[ALPHAS.index(a)] - spread[0] for a in (0.1, 0.2)}


def distillation(run: Experiment) -> Values:
    """Accuracy of students, of a smoothed minus of a plain teacher, in points.

    Each student is small, learns from its teacher alone, and has the temperature that is best on
    validation rows.
    """
    from softhot.reproduce.networks import distil

    problem, arms = run.problem, [ALPHAS.index(0.0), ALPHAS.index(0.1)]
    told = run.logits("train")[arms]
    ticks = run._ticks("distilling")
    students = distil(problem, run.setting, told, TEMPERATURES, ticks)

    def right(rows: np.ndarray) -> np.ndarray:
        z = students.said(rows)
        hit = (z.argmax(-1) == problem.y[rows].numpy()).mean(axis=-1)
        return hit.reshape(2, len(TEMPERATURES), run.seeds)

    valid, test = right(problem.split.validation), right(problem.split.test)
    best = valid.argmax(axis=1)
    chosen = np.take_along_axis(test, best[:, None], axis=1)[:, 0]
    found = {"alpha 0.1, best T of each": 100 * (chosen[1] - chosen[0])}
    for i in (0, 3):
        found[f"alpha 0.1, T = {TEMPERATURES[i]:g}"] = 100 * (test[1, i] - test[0, i])
    return found


def noisy_labels(run: Experiment) -> Values:
    """Accuracy on clean test rows, smoothed minus plain, 40 % of training labels wrong; points.

    After the last epoch, and at the epoch that is best on validation rows with wrong labels too.
    """
    problem, parts = run.problem, run.problem.split
    rows = np.concatenate([parts.train, parts.validation])
    labels = corrupt_labels(problem.y[rows].numpy(), problem.classes, NOISE, seed=0)
    noisy, judged = labels[: len(parts.train)], labels[len(parts.train) :]
    truth = problem.y[parts.test].numpy()
    history: list[tuple[np.ndarray, np.ndarray]] = []

    def look(epoch: int, networks: Any) -> None:
        if epoch % max(run.setting.epochs // 20, 1) and epoch != run.setting.epochs:
            return
        valid = networks.said(parts.validation).argmax(-1) == judged
        test = networks.said(parts.test).argmax(-1) == truth
        history.append((valid.mean(-1), test.mean(-1)))

    import torch

    run._trained(
        name="noisy labels",
        alphas=NOISY_ALPHAS,
        labels=torch.from_numpy(np.asarray(noisy)),
        after_epoch=look,
    )
    valid, test = (np.stack(part) for part in zip(*history, strict=True))  # (E, A, S)
    early = np.take_along_axis(test, valid.argmax(axis=0)[None], axis=0)[0]
    found = {}
    for i, a in enumerate(NOISY_ALPHAS[1:], start=1):
        found[f"alpha {a}, last epoch"] = 100 * (test[-1, i] - test[-1, 0])
        found[f"alpha {a}, best epoch"] = 100 * (early[i] - early[0])
    return found


SZEGEDY = "Szegedy et al. 2016, arXiv:1512.00567"
MUELLER = "Müller, Kornblith and Hinton 2019, arXiv:1906.02629"
CLAIMS: tuple[Claim, ...] = (
    Claim(
        1, "confidence", "Confidence falls",
        "Every prediction becomes less sure, by about alpha (1 - 1/K) or more.",
        "follows from the loss", -1, "points",
        "mean confidence on test rows, smoothed minus plain", confidence_falls,
    ),
    Claim(
        2, "accuracy", "Accuracy rises a little",
        "The top-1 error falls; 0.2 to 0.3 points on ImageNet.",
        SZEGEDY, +1, "points",
        "accuracy on test rows, smoothed minus plain", accuracy_rises,
    ),
    Claim(
        3, "nll", "The likelihood worsens",
        "Negative log-likelihood gets worse, also where accuracy or BLEU improves.",
        MUELLER, +1, "nats",
        "hard-label NLL on test rows, smoothed minus plain", nll_worsens,
    ),
    Claim(
        4, "calibration", "Calibration improves",
        "The expected calibration error falls, about as far as temperature scaling brings it.",
        MUELLER, -1, "points",
        "expected calibration error (15 bins) on test rows, smoothed minus plain", calibration,
    ),
    Claim(
        5, "calibratable", "But it is less calibratable",
        "After temperature scaling a smoothed network is worse than a plain one.",
        "Wang, Feng and Zhang 2021 (NeurIPS)", +1, "nats",
        "NLL after temperature scaling, smoothed minus plain", less_calibratable,
    ),
    Claim(
        6, "desmoothing", "The inverse restores the probabilities",
        "What smoothing did to probabilities can be undone in closed form.",
        "Yamasaki and Tanaka 2023, arXiv:2305.08501", -1, "nats",
        "NLL of a smoothed network, de-smoothed minus as trained or scaled", desmoothing,
    ),
    Claim(
        7, "selective", "Selective classification suffers",
        "Ranking rows by confidence, the errors come earlier.",
        "Xia et al. 2025, arXiv:2403.14715", +1, "thousandths",
        "area under the risk-coverage curve, smoothed minus plain", selective,
    ),
    Claim(
        8, "clusters", "Classes draw together",
        "Training examples of a class gather in tight clusters, equally far from all others.",
        MUELLER, -1, "log units",
        "log of the variance of training logits within over between classes, smoothed minus plain",
        clusters,
    ),
    Claim(
        9, "distillation", "A smoothed teacher teaches worse",
        "Students of smoothed teachers are worse, although the teachers are better.",
        MUELLER, -1, "points",
        "accuracy of students of smoothed minus of plain teachers", distillation,
    ),
    Claim(
        10, "noise", "It mitigates wrong labels",
        "With many wrong labels in training, smoothing is competitive with correcting the loss.",
        "Lukasik et al. 2020, arXiv:2003.02819", +1, "points",
        "accuracy on clean test rows after training on 40 % wrong labels, smoothed minus plain",
        noisy_labels,
    ),
)  # fmt: skip
"""Every claim, by number."""
