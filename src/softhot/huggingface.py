"""Hugging Face: the loss of ``Trainer``, smoothed while training and on hard labels in evaluation.

>>> # Trainer(model, args, compute_loss_func=SmoothLoss(0.1), compute_metrics=HardMetrics(), ...)

It takes the place of ``TrainingArguments(label_smoothing_factor=...)``, which also smooths
``eval_loss`` (so runs with different factors cannot be compared), and which a
``compute_loss_func`` silently turns off.
"""

from __future__ import annotations

from typing import Any

import numpy as np

try:
    import torch
except ModuleNotFoundError as error:
    message = (
        "softhot.huggingface needs PyTorch and transformers: pip install 'softhot[huggingface]'"
    )
    raise ModuleNotFoundError(message, name="torch") from error

from torch import Tensor

from softhot.core.binary import Bernoulli, BinaryRule
from softhot.core.check import InputError, Interval
from softhot.core.rule import HARD, Rule, Uniform, check_rule
from softhot.core.weights import PerSample
from softhot.metrics import Predictions, score
from softhot.torch import binary_cross_entropy_with_logits, cross_entropy

IDS = Interval(-float("inf"), float("inf"), "()", integer=True)
# Outputs of models whose labels stand beside the logits; those of causal language models say so in
# the names of their classes too.
ALIGNED = ("TokenClassifier", "MaskedLM", "Seq2SeqLM")


class SmoothLoss:
    """Cross entropy under any softhot rule, for ``Trainer(compute_loss_func=)``.

    The loss is the sum over the labels that count, divided by ``num_items_in_batch`` where Trainer
    gives it: the number of labels in *all* the micro-batches of a step, so that gradient
    accumulation and padding change nothing. Without it, the mean.

    In evaluation ``eval_loss`` is the plain cross entropy on hard labels. Trainer calls this
    function for both and says nothing; what tells them apart is that gradients are switched off
    (:func:`torch.is_grad_enabled`) when it evaluates. Where the two differ, read ``eval_nll`` of
    :class:`HardMetrics`: Trainer averages ``eval_loss`` over batches, and for language models whose
    class is not named ``...ForCausalLM``, such as ``GPT2LMHeadModel``, transformers 5.23 counts the
    first labels too, which no position predicts.

    Encoder-decoder models make their inputs from the labels, which Trainer takes out of the batch
    for a loss function: ``DataCollatorForSeq2Seq(tokenizer, model=model)`` makes them before.

    Args:
        rule: a softhot rule that needs nothing from the batch; a number means ``Uniform(number)``.
            A binary rule, such as ``softhot.Bernoulli(0.1)``, is for models of several independent
            labels, whose own label smoothing Trainer switches off: labels are then 0/1 or
            probabilities of the shape of the logits, (N, K), and the mean is over all of them.
        shift: whether position t is to predict label t + 1, as in causal language models. "auto"
            reads it off the type of the model's output, and asks where that does not say.
        ignore_index: labels to leave out.

    The model's own loss is not used, nor class weights within it.

    Raises:
        InputError: naming argument, rule, value and next step.

    >>> import torch
    >>> outputs, labels = {"logits": torch.zeros(2, 4)}, torch.tensor([1, 3])
    >>> SmoothLoss(0.1)(outputs, labels)
    tensor(1.3863)
    >>> SmoothLoss(0.1)(outputs, labels, num_items_in_batch=8)  # 6 more in other micro-batches
    tensor(0.3466)
    """

    def __init__(
        self,
        rule: Rule | BinaryRule | float = 0.1,
        *,
        shift: bool | str = "auto",
        ignore_index: int = -100,
    ) -> None:
        self.shift = _check_shift(shift)
        self.ignore_index = IDS.check("ignore_index", ignore_index)
        self.rule: Any = rule
        if isinstance(rule, BinaryRule):
            return
        self.rule = check_rule(Uniform(rule) if isinstance(rule, float | int) else rule)
        if self.rule.base.FROM_BATCH or isinstance(self.rule.base.alpha, PerSample):
            hint = "Trainer hands the loss nothing else: write a compute_loss_func of your own."
            raise InputError("rule", "a rule that needs nothing from the batch", rule, hint)

    def __call__(
        self, outputs: Any, labels: Tensor | None, num_items_in_batch: Any = None
    ) -> Tensor:
        """The loss of a batch.

        Args:
            outputs: what the model returned: a mapping with ``"logits"``, or a tuple that starts
                with them; (N, K) or (N, T, K).
            labels: class ids (N,) or (N, T); or probabilities of the shape of the logits.
            num_items_in_batch: what to divide the sum by.
        """
        if labels is None:
            hint = "Name the column in TrainingArguments(label_names=[...])."
            raise InputError("labels", "in the batch", None, hint)
        logits = outputs["logits"] if hasattr(outputs, "keys") else outputs[0]
        labels = labels.to(logits.device)
        _check_shapes(logits, labels)
        if logits.ndim > 2 and _shifts(self.shift, outputs):
            logits, labels = logits[..., :-1, :], labels[:, 1:]
        reduction = "mean" if num_items_in_batch is None else "sum"
        try:
            total = self._reduced(logits, labels, reduction)
        except InputError as error:  # what torch calls target is labels here
            argument, hint = (
                text.replace("target", "labels") for text in (error.argument, error.hint)
            )
            raise InputError(argument, error.allowed, error.value, hint) from None
        if num_items_in_batch is None:
            return total
        # A step in which every label is left out has the loss 0, not NaN.
        return total / torch.as_tensor(num_items_in_batch, device=total.device).clamp(min=1)

    def _reduced(self, logits: Tensor, labels: Tensor, reduction: str) -> Tensor:
        smooth, classes = torch.is_grad_enabled(), logits.shape[-1]
        if isinstance(self.rule, BinaryRule):
            if labels.shape != logits.shape:
                hint = "A binary rule is for independent labels, and for one class of many Uniform."
                allowed = f"of the shape of the logits, {tuple(logits.shape)}"
                raise InputError("labels", allowed, tuple(labels.shape), hint)
            rule = self.rule if smooth else Bernoulli(0.0)
            where = labels != self.ignore_index
            return binary_cross_entropy_with_logits(
                logits, labels, rule, where=where, reduction=reduction
            )
        soft = labels.shape == logits.shape
        return cross_entropy(
            logits.reshape(-1, classes),
            labels.reshape(-1, classes) if soft else labels.reshape(-1),
            self.rule if smooth else HARD,
            ignore_index=self.ignore_index,
            reduction=reduction,
        )

    def __repr__(self) -> str:
        return f"SmoothLoss({self.rule!r}, shift={self.shift!r})"


