"""Commands around a study: train it, see how far it is, report on it, list its data."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softhot.cli import FAILED, say
from softhot.cli.common import Json, app, print_json, versions
from softhot.core.check import InputError

if TYPE_CHECKING:
    from softhot.studies import Comparison, Store, StudySpec

RUNS = Path("runs")


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
    hidden: str | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    early_stopping: int | None = None,
    label_noise: float | None = None,
    imbalance: float | None = None,
    subset: int | None = None,
    image_size: int | None = None,
    folds: int | None = None,
    search: str | None = None,
    budget: int | None = None,
    goal: str = "probabilities",
    out: Path | None = None,
    jobs: int | None = None,
    executor: str | None = None,
    mlflow: str | None = None,
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
        settings: uniform, others, prior, similarity, ordinal, online, self_distillation, negative,
        confidence_penalty, maxsup, margin, focal, l2, dropout, mixup, human; or combinations, as
        uniform+dropout.
    model
        What is trained: linear, mlp, cnn (images), lstm (texts), head (on a frozen pretrained
        network), forest or boosting; or your Python file with train(trial) -> Predictions.
    seeds
        How many seeds; each trains every arm from the same initial weights on the same batches.
    epochs
        Passes over the training rows.
    hidden
        Widths of the model's layers, separated by commas, as 256,128.
    batch_size
        Rows of a step.
    learning_rate
        Step size of AdamW.
    early_stopping
        Passes without a better NLL on validation (hard labels) after which training stops.
    label_noise
        Share of training labels made wrong on purpose, from 0 to 1.
    imbalance
        How much rarer the last class is made than the first.
    subset
        How many training rows to keep.
    image_size
        Bring the images of a folder to so many pixels square.
    folds
        Cut training and validation rows into so many folds, which the seeds take turns to hold out.
    search
        How settings are found: grid, or optuna, which lets validation scores decide.
    budget
        Settings tried of each method: 5 unless you say otherwise, and at most those of a grid.
    goal
        What you care about, which chooses on validation: probabilities, accuracy, ranking.
    out
        Folder of the run; by default a folder in runs/ named after data set and settings.
    jobs
        Trials at a time; by default one for each processor.
    executor
        Where to train, if not here: dask://host:port, ray://host:port, ray://auto,
        slurm://partition?time=60, or dask://local, ray://local to start one here.
    mlflow
        Also log every trial to MLflow there, as file:mlruns or http://host:port.
    json
        Print the comparison as JSON instead of tables.
    """
    from softhot.studies import run
    from softhot.studies.compare import GOAL, whole_seeds
    from softhot.studies.groups import reasons

    GOAL.check("goal", goal)
    spec = _spec(
        source,
        alphas=_numbers("alphas", alphas),
        methods=None if methods is None else methods.split(","),
        model=model,
        seeds=seeds,
        epochs=epochs,
        hidden=_numbers("hidden", hidden, int, "256,128"),
        batch_size=batch_size,
        learning_rate=learning_rate,
        early_stopping=early_stopping,
        label_noise=label_noise,
        imbalance=imbalance,
        subset=subset,
        image_size=image_size,
        folds=folds,
        search=search,
        budget=budget,
    )
    folder = out or RUNS / f"{Path(spec.dataset).stem}-{spec.digest[:8]}"
    slower = reasons(spec.trials())  # told once training is under way: bad input is one line
    with _logger(spec, folder, mlflow) as log:
        with _progress(spec, folder, quiet=json) as show:
            callbacks = (partial(_one_by_one, slower), show, *([log] if log else []))
            every = partial(_each, callbacks)
            store = run(spec, folder, jobs=jobs, executor=executor, progress=every)
        for failure in store.failures:
            reason = " ".join(failure.reason.split())
            say(f"failed: {failure.trial.arm.name}, seed {failure.trial.seed}: {reason}")
        finished = {(record.trial.arm, record.trial.seed) for record in store.records()}
        if store.failures and not whole_seeds(finished, store.spec):
            again = "Mend it and run the same command again: finished trials are kept."
            say(f"No seed has all its trials, so nothing is compared. {again}")
            return FAILED
        _publish(store, goal, folder / "report.html", json)
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
        print_json(now.to_dict())
    else:
        from softhot.report.progress import status_parts
        from softhot.report.terminal import show

        for part in status_parts(now):
            show(part)
    return FAILED if now.failed else 0


