"""The `softhot` command: each subcommand is one library call, its result printed."""

from __future__ import annotations

import json
import os
import shlex
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from softhot import __version__
from softhot.core.check import InputError, SofthotWarning

if TYPE_CHECKING:
    from softhot.studies import Comparison, Store, StudySpec

RUNS = Path("runs")
FAILED = 1  # exit codes: some trials failed,
BAD_INPUT = 2  # something given cannot be used,
INTERRUPTED = 130  # Ctrl-C,
BROKEN_PIPE = 141  # nobody reads the output any more

app = App(
    name="softhot",
    version=__version__,
    help="Label smoothing: whether to smooth, how much, and what it costs.",
    suppress_keyboard_interrupt=False,
)

# Settings of a study that are options of the command.
Json = Annotated[bool, Parameter(name="--json", negative=())]


@app.command
def study(
    source: str = "digits",
    /,
    *,
    alphas: str | None = None,
    methods: str | None = None,
    model: str | None = None,
    seeds: int | None = None,
    epochs: int | None = None,
    early_stopping: int | None = None,
    label_noise: float | None = None,
    imbalance: float | None = None,
    subset: int | None = None,
    folds: int | None = None,
    search: str | None = None,
    budget: int | None = None,
    select: str = "nll",
    out: Path | None = None,
    jobs: int | None = None,
    executor: str | None = None,
    json: Json = False,
) -> int:
    """Train with and without smoothing, over paired seeds, and say whether to smooth.

    Example: softhot study digits --methods uniform,dropout,l2 --label-noise 0.2 --seeds 5

    Interrupt it at any time: the same command continues where it stopped.

    Parameters
    ----------
    source
        A data set (softhot datasets lists them), or a study file (.toml) that these options change.
    alphas
        Smoothing weights, separated by commas; 0 (no smoothing) is always among them.
    methods
        What is compared with plain cross entropy, separated by commas, each at the same number of
        settings: uniform, others, prior, similarity, ordinal, online, confidence_penalty, maxsup,
        margin, focal, l2, dropout, mixup, human; or combinations, as uniform+dropout.
    model
        What is trained: linear, mlp, ..., or your Python file with train(trial) -> Predictions.
    seeds
        How many seeds; each trains every arm from the same initial weights on the same batches.
    epochs
        Passes over the training rows.
    early_stopping
        Passes without a better NLL on validation (hard labels) after which training stops.
    label_noise
        Share of training labels made wrong on purpose, from 0 to 1.
    imbalance
        How much rarer the last class is made than the first.
    subset
        How many training rows to keep.
    folds
        Cut training and validation rows into so many folds, which the seeds take turns to hold out.
    search
        How settings are found: grid, or optuna, which lets validation scores decide.
    budget
        Settings that a search tries for each method.
    select
        Metric that chooses on validation: nll, accuracy, brier, ece, ece_mass, gap, aurc.
    out
        Folder of the run; by default runs/<data set>-<digest of the study>.
    jobs
        Trials at a time; by default one for each processor.
    executor
        Where to train, if not here: dask://host:port, ray://host:port, ray://auto,
        slurm://partition?time=60, or dask://local, ray://local to start one here.
    json
        Print the comparison as JSON instead of tables.
    """
    from softhot.studies import run
    from softhot.studies.compare import SELECT

    SELECT.check("select", select)
    spec = _spec(
        source,
        alphas=_numbers("alphas", alphas),
        methods=None if methods is None else methods.split(","),
        model=model,
        seeds=seeds,
        epochs=epochs,
        early_stopping=early_stopping,
        label_noise=label_noise,
        imbalance=imbalance,
        subset=subset,
        folds=folds,
        search=search,
        budget=budget,
    )
    folder = out or RUNS / f"{Path(spec.dataset).stem}-{spec.digest[:8]}"
    with _progress(spec, folder, quiet=json) as show:
        store = run(spec, folder, jobs=jobs, executor=executor, progress=show)
    for failure in store.failures:
        _say(f"failed: {failure.trial.arm.name}, seed {failure.trial.seed}: {failure.reason}")
    _publish(store, select, folder / "report.html", json)
    return FAILED if store.failures else 0


@app.command
def status(folder: Path, /, *, json: Json = False) -> int:
    """How far a run is, from outside: what is finished, runs, failed, and which arm leads.

    Example: softhot status runs/digits-1a2b3c4d

    Parameters
    ----------
    folder
        Folder of the run.
    json
        Print it as JSON.
    """
    from softhot.studies.status import status as found

    now = found(folder)
    if json:
        _print_json(now.to_dict())
    else:
        from softhot.report.progress import status_parts
        from softhot.report.terminal import show

        for part in status_parts(now):
            show(part)
    return FAILED if now.failed else 0