class HardMetrics:
    """Every metric of :data:`softhot.metrics.METRICS`, for ``Trainer(compute_metrics=)``.

    Trainer reports them as ``eval_nll``, ``eval_accuracy``, ``eval_ece``, ``eval_gap``, ...: on
    hard labels, so runs with different smoothing compare. ``metric_for_best_model="nll"`` with
    ``greater_is_better=False``, and ``hyperparameter_search(compute_objective=lambda m:
    m["eval_nll"])``, choose by them.

    Args:
        shift: whether position t predicts label t + 1; to be said for logits (N, T, K).
        ignore_index: labels to leave out.

    >>> logits, labels = np.zeros((2, 4)), np.array([1, -100])
    >>> round(HardMetrics()((logits, labels))["nll"], 4)
    1.3863
    """

    def __init__(self, *, shift: bool | str = "auto", ignore_index: int = -100) -> None:
        self.shift = _check_shift(shift)
        self.ignore_index = IDS.check("ignore_index", ignore_index)

    def __call__(self, predictions: Any) -> dict[str, float]:
        """The scores of an ``EvalPrediction``, or of a pair of logits and labels."""
        logits, labels = tuple(predictions)[:2]
        logits = np.asarray(logits[0] if isinstance(logits, tuple) else logits)
        labels = np.asarray(labels)
        _check_shapes(logits, labels)
        if labels.shape == logits.shape:
            raise InputError("labels", "class ids", labels.dtype, "The metrics are on hard labels.")
        if logits.ndim > 2 and _shifts(self.shift, None):
            logits, labels = logits[..., :-1, :], labels[:, 1:]
        counts = labels != self.ignore_index
        return score(Predictions.from_logits(logits[counts], labels[counts]))


def _check_shift(shift: Any) -> bool | str:
    if not isinstance(shift, bool) and shift != "auto":
        raise InputError("shift", "True, False or 'auto'", shift)
    return shift


def _check_shapes(logits: Any, labels: Any) -> None:
    """Refuse what is no (N, K) or (N, T, K) beside its labels: each layout has traps of its own."""
    if logits.ndim not in (2, 3):
        hint = "For class axes elsewhere wrap softhot.torch.cross_entropy in a function."
        raise InputError("logits", "of shape (N, K) or (N, T, K)", tuple(logits.shape), hint)
    if tuple(labels.shape) not in (tuple(logits.shape[:-1]), tuple(logits.shape)):
        allowed = f"of shape {tuple(logits.shape[:-1])}, as the logits without classes"
        raise InputError("labels", allowed, tuple(labels.shape))


def _shifts(shift: bool | str, outputs: Any) -> bool:
    """Whether the logits are to be compared with the labels of the next position."""
    if isinstance(shift, bool):
        return shift
    names = [cls.__name__ for cls in type(outputs).__mro__]
    if any("CausalLM" in name for name in names):
        return True
    if any(kind in name for name in names for kind in ALIGNED):
        return False
    hint = "Position t of a causal language model predicts label t + 1: True. Others: False."
    raise InputError("shift", f"True or False for an output {names[0]}", "auto", hint)