@app.command
def report(
    folder: Path, /, *, goal: str = "probabilities", out: Path | None = None, json: Json = False
) -> int:
    """Make the report of a run again, from what is finished so far, without training.

    Example: softhot report runs/digits-1a2b3c4d --goal accuracy

    Parameters
    ----------
    folder
        Folder of the run.
    goal
        What you care about, which chooses on validation: probabilities, accuracy, ranking.
    out
        The page; by default report.html in the folder.
    json
        Print the comparison as JSON instead of tables.
    """
    from softhot.studies import Store
    from softhot.studies.compare import GOAL

    GOAL.check("goal", goal)
    store = Store.open(folder)
    for damage in store.damaged:
        say(f"{damage.name} is left out: {damage.reason}")
    _publish(store, goal, out or folder / "report.html", json)
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
        print_json({name: info.to_dict() for name, info in DATASETS.items()})
        return 0
    from softhot.report.terminal import datasets_table, show

    show(datasets_table(DATASETS))
    return 0


def _numbers(
    argument: str, text: str | None, kind: type = float, example: str = "0,0.1,0.2"
) -> tuple[Any, ...] | None:
    """Numbers separated by commas."""
    if text is None:
        return None
    try:
        return tuple(kind(number) for number in text.split(",") if text)
    except ValueError:
        hint = f"Write them like --{argument} {example}."
        raise InputError(argument, "numbers separated by commas", text, hint) from None


def _spec(source: str, **options: Any) -> StudySpec:
    """The study that a data set or a file and the options that were given ask for."""
    from softhot.studies import StudySpec

    path = Path(source)
    given = {name: value for name, value in options.items() if value is not None}
    if path.suffix == ".toml":
        return replace(StudySpec.read(path), **given)
    return StudySpec(dataset=source, **given)


def _publish(store: Store, goal: str, page: Path, as_json: bool) -> None:
    """Compare what is finished, write the page, and print the tables and the verdict."""
    from softhot.report import render, write
    from softhot.report.alerts import reused
    from softhot.report.command import study_command
    from softhot.studies import compare
    from softhot.studies.run import data
    from softhot.studies.status import failures

    records, spec = store.records(), store.spec
    comparison: Comparison = compare(records, spec, goal)
    dataset, split = data(spec)
    tested = dataset.take(split.test)
    # A model of the user's own may have been scored on rows of its own.
    known = tested.labels.tolist() == records[0].test.labels.tolist()
    html = render(
        comparison,
        records,
        command=study_command(spec, goal),
        versions=versions(),
        split_digest=split.digest,
        inputs=tested.features if known else None,
        class_names=dataset.class_names if known else None,
        failed=failures(store, records),
        reused=reused(store.folder, spec),
    )
    write(page, html)
    if as_json:
        print_json({**comparison.to_dict(), "report": str(page)})
        return
    from softhot.report.terminal import show, study_table, verdict

    show(study_table(comparison))
    show(verdict(comparison))
    show(f"Report: {page}")


def _progress(spec: StudySpec, folder: Path, quiet: bool) -> Any:
    from softhot.report.progress import TrialProgress

    return TrialProgress(len(spec.trials()), folder, quiet)


def _logger(spec: StudySpec, folder: Path, uri: str | None) -> Any:
    if uri is None:
        return nullcontext()
    try:
        from softhot.mlflow import TrialLogger

        return TrialLogger(spec, folder, uri=uri)
    except ModuleNotFoundError as error:
        hint = f"{error.name} is missing: pip install 'softhot[mlflow]'."
        raise InputError("mlflow", "left out without its library", uri, hint) from None


def _one_by_one(reasons: list[str], _: Any) -> None:
    """Say what keeps trials from training together, once."""
    while reasons:
        say(f"one by one: {reasons.pop(0)}")


def _each(callbacks: tuple[Any, ...], event: Any) -> None:
    for callback in callbacks:
        callback(event)
