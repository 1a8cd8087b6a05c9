"""Lightning: calibration beside the validation loss, on hard labels.

The loss needs no adapter: ``self.criterion = softhot.torch.CrossEntropyLoss(label_smoothing=0.1)``
smooths in ``training_step`` and not in ``validation_step``, for Lightning calls ``eval()`` on the
module and so on the criterion in it. (As a local object, outside of the module, it would go on
smoothing.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ModuleNotFoundError as error:
    message = "softhot.lightning needs Lightning: pip install 'softhot[lightning]'"
    raise ModuleNotFoundError(message, name="lightning") from error

import torch
from torch import Tensor

from softhot.core.check import InputError, Interval, OneOf
from softhot.metrics import METRICS, Predictions

IDS = Interval(-float("inf"), float("inf"), "()", integer=True)
HINT = "Return {'loss': loss, 'logits': logits, 'labels': labels} from the step."


class CalibrationCallback(Callback):
    """Logs metrics of the whole validation set, and of the test set, at the end of each epoch.

    They are logged as ``val_nll``, ``val_ece``, ``test_nll``, ..., so that ``EarlyStopping`` and
    ``ModelCheckpoint`` can monitor them. All are on hard labels and over all rows at once, of all
    processes: the mean of the calibration errors of batches is not the calibration error.

    ``validation_step`` and ``test_step`` must return a dictionary with ``"logits"``: (N, K), or
    (N, K, d1, ...) as torch's losses take them. Labels are ``"labels"`` of the same dictionary or,
    if it has none, ``"labels"`` or the second element of the batch.

    Args:
        metrics: names from :data:`softhot.metrics.METRICS`.
        ignore_index: labels to leave out.

    The logits of an epoch are kept in memory, 4 K bytes a row. A distributed sampler that fills
    its last batch up counts a few rows twice, here as everywhere.

    Raises:
        InputError: naming argument, rule, value and next step.
    """

    def __init__(
        self,
        metrics: Sequence[str] = ("accuracy", "nll", "ece", "gap"),
        *,
        ignore_index: int = -100,
    ) -> None:
        if isinstance(metrics, str) or not metrics:
            raise InputError(
                "metrics", "a sequence of names", metrics, f"Choose from {[*METRICS]}."
            )
        self.metrics = tuple(OneOf(*METRICS).check("metrics", name) for name in metrics)
        self.ignore_index = IDS.check("ignore_index", ignore_index)
        self._rows: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._rows = {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        logits, labels = _logits(outputs), _labels(outputs, batch)
        # (N, K, d1, ...) beside (N, d1, ...) to rows
        logits = logits.detach().float().movedim(1, -1).cpu()
        labels = labels.detach().cpu()
        if labels.shape != logits.shape[:-1]:
            allowed = f"class ids of shape {tuple(logits.shape[:-1])}"
            raise InputError("labels", allowed, tuple(labels.shape), HINT)
        counts = labels != self.ignore_index
        rows = logits[counts].numpy(), labels[counts].numpy()
        self._rows.setdefault(dataloader_idx, []).append(rows)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log(pl_module, "val")

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log(pl_module, "test")

    def _log(self, pl_module: LightningModule, stage: str) -> None:
        everywhere = gather(self._rows)
        for loader in sorted({loader for rows in everywhere for loader in rows}):
            pairs = [pair for rows in everywhere for pair in rows.get(loader, [])]
            logits, labels = map(np.concatenate, zip(*pairs, strict=True))
            predictions = Predictions.from_logits(logits, labels)
            suffix = f"/dataloader_idx_{loader}" if loader or len(everywhere[0]) > 1 else ""
            for name in self.metrics:
                pl_module.log(
                    f"{stage}_{name}{suffix}",
                    METRICS[name].function(predictions),
                    batch_size=len(predictions),
                    add_dataloader_idx=False,
                )
        self._rows = {}


def gather(rows: Any) -> list[Any]:
    """What every process holds, by rank; just this one's where there is one."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return [rows]
    everywhere: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everywhere, rows)
    return everywhere


def _logits(outputs: Any) -> Tensor:
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else None
    if not isinstance(logits, Tensor) or logits.ndim < 2:
        raise InputError("the step's output", "a dictionary with 'logits'", outputs, HINT)
    return logits


def _labels(outputs: Mapping[str, Any], batch: Any) -> Tensor:
    if "labels" in outputs:
        return outputs["labels"]
    if isinstance(batch, Mapping) and "labels" in batch:
        return batch["labels"]
    if isinstance(batch, list | tuple) and len(batch) > 1 and isinstance(batch[1], Tensor):
        return batch[1]
    raise InputError("the step's output", "with 'labels'", sorted(outputs), HINT)