@app.command
def report(
    folder: Path, /, *, select: str = "nll", out: Path | None = None, json: Json = False
) -> int:
    """Make the report of a run again, from what is finished so far, without training.

    Example: softhot report runs/digits-1a2b3c4d --select accuracy

    Parameters
    ----------
    folder
        Folder of the run.
    select
        Metric that chooses alpha on validation.
    out
        The page; by default report.html in the folder.
    json
        Print the comparison as JSON instead of tables.
    """
    from softhot.studies import Store
    from softhot.studies.compare import SELECT

    SELECT.check("select", select)
    store = Store.open(folder)
    for damage in store.damaged:
        _say(f"{damage.name} is left out: {damage.reason}")
    _publish(store, select, out or folder / "report.html", json)
    return 0


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
            versions=_versions(),
        )
        write(out, page)
    if json:
        _print_json(together.to_dict() if together else every[files[0].stem].to_dict())
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

        _print_json(ways()) if json else print(explained_kernels())
        return 0
    from softhot.core.check import OneOf
    from softhot.core.conventions import meanings
    from softhot.core.explain import explain as explained
    from softhot.core.rules import Others, Uniform

    rules = {"uniform": Uniform, "others": Others}
    explanation = explained(rules[OneOf(*rules).check("rule", rule)](alpha), classes)
    table = meanings(alpha, classes)
    if json:
        _print_json({**explanation.to_dict(), "conventions": table})
        return 0
    from softhot.report.terminal import conventions_table, show

    show(str(explanation))
    show(conventions_table(alpha, classes, table))
    return 0


@app.command
def reproduce(
    *,
    datasets: str = "digits,fashion_mnist",
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
        digits, fashion_mnist, or both, separated by a comma.
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
        _print_json(found.to_dict())
        return 0
    show(claims_table(found))
    show(f"Findings: {out}")
    return 0


@app.command
def datasets(*, fetch: str | None = None, json: Json = False) -> int:
    """List the data sets: what they are, whether they are here, where they come from.

    Example: softhot datasets --fetch movie_snippets

    Nothing is downloaded unless asked. Your own data needs no entry: give its path.

    Parameters
    ----------
    fetch
        Download this data set, verify its checksum and keep it.
    json
        Print the list as JSON.
    """
    from softhot.datasets import DATASETS
    from softhot.datasets import fetch as fetched

    if fetch is not None:
        print(f"{fetch}: {fetched(fetch)}")
        return 0
    if json:
        _print_json({name: info.to_dict() for name, info in DATASETS.items()})
        return 0
    from softhot.report.terminal import datasets_table, show

    show(datasets_table(DATASETS))
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options: dict[str, Any] = {"exit_on_error": False, "print_error": False}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", SofthotWarning)
            warnings.showwarning = lambda message, *_: _say(f"warning: {message}")
            code = app(arguments, result_action="return_value", **options)
    except (InputError, CycloptsError) as error:
        _say(" ".join(str(error).split()))
        return BAD_INPUT
    except BrokenPipeError:  # whoever read the output has seen enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        _say("Interrupted. What was finished is kept; the same command continues.")
        return INTERRUPTED
    return int(code or 0)


def _names(files: tuple[Path, ...]) -> list[str]:
    """Names of models: of their files, or their whole paths where two would be the same."""
    stems = [file.stem for file in files]
    names = stems if len(set(stems)) == len(stems) else [str(file) for file in files]
    if len(set(names)) != len(names):
        raise InputError("files", "different files", names)
    return names


def _numbers(argument: str, text: str | None) -> tuple[float, ...] | None:
    """Numbers separated by commas."""
    if text is None:
        return None
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        hint = f"Write them like --{argument} 0,0.1,0.2."
        raise InputError(argument, "numbers separated by commas", text, hint) from None


def _spec(source: str, **options: Any) -> StudySpec:
    """The study that a data set or a file and the options that were given ask for."""
    from softhot.studies import StudySpec

    path = Path(source)
    given = {name: value for name, value in options.items() if value is not None}
    if path.suffix == ".toml":
        return replace(StudySpec.read(path), **given)
    return StudySpec(dataset=source, **given)


def _publish(store: Store, select: str, page: Path, as_json: bool) -> None:
    """Compare what is finished, write the page, and print the tables and the verdict."""
    from softhot.report import render, write
    from softhot.report.alerts import reused
    from softhot.report.command import study_command
    from softhot.studies import compare
    from softhot.studies.run import data

    records, spec = store.records(), store.spec
    comparison: Comparison = compare(records, spec, select)
    dataset, split = data(spec)
    tested = dataset.take(split.test)
    # A model of the user's own may have been scored on rows of its own.
    known = tested.labels.tolist() == records[0].test.labels.tolist()
    html = render(
        comparison,
        records,
        command=study_command(spec, select),
        versions=_versions(),
        split_digest=split.digest,
        inputs=tested.features if known else None,
        class_names=dataset.class_names if known else None,
        failed=len(store.failures),
        reused=reused(store.folder, spec),
    )
    write(page, html)
    if as_json:
        _print_json({**comparison.to_dict(), "report": str(page)})
        return
    from softhot.report.terminal import show, study_table, verdict

    show(study_table(comparison))
    show(verdict(comparison))
    show(f"Report: {page}")


def _progress(spec: StudySpec, folder: Path, quiet: bool) -> Any:
    from softhot.report.progress import TrialProgress

    return TrialProgress(len(spec.trials()), folder, quiet)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {"softhot": __version__} | {name: version(name) for name in ("numpy", "altair")}


def _print_json(content: dict[str, Any]) -> None:
    print(json.dumps(content, indent=2))


def _say(line: str) -> None:
    print(f"softhot: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
