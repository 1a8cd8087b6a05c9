"""Write docs/advice.md and docs/regret.json: what following the advice costs, beside its rivals.

    python -m docs.regret [--runs FOLDER]

Trains 60 studies (about fifteen minutes on two cores) where the folder does not hold them yet.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from softhot.advice import advise
from softhot.calibration import cautious_temperature, cross_fitted, fit_temperature
from softhot.metrics import Predictions, accuracy, apply_temperature, nll
from softhot.studies import Record, StudySpec, run

PAGE = Path(__file__).with_name("advice.md")
DATA = Path(__file__).with_name("regret.json")
SEEDS = 3
ALPHAS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
DEVELOPMENT = (0, 1, 2, 3, 4, 5)  # splits on which the policy was made; the others confirm it


def pairs() -> dict[str, StudySpec]:
    """Every (data set, model, split), by name."""
    found = {}
    for split in range(8):
        for dataset in ("wine", "breast_cancer", "digits"):
            for model in ("linear", "mlp"):
                spec = StudySpec(dataset, model=model, split_seed=split, seeds=SEEDS, alphas=ALPHAS)
                found[f"{dataset}, {model}, split {split}"] = spec
    size = {"train": 1000, "validation": 300, "test": 3000, "epochs": 40}
    for split in (4, 5, 6, 7):
        for model in ("linear", "mlp"):
            found[f"fashion_mnist, {model}, split {split}"] = StudySpec(
                "fashion_mnist", model=model, split_seed=split, seeds=SEEDS, alphas=ALPHAS, **size
            )
        found[f"digits with a fifth of the labels wrong, mlp, split {split}"] = StudySpec(
            "digits", label_noise=0.2, split_seed=split, seeds=SEEDS, alphas=ALPHAS
        )
    return found


@dataclass(frozen=True)
class Choice:
    """What a policy does: train with alpha, and rescale or not."""

    alpha: float
    rescale: bool
    cautious: bool = True  # with the temperature of the advice, or the usual one


@dataclass(frozen=True, eq=False)
class Pair:
    """One study: validation predictions by alpha, and what every choice is worth on test."""

    name: str
    validation: dict[float, list[Predictions]]
    nll: dict[Choice, float]
    accuracy: dict[float, float]

    @property
    def development(self) -> bool:
        return int(self.name.rsplit(" ", 1)[1]) in DEVELOPMENT

    def regret(self, goal: str, choice: Choice) -> float:
        """How much worse than the best choice in hindsight, on test."""
        if goal == "accuracy":
            return max(self.accuracy.values()) - self.accuracy[choice.alpha]
        return self.nll[choice] - min(self.nll.values())


def pair_of(name: str, records: Iterable[Record]) -> Pair:
    held = sorted(records, key=lambda record: (record.trial.alpha, record.trial.seed))
    by = {a: [record for record in held if record.trial.alpha == a] for a in ALPHAS}
    scaled = {
        a: [apply_temperature(r.test, cautious_temperature(r.validation)) for r in own]
        for a, own in by.items()
    }
    plain = {
        a: mean(nll(apply_temperature(r.test, fit_temperature(r.validation))) for r in own)
        for a, own in by.items()
    }
    values = {}
    for a, own in by.items():
        values[Choice(a, False)] = mean(nll(r.test) for r in own)
        values[Choice(a, True)] = mean(nll(one) for one in scaled[a])
        values[Choice(a, True, cautious=False)] = plain[a]
    right = {a: mean(accuracy(r.test) for r in own) for a, own in by.items()}
    return Pair(name, {a: [r.validation for r in own] for a, own in by.items()}, values, right)


def mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


# --- Policies: validation predictions by alpha -> a choice --------------------------------------

Validation = Mapping[float, list[Predictions]]


def smoothed_loss(p: Predictions, alpha: float) -> float:
    """The validation loss that most training scripts print: with smoothed labels."""
    return (1 - alpha) * nll(p) - alpha * float(np.asarray(p.log_probs).mean())


def on_smoothed_loss(validation: Validation) -> float:
    return min(validation, key=lambda a: mean(smoothed_loss(p, a) for p in validation[a]))


def lowest_nll(validation: Validation) -> Choice:
    """The lowest validation NLL of all, with no regard for luck."""
    losses = {}
    for a, seeds in validation.items():
        losses[Choice(a, False)] = mean(nll(p) for p in seeds)
        after = mean(nll(cross_fitted(p, fit=fit_temperature)[0]) for p in seeds)
        losses[Choice(a, True, cautious=False)] = after
    return min(losses, key=lambda choice: losses[choice])


def highest_accuracy(validation: Validation) -> Choice:
    best = max(validation, key=lambda a: mean(accuracy(p) for p in validation[a]))
    return Choice(best, False)


def ours(goal: str) -> Callable[[Validation], Choice]:
    def choose(validation: Validation) -> Choice:
        found = advise({str(a): seeds for a, seeds in validation.items()}, [goal])[goal]
        return Choice(float(found.arm), found.temperature is not None)

    return choose


POLICIES: dict[str, dict[str, Callable[[Validation], Choice]]] = {
    "probabilities": {
        "softhot's advice": ours("probabilities"),
        "never": lambda v: Choice(0.0, False),
        "always 0.1": lambda v: Choice(0.1, False),
        "tune on the smoothed validation loss": lambda v: Choice(on_smoothed_loss(v), False),
        "never, but rescale": lambda v: Choice(0.0, True, cautious=False),
        "always 0.1, and rescale": lambda v: Choice(0.1, True, cautious=False),
        "never, but rescale cautiously": lambda v: Choice(0.0, True),
        "always 0.1, and rescale cautiously": lambda v: Choice(0.1, True),
        "lowest validation NLL, rescaled or not": lowest_nll,
    },
    "accuracy": {
        "softhot's advice": ours("accuracy"),
        "never": lambda v: Choice(0.0, False),
        "always 0.1": lambda v: Choice(0.1, False),
        "tune on the smoothed validation loss": lambda v: Choice(on_smoothed_loss(v), False),
        "highest validation accuracy": highest_accuracy,
    },
}


def measured(found: list[Pair]) -> list[dict]:
    """One row for each goal and policy: regret pair by pair."""
    rows = []
    for goal, policies in POLICIES.items():
        for name, policy in policies.items():
            choices = [policy(pair.validation) for pair in found]
            single = [
                mean(
                    pair.regret(goal, policy({a: [seeds[s]] for a, seeds in v.items()}))
                    for s in range(SEEDS)
                )
                for pair in found
                for v in [pair.validation]
            ]
            rows.append(
                {
                    "goal": goal,
                    "policy": name,
                    "alpha": [choice.alpha for choice in choices],
                    "rescale": [choice.rescale for choice in choices],
                    "regret": [p.regret(goal, c) for p, c in zip(found, choices, strict=True)],
                    "regret_of_one_seed": single,
                }
            )
    return rows


FIELDS = ("regret", "regret_of_one_seed")


# --- The page ----------------------------------------------------------------------------------


def table(rows: list[dict], goal: str, development: np.ndarray) -> str:
    factor, digits = (100, 2) if goal == "accuracy" else (1, 4)
    lines = [
        "| policy | development | confirmation | worst | one seed: development | confirmation |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        if row["goal"] == goal:
            all_seeds, single = (np.array(row[k]) for k in ("regret", "regret_of_one_seed"))
            numbers = [
                all_seeds[development].mean(),
                all_seeds[~development].mean(),
                all_seeds.max(),
                single[development].mean(),
                single[~development].mean(),
            ]
            cells = " | ".join(f"{factor * n:.{digits}f}" for n in numbers)
            name = f"**{row['policy']}**" if "softhot" in row["policy"] else row["policy"]
            lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)


def by_pair(content: dict) -> str:
    goals = {(row["goal"], row["policy"]): row for row in content["rows"]}
    ours_nll, ours_acc = (goals[g, "softhot's advice"] for g in ("probabilities", "accuracy"))
    lines = [
        "| pair | for probabilities | regret, nats | never | always 0.1 | for accuracy "
        "| regret, points | never | always 0.1 |",
        "|---|---|---:|---:|---:|---|---:|---:|---:|",
    ]
    for i, name in enumerate(content["pairs"]):
        rescale = " and rescale" if ours_nll["rescale"][i] else ""
        nats = [ours_nll, *(goals["probabilities", rival] for rival in ("never", "always 0.1"))]
        points = [ours_acc, *(goals["accuracy", rival] for rival in ("never", "always 0.1"))]
        cells = [
            name.replace("_", " "),
            f"{ours_nll['alpha'][i]:g}{rescale}",
            *(f"{row['regret'][i]:.3f}" for row in nats),
            f"{ours_acc['alpha'][i]:g}",
            *(f"{100 * row['regret'][i]:.2f}" for row in points),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def page(content: dict) -> str:
    development = np.array(
        [int(name.rsplit(" ", 1)[1]) in DEVELOPMENT for name in content["pairs"]]
    )

    def rank(goal: str, of: np.ndarray, field: str = "regret") -> str:
        rows = [row for row in content["rows"] if row["goal"] == goal]
        means = {row["policy"]: np.array(row[field])[of].mean() for row in rows}
        own = means.pop("softhot's advice")
        ahead = [name for name, value in means.items() if value < own]
        return "lowest" if not ahead else f"behind “{'” and “'.join(ahead)}”"

    parts = [(of, field) for field in FIELDS for of in (development, ~development)]
    verdicts = [
        f"For {goal} the advice regrets least of all, on the pairs it was developed on and on "
        "those that confirm it, with all seeds to see and with one."
        if all(rank(goal, *part) == "lowest" for part in parts)
        else f"For {goal} the advice is {rank(goal, development)} on the pairs it was developed on "
        "and "
        f"{rank(goal, ~development)} on those that confirm it; with a single seed to see, "
        f"{rank(goal, development, 'regret_of_one_seed')} and "
        f"{rank(goal, ~development, 'regret_of_one_seed')}."
        for goal in POLICIES
    ]
    return TEXT.format(
        pairs=len(content["pairs"]),
        development=int(development.sum()),
        confirmation=int((~development).sum()),
        seeds=SEEDS,
        verdicts="\n".join(f"- {text}" for text in verdicts),
        nll=table(content["rows"], "probabilities", development),
        accuracy=table(content["rows"], "accuracy", development),
        by_pair=by_pair(content),
    )


TEXT = """# What following the advice costs

