"""MLflow: a study's trials as runs of an experiment, while it trains or afterwards.

>>> from softhot.mlflow import TrialLogger
>>> with TrialLogger(spec, "runs/mine", uri="file:mlruns") as log:  # doctest: +SKIP
...     run(spec, "runs/mine", progress=log)

A study is one run, its trials are runs below it. A trial's metrics are those on validation rows,
by hard labels; numbers of test rows are in the comparison alone, which is logged for the whole
study, so that nobody picks a trial by its test score. What is logged already is not logged again.
"""

from __future__ import annotations

import math
import os
import warnings
from pathlib import Path
from typing import Any

from softhot.core.check import InputError
from softhot.metrics import METRICS
from softhot.studies import Progress, Record, Store, StudySpec, compare
from softhot.studies.compare import whole_seeds
from softhot.studies.run import check
from softhot.studies.spec import TrialSpec
from softhot.studies.status import name

EXPERIMENT = "softhot"
KEY, STUDY = "softhot.trial", "softhot.study"  # tags by which runs are found again
PARENT = "mlflow.parentRunId"


class TrialLogger:
    """A callback for :func:`softhot.studies.run`, and a context that logs the end.

    The first trial that is over begins the study's run, with what is finished from earlier below
    it: a study that cannot begin leaves nothing in MLflow. Leaving the context without an error
    logs the comparison of what is finished. So without training, ``with TrialLogger(spec, folder):
    pass`` logs a run that is over.

    Args:
        spec: The study.
        folder: The folder of its run.
        uri: Where MLflow keeps its runs, as ``file:mlruns`` or ``http://host:port``; None is
            MLflow's own setting.
        experiment: Its name; made if there is none.

    Raises:
        InputError: The study cannot be trained on its data; MLflow refuses the address or does
            not answer.
    """

    def __init__(
        self,
        spec: StudySpec,
        folder: str | Path,
        *,
        uri: str | None = None,
        experiment: str = EXPERIMENT,
    ) -> None:
        if uri is not None and not uri.strip():
            hint = "For instance file:mlruns, or http://host:port."
            raise InputError("mlflow", "an address where MLflow answers", uri, hint)
        if uri is None or uri.startswith("file:") or "://" not in uri:
            # Newer versions want to be told that a folder of files is what is meant.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow.tracking import MlflowClient

        check(spec)  # before MLflow makes a folder or a database
        self.spec, self.folder, self.experiment = spec, Path(folder), experiment
        self.parent = ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that a folder of files is not for many users
                self.client = MlflowClient(tracking_uri=uri)
                self.client.get_experiment_by_name(experiment)
        except Exception as error:  # MLflow, its store and the network each have their own
            hint = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise InputError("mlflow", "an address where MLflow answers", uri, hint) from None

    def __enter__(self) -> TrialLogger:
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        if kind is not None:
            if self.parent:
                self.client.set_terminated(self.parent, "KILLED")
            return
        self._begin()
        store = Store.open(self.folder)
        records, spec = store.records(), store.spec  # with the settings that a search has found
        if whole_seeds({(one.trial.arm, one.trial.seed) for one in records}, spec):
            content = compare(records, spec).to_dict()
            self.client.log_dict(self.parent, content, "comparison.json")
        if (page := self.folder / "report.html").exists():
            self.client.log_artifact(self.parent, str(page))
        for key, value in self.spec.to_dict().items():
            self._param(self.parent, key, value)
        self.client.set_terminated(self.parent, "FAILED" if store.pending() else "FINISHED")

    def __call__(self, event: Progress) -> None:
        """One more trial is over."""
        self._begin()
        if event.failure is None:
            found = Store.open(self.folder, sweep=False).look(event.trial)
            if isinstance(found, Record):
                self._finished(found)
            return
        run = self._trial(event.trial)
        self.client.set_tag(run, "softhot.error", event.failure)
        self.client.set_terminated(run, "FAILED")

    def _begin(self) -> None:
        """The study's run, unless it is there, and what is finished from earlier below it."""
        if self.parent:
            return
        found = self.client.get_experiment_by_name(self.experiment)
        made = found.experiment_id if found else self.client.create_experiment(self.experiment)
        self.number = made
        self.parent = self._run(STUDY, self.spec.digest, f"softhot {self.spec.dataset}", {})
        for record in Store.open(self.folder, sweep=False).records():
            self._finished(record)

    def _finished(self, record: Record) -> None:
        run = self._trial(record.trial)
        if self.client.get_run(run).info.status == "FINISHED":
            return
        for metric in METRICS.values():
            value = metric.function(record.validation)
            self.client.log_metric(run, f"validation.{metric.name}", value)
        if not math.isnan(record.seconds):
            self.client.log_metric(run, "seconds", record.seconds)
        self.client.set_terminated(run, "FINISHED")

    def _trial(self, trial: TrialSpec) -> str:
        content = trial.to_dict()
        arm = content.pop("arm")
        params = {**content, "arm": trial.arm.name, "method": arm["method"]}
        return self._run(KEY, trial.key, name(trial), params, {PARENT: self.parent})

    def _run(
        self,
        tag: str,
        value: str,
        title: str,
        params: dict[str, Any],
        tags: dict[str, str] | None = None,
    ) -> str:
        """The run with that tag; a new one if there is none."""
        tags = {tag: value, **(tags or {})}
        words = " and ".join(f"tags.`{key}` = '{text}'" for key, text in tags.items())
        found = self.client.search_runs([self.number], words, max_results=1)
        if found:
            return found[0].info.run_id
        run = self.client.create_run(self.number, tags=tags, run_name=title).info.run_id
        for key, param in params.items():
            self._param(run, key, param)
        return run

    def _param(self, run: str, key: str, value: Any) -> None:
        self.client.log_param(run, key, str(value)[:500])
