"""What real studies found: docs/results/NAME.json, small, and docs/results.md, a page of them all.

`python -m docs.results RUN NAME COMMAND` writes the one of a run's folder; without arguments only
the page is written. A file holds the command and the settings that make the run again, the verdict,
each method's chosen setting with its paired differences on test, and means over seeds of every arm.
"""

import argparse
import json
from pathlib import Path

from softhot.studies import Store, compare

FOLDER = Path(__file__).parent / "results"
METRICS = ("accuracy", "nll", "brier", "ece", "gap", "aurc")


def rounded(value):
    return None if value is None else float(f"{value:.5g}")


def interval(estimate):
    return [rounded(v) for v in (estimate.mean, estimate.low, estimate.high)]


def summary(store):
    """The run as plain JSON."""
    records = store.records()
    found = compare(records, store.spec)
    arms = {}
    for arm in found.arms:
        columns = ("raw", "scaled", "desmoothed")
        scores = {column: getattr(arm, f"test_{column}") for column in columns}
        arms[arm.name] = {
            column: {name: rounded(of[name].mean) for name in METRICS}
            for column, of in scores.items()
            if of is not None
        } | {"temperature": rounded(arm.temperature.mean)}
    methods = {}
    for method in found.methods:
        advantages = {
            metric: {
                "difference": interval(one.difference),
                "p_holm": rounded(one.p),
                "probability_practical": rounded(one.practical),
            }
            for metric, one in method.advantages.items()
        }
        methods[method.name] = {"budget": method.budget, "chosen": method.chosen, **advantages}
    return {
        "study": store.spec.to_dict(),
        "versions": records[0].versions,
        "trials": len(records),
        "seconds_of_training": round(sum(record.seconds for record in records), 1),
        "seeds": list(found.seeds),
        "verdict": [found.verdict.headline, *found.verdict.sentences],
        "best_on_validation": found.best,
        "methods": methods,
        "arms": arms,
    }


TITLES = {
    "digits-00": "Digits, a perceptron",
    "digits-20": "Digits with 20 % wrong training labels",
    "digits-40": "Digits with 40 % wrong training labels",
    "fashion-mlp": "Fashion-MNIST, a perceptron",
    "fashion-cnn": "Fashion-MNIST, a small convolutional network",
    "movies-head": "Film reviews, a perceptron on frozen MiniLM",
    "movies-lstm": "Film reviews, an LSTM",
}
INTRO = """\
# What real studies found

One run each, on one split, paired over seeds. A difference is that to plain cross entropy on test,
with its 95 % interval over seeds. Each method shows the setting that validation chose by NLL after
temperature scaling; bold is what is left after Holm's correction over the methods of the run. NLL
and ECE are by hard labels; "scaled" is after temperature scaling, where a fall is a gain.
`python -m docs.results` writes this page.

What to take from them: on clean digits nearly every method helps, and smoothing is among the best.
The more labels are wrong, the less smoothing is the remedy: with 20 % it gains 2.6 points, weight
decay 10.7; with 40 % it loses one, weight decay gains 19.9. On clothes it gains at most a few
tenths of a point, and `online` targets or a penalty gain more. Training on the votes of about 20
people a sentence (`human`) is more accurate than plain training with the LSTM, and than smoothing
as strong as validation chose; with the perceptron on MiniLM both lose, and weight decay and dropout
do best. `negative` is told no noise rate here, and shows what that costs. The convolutions saw
1,000 rows and the perceptron 5,000: their commands say so.

Of all seven, plain training and uniform smoothing (40 trials each) were trained again four days
later, with later code and on another kind of processor. The means over seeds that stand below were
met to 0.16 points of accuracy, 0.003 nats of NLL and 0.3 points of ECE, raw and scaled; those of
the convolutions and the LSTM to four digits. The rest is rounding, which
[training amplifies](together.md).
"""


def page():
    """The page, as Markdown."""
    parts = [INTRO]
    for name, title in TITLES.items():
        path = FOLDER / f"{name}.json"
        if path.exists():
            parts.append(section(title, json.loads(path.read_text())))
    return "\n".join(parts)


def section(title, run):
    """One run: its command, the headline, and the methods, the most accurate first."""
    plain, methods = run["arms"]["none"], run["methods"]
    order = sorted(methods, key=lambda name: -methods[name]["accuracy"]["difference"][0])
    rows = [["none", *cells(plain), "", ""]]
    for name in order:
        method = methods[name]
        changes = [
            change(method["accuracy"], 100, 2),
            change(method["nll"], 1, 3),
        ]
        rows.append([method["chosen"], *cells(run["arms"][method["chosen"]]), *changes])
    head = ["", "accuracy, %", "NLL scaled", "ECE, points", "accuracy, points", "NLL scaled, nats"]
    table = [head, ["---", *["--:"] * 5], *rows]
    lines = ["| " + " | ".join(row) + " |" for row in table]
    seeds = f"{run['trials']} trials, seeds {run['seeds'][0]} to {run['seeds'][-1]}"
    return f"""\
## {title}

```console
$ {run["command"]}
```

{seeds}. {run["verdict"][0]}

{chr(10).join(lines)}
"""


def cells(arm):
    """Scores of an arm."""
    raw, scaled = arm["raw"], arm["scaled"]
    return [f"{100 * raw['accuracy']:.1f}", f"{scaled['nll']:.3f}", f"{100 * raw['ece']:.1f}"]


def change(found, factor, digits):
    """A difference with its interval, bold if it survives Holm's correction."""
    mean, low, high = (f"{factor * value:+.{digits}f}" for value in found["difference"])
    sure = found["p_holm"] is not None and found["p_holm"] < 0.05
    mean = f"**{mean}**" if sure else mean
    return f"{mean} ({low} to {high})".replace("-", "−")


def main():
    """Write docs/results.md, and first the file of one run if that is given."""
    words = argparse.ArgumentParser("python -m docs.results", description=main.__doc__)
    words.add_argument("run", nargs="?", help="folder of a run")
    words.add_argument("name", nargs="?", help="of its file in docs/results, without .json")
    words.add_argument("command", nargs=argparse.REMAINDER, help="that makes the run again")
    given = words.parse_args()
    if given.run and not given.command:
        words.error("a run wants a name, and the command that makes it again")
    if given.run:
        content = {"command": " ".join(given.command), **summary(Store.open(given.run))}
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / f"{given.name}.json").write_text(json.dumps(content, indent=1) + "\n")
    (FOLDER.parent / "results.md").write_text(page())


if __name__ == "__main__":
    main()
