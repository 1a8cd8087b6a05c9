"""The subcommands: each is one library call, its result printed."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from softhot.cli import studies
from softhot.cli.common import Json, app, print_json, versions
from softhot.core.check import InputError

__all__ = ["app", "studies"]


@app.command
def judge(*files: Path, out: Path | None = None, json: Json = False) -> int:
    """Judge saved predictions: calibration, what rescaling does, what smoothing would do.

    Example: softhot judge predictions.npz --out judgement.html

    Several files are models on the same rows; each is compared with the first, row by row.

    Parameters
    ----------
    files
        .npz with labels and logits or probs; or .csv, .parquet with columns label, logit_0 ...
        (or prob_0 ...). A file of any size is read in bounded memory.
    out
        Also write the page with plots here (.html).
    json
        Print the judgement as JSON instead of a table.
    """
    from softhot.files import read_predictions
    from softhot.judge import judge as judged
    from softhot.judge import side_by_side

    if not files:
        hint = "Write softhot judge predictions.npz."
        raise InputError("files", "at least one file of predictions", "none", hint)
    models = {name: read_predictions(file) for name, file in zip(_names(files), files, strict=True)}
    together = side_by_side(models) if len(models) > 1 else None
    every = together.judgements if together else {n: judged(p) for n, p in models.items()}
    sentences = together.sentences if together else every[files[0].stem].sentences
    if out is not None:
        from softhot.report import render_judgement, write

        page = render_judgement(
            ", ".join(file.name for file in files),
            models,
            sentences,
            scaled={name: one.scaled for name, one in every.items()},
            temperatures={name: one.temperature for name, one in every.items()},
            intervals={name: one.intervals for name, one in every.items()},
            command=shlex.join(["softhot", "judge", *map(str, files), "--out", str(out)]),
            versions=versions(),
        )
        write(out, page)
    if json:
        print_json(together.to_dict() if together else every[files[0].stem].to_dict())
        return 0
    from softhot.report.terminal import differences_table, forecast_table, judgement_table, show

    for name, one in every.items():
        show(judgement_table(one, name if together else ""))
        show("\n".join(one.sentences))
        show(forecast_table(one))
    if together:
        show(differences_table(together))
        show("\n".join(together.sentences))
    if out is not None:
        show(f"Page: {out}")
    return 0


@app.command
def explain(
    *,
    alpha: float = 0.1,
    classes: int = 10,
    rule: str = "uniform",
    kernels: Annotated[bool, Parameter(negative=())] = False,
    json: Json = False,
) -> int:
    """Say what a smoothing weight does: targets by convention, the optimum, the loss floor.

    Example: softhot explain --alpha 0.1 --classes 10

    Parameters
    ----------
    alpha
        The number given as label_smoothing.
    classes
        Number of classes.
    rule
        The convention to explain in full: uniform or others.
    kernels
        Say instead which code computes losses on this machine, and why.
    json
        Print it as JSON.
    """
    if kernels:
        from softhot.kernels import explain as explained_kernels
        from softhot.kernels import ways

        print_json(ways()) if json else print(explained_kernels())
        return 0
    from softhot.core.check import OneOf
    from softhot.core.conventions import meanings
    from softhot.core.explain import explain as explained
    from softhot.core.rules import Others, Uniform

    rules = {"uniform": Uniform, "others": Others}
    explanation = explained(rules[OneOf(*rules).check("rule", rule)](alpha), classes)
    table = meanings(alpha, classes)
    if json:
        print_json({**explanation.to_dict(), "conventions": table})
        return 0
    from softhot.report.terminal import conventions_table, show

    show(str(explanation))
    show(conventions_table(alpha, classes, table))
    return 0


@app.command
def reproduce(
    *,
    datasets: str = "digits,fashion_mnist,fashion_mnist_3000",
    claims: str | None = None,
    seeds: int = 10,
    out: Path = Path("claims.json"),
    json: Json = False,
) -> int:
    """Measure ten claims of the literature again, and say which of them hold.

    Example: softhot reproduce --datasets digits --claims accuracy,calibration

    Interrupt it at any time: each claim is kept when it is measured, the same command continues.

    Parameters
    ----------
    datasets
        Some of these, separated by commas: digits (half a minute), fashion_mnist with 50,000
        rows to train on (about a quarter of an hour), and with 3,000 (two minutes).
    claims
        Some of: confidence, accuracy, nll, calibration, calibratable, desmoothing, selective,
        clusters, distillation, noise. By default all.
    seeds
        Pairs of runs for each comparison, at least 3.
    out
        Where findings are kept (.json).
    json
        Print the findings as JSON instead of a table.
    """
    from softhot.report.claims import Training, claims_table
    from softhot.report.terminal import show
    from softhot.reproduce import reproduce as reproduced

    names = None if claims is None else [name.strip() for name in claims.split(",")]
    with Training(quiet=json) as tick:
        found = reproduced(
            [n.strip() for n in datasets.split(",")], claims=names, seeds=seeds, out=out, tick=tick
        )
    if json:
        print_json(found.to_dict())
        return 0
    show(claims_table(found))
    show(f"Findings: {out}")
    return 0


def _names(files: tuple[Path, ...]) -> list[str]:
    """Names of models: of their files, or their whole paths where two would be the same."""
    stems = [file.stem for file in files]
    names = stems if len(set(stems)) == len(stems) else [str(file) for file in files]
    if len(set(names)) != len(names):
        raise InputError("files", "different files", names)
    return names