[`softhot.advice.advise`](../src/softhot/advice.py) says what to do from validation rows alone:
smooth or not, rescale or not, by what one cares about. This page compares it with simpler habits.
`python -m docs.regret` writes it: {pairs} pairs of a data set with a model and a split, each
trained at six alphas with {seeds} seeds. **Regret** is how much worse a choice is on test rows than
the best choice in hindsight, of all alphas, rescaled or not, both averaged over seeds: 0 is best.

{verdicts}

**Honesty.** The policy was made on the {development} pairs of splits 0 to 5. The {confirmation}
pairs of splits 6 and 7 were trained when it was finished, and confirm it or not. Simpler ones
failed on the way: to take the lowest validation NLL, and the one-standard-error rule with the usual
temperature. On 40 validation rows that were all right, that ran to its limit of 0.05, and test NLL
rose by half a nat. Not to rescale there cost as much in other pairs. A temperature fitted under
Platt's doubt mended both, and is what studies, judgements and remedies use. “One seed” shows every
policy the validation rows of one seed only, as when nobody can afford to train more. Other
processors round differently, which moves the last digits.

## For probabilities: test NLL, nats

{nll}

“Never”, “always 0.1” and what is tuned on the smoothed loss are used as trained, and that costs
most. “Rescale” is with the usual temperature, “cautiously” with that of the advice.

## For accuracy: test accuracy, points

{accuracy}

Differences in accuracy are small on these data: the wrong choice costs half a point, and a part of
every regret here is the luck of the test rows, which no policy can know.

## Pair by pair

{by_pair}
"""


def main() -> None:
    words = argparse.ArgumentParser("python -m docs.regret", description="Write the page.")
    words.add_argument("--runs", type=Path, default=Path("runs/regret"), help="where to train")
    folder = words.parse_args().runs
    found = []
    for name, spec in pairs().items():
        print(name, file=sys.stderr, flush=True)
        records = run(spec, folder / name.replace(", ", "-").replace(" ", "_")).records()
        found.append(pair_of(name, records))
    content = {"pairs": [pair.name for pair in found], "rows": measured(found)}
    rounded = json.loads(json.dumps(content), parse_float=lambda text: round(float(text), 5))
    DATA.write_text(json.dumps(rounded, separators=(",", ":")) + "\n", encoding="utf-8")
    PAGE.write_text(page(rounded), encoding="utf-8")


if __name__ == "__main__":
    main()
