"""`python -m docs.results RUN NAME`: writes what a run found to docs/results/NAME.json, small.

The file holds the command or the settings that make the run again, the verdict, each method's
chosen setting with its paired differences on test, and means over seeds of every arm.
"""

import json
import sys
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


def main():
    folder, name, *command = sys.argv[1:]
    content = {"command": " ".join(command), **summary(Store.open(folder))}
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
