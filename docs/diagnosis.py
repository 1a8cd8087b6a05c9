"""Write docs/diagnosis.md: what ``softhot.diagnose`` finds in public losses and recipes.

    python -m docs.diagnosis

torch, Keras and optax are the installed ones. Other losses are formulas, written here anew from
what their projects define, so that they need not be installed; so are the recipes of tutorials.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "numpy"  # what is loaded later must not matter

import keras
import numpy as np
import optax
import torch
import torch.nn.functional as F

import softhot
import softhot.torch
from softhot.core.diagnosis.diagnose import Diagnosis, diagnose
from softhot.core.diagnosis.mistakes import CHECKS

PAGE = Path(__file__).with_suffix(".md")
E = 0.1  # the argument passed to everything
MADE = ("Installed frameworks", "softhot")  # those that take it as an argument here
INTRO = """\
# What public losses smooth

Every row below was found by `softhot.diagnose`, which probes a loss or a recipe and does not read
it: it evaluates a loss at random logits, solves for the target it must be trained on, names the
convention, and tries what is known to go wrong. All were made with the argument 0.1. Rows of
*installed frameworks* ran the version they name; *formulas* are written anew from the definition
of each project, and say nothing about versions that define it otherwise; *recipes* are those of
tutorials.

Write this page anew with `python -m docs.diagnosis`; do the same to a loss of your own with

```python
print(softhot.diagnose(my_loss, argument=0.1))
```

**Alpha** is the argument in the convention named; **uniform** is the same target in the
convention of Szegedy et al. (2016), the common measure. What a mistake looks like is told, loss by
loss, below the tables. A mistake in this list may be documented behaviour of the loss: it is here
because it surprises.
"""


# Losses of other projects, as formulas


def timm(z, y):
    """nll and the mean of all -log p, mixed."""
    log_p = z.log_softmax(-1)
    nll = -log_p.gather(-1, y.unsqueeze(1)).squeeze(1)
    return ((1 - E) * nll - E * log_p.mean(-1)).mean()


def timm_binary(z, y):
    """On and off values on K sigmoids; dense targets pass as they are."""
    if y.shape != z.shape:
        off = E / z.shape[-1]
        y = torch.full_like(z, off).scatter_(1, y.long().view(-1, 1), 1 - E + off)
    return F.binary_cross_entropy_with_logits(z, y)


def hugging_face(z, y, ignore=-100):
    """The sum over classes in float32; padding masked after a clamp."""
    minus_log_p = -z.log_softmax(-1)
    y = y.unsqueeze(-1)
    padding = y.eq(ignore)
    nll = minus_log_p.gather(-1, y.clamp(min=0)).masked_fill(padding, 0.0)
    total = minus_log_p.sum(-1, keepdim=True, dtype=torch.float32).masked_fill(padding, 0.0)
    active = padding.numel() - padding.sum()
    return (1 - E) * nll.sum() / active + E * total.sum() / (active * z.shape[-1])


def fairseq(share_of_others: bool, pad=1):
    """The sum over classes weighted by e/K, or by e/(K - 1) with the true class made up for."""

    def loss(z, y):
        log_p, y = z.log_softmax(-1), y.unsqueeze(-1)
        keep = y.ne(pad)
        nll, total = -log_p.gather(-1, y)[keep], -log_p.sum(-1, keepdim=True)[keep]
        if share_of_others:
            each = E / (z.shape[-1] - 1)
            return ((1 - E - each) * nll + each * total).sum()
        return ((1 - E) * nll + E / z.shape[-1] * total).sum()

    return loss


def open_nmt(log_p, y, pad=0):
    """KL divergence from log-probabilities; nothing on the padding class."""
    q = torch.full_like(log_p, E / (log_p.shape[1] - 2))
    q[:, pad] = 0
    q = q.scatter(1, y.unsqueeze(1), 1 - E).masked_fill((y == pad).unsqueeze(1), 0)
    return F.kl_div(log_p, q, reduction="sum")


def classy_vision(z, y):
    """e/K added to one-hot rows, which are then normalised."""
    q = F.one_hot(y, z.shape[1]) + E / z.shape[1]
    return -(q / q.sum(1, keepdim=True) * z.log_softmax(1)).sum(1).mean()


def megatron(z, y):
    """e made e K/(K - 1), then the uniform rule."""
    k = z.shape[-1]
    a = E * k / (k - 1)
    log_p = z.log_softmax(-1)
    return -(1 - a) * log_p.gather(-1, y.unsqueeze(-1)).squeeze(-1) - a * log_p.mean(-1)


def segmentation_models(z, y, ignore=-100):
    """Masked entries are zero, and stay in the mean."""
    log_p = z.log_softmax(1)
    y = y.unsqueeze(1)
    padding = y.eq(ignore)
    nll = -log_p.gather(1, y.masked_fill(padding, 0)).masked_fill(padding, 0.0)
    total = -log_p.sum(1, keepdim=True).masked_fill(padding, 0.0)
    return (1 - E) * nll.mean() + E / z.shape[1] * total.mean()


def segmentation_models_binary(z, y):
    """1 - e for positives, e for negatives."""
    return F.binary_cross_entropy_with_logits(z, (1 - y) * E + y * (1 - E))


def mmpretrain_multi_label(z, y):
    """Every positive target becomes 1 - e."""
    return F.binary_cross_entropy_with_logits(z, torch.full_like(y, E).masked_fill(y > 0, 1 - E))


def yolo(z, y):
    """1 - e/2 and e/2 on K sigmoids."""
    q = torch.full_like(z, 0.5 * E)
    q[range(len(y)), y] = 1 - 0.5 * E
    return F.binary_cross_entropy_with_logits(z, q)


def conv_e(p, y):
    """1/K added, whatever e is."""
    return F.binary_cross_entropy(p, (1 - E) * y + 1.0 / y.shape[1])


# Recipes of tutorials: the three documents softhot started from


def ids_recipe(labels):
    """The formula for one-hot rows, of ids; K counted in the batch."""
    return (1 - E) * labels + E / len(np.unique(labels))


def one_hot_recipe(rows):
    """The definition, for one-hot rows."""
    return (1 - E) * rows + E / rows.shape[-1]


def others_recipe(z, y):
    """e/(K - 1) filled in, 1 - e scattered."""
    log_p = z.log_softmax(-1)
    q = torch.full_like(log_p, E / (z.shape[1] - 1)).scatter_(1, y.unsqueeze(1), 1 - E)
    return (-q * log_p).sum(-1).mean()


def predictions_recipe(z, y):
    """The probabilities are mixed with 1/K, not the labels."""
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    p = (1 - E) * p + E / p.shape[-1]
    return -np.log(np.take_along_axis(p, y[:, None], -1)).mean()


def multi_label_recipe(rows):
    """As meant: the line that copies the labels does not parse."""
    rows = rows.copy()
    rows *= 1 - E
    rows += E / rows.shape[1]
    return rows


def where_recipe(rows):
    """Assigned in place."""
    rows[np.where(rows == 0)] = 0.1
    rows[np.where(rows == 1)] = 0.9
    return rows


def one_based_recipe(labels, num_classes):
    """e everywhere, 1 - e at the label less 1."""
    rows = np.full((len(labels), num_classes), E)
    for row, label in zip(rows, labels, strict=True):
        row[label - 1] = 1 - E
    return rows


@dataclass(frozen=True, eq=False)
class Subject:
    """One row of the page: what it is, from the argument to the thing, and how to probe it."""

    title: str
    make: Callable[[float], Any]
    options: dict[str, Any] = field(default_factory=dict)
    group: str = "Formulas of other projects"
    distribution: str = ""

    @cached_property
    def name(self) -> str:
        """Title, with the version of what is installed."""
        return f"{self.title} {version(self.distribution)}" if self.distribution else self.title

    def diagnose(self) -> Diagnosis:
        """The diagnosis, telling it the argument."""
        options: dict[str, Any] = {"argument": E, **self.options}
        if self.group in MADE:
            options["make"] = self.make
        return diagnose(self.make(E), **options)


def _installed(title: str, make: Callable[[float], Any], where: str, **options: Any) -> Subject:
    return Subject(title, make, options, "Installed frameworks", where)


def _formula(title: str, loss: Callable[..., Any], **options: Any) -> Subject:
    return Subject(title, lambda e: loss, options)


def _recipe(title: str, recipe: Callable[..., Any], **options: Any) -> Subject:
    return Subject(title, lambda e: recipe, options, "Recipes of tutorials")


def _softhot(title: str, make: Callable[[float], Any], **options: Any) -> Subject:
    return Subject(title, make, options, "softhot")


losses = keras.losses
SUBJECTS: tuple[Subject, ...] = (
    _installed(
        "`CrossEntropyLoss`, torch", lambda e: torch.nn.CrossEntropyLoss(label_smoothing=e), "torch"
    ),
    _installed(
        "`CrossEntropyLoss(weight=...)`, weights 1:20, torch",
        lambda e: torch.nn.CrossEntropyLoss(torch.tensor([1.0, 20.0]), label_smoothing=e),
        "torch",
        num_classes=2,
    ),
    _installed(
        "`CategoricalCrossentropy`, Keras",
        lambda e: losses.CategoricalCrossentropy(label_smoothing=e),
        "keras",
    ),
    _installed(
        "`CategoricalCrossentropy(from_logits=True)`, Keras",
        lambda e: losses.CategoricalCrossentropy(from_logits=True, label_smoothing=e),
        "keras",
    ),
    _installed(
        "`CategoricalCrossentropy(axis=1)`, Keras",
        lambda e: losses.CategoricalCrossentropy(from_logits=True, axis=1, label_smoothing=e),
        "keras",
    ),
    _installed(
        "`BinaryCrossentropy`, Keras",
        lambda e: losses.BinaryCrossentropy(label_smoothing=e),
        "keras",
    ),
    _installed(
        "`CategoricalFocalCrossentropy`, Keras",
        lambda e: losses.CategoricalFocalCrossentropy(label_smoothing=e),
        "keras",
    ),
    _installed(
        "`softmax_cross_entropy` of `smooth_labels`, optax",
        lambda e: lambda z, y: optax.softmax_cross_entropy(z, optax.smooth_labels(y, e)),
        "optax",
    ),
    _installed("`smooth_labels`, optax", lambda e: lambda y: optax.smooth_labels(y, e), "optax"),
    _formula("timm 1.0 `LabelSmoothingCrossEntropy`", timm),
    _formula("timm 1.0 `BinaryCrossEntropy`", timm_binary),
    _formula("Hugging Face transformers 5 `LabelSmoother`", hugging_face),
    _formula("fairseq, e/K version, padding 1", fairseq(False), ignore_index=1),
    _formula("fairseq, e/(K - 1) version, padding 1", fairseq(True), ignore_index=1),
    _formula("OpenNMT-py, padding 0", open_nmt, ignore_index=0),
    _formula("ClassyVision", classy_vision),
    _formula("Megatron-LM", megatron),
    _formula("segmentation_models `SoftCrossEntropyLoss`", segmentation_models),
    _formula("segmentation_models `SoftBCEWithLogitsLoss`", segmentation_models_binary),
    _formula("mmpretrain `LabelSmoothLoss`, multi-label", mmpretrain_multi_label),
    _formula("YOLOv5 class loss", yolo),
    _formula("ConvE", conv_e),
    _recipe("slides, 1: smooth the labels", ids_recipe),
    _recipe("slides, 3: the definition", one_hot_recipe),
    _recipe("slides, 5: a PyTorch loss", others_recipe),
    _recipe("slides, 7: smooth the softmax", predictions_recipe),
    _recipe("slides, 8: multi-label", multi_label_recipe, takes="multi_hot"),
    _recipe("post: `np.where`", where_recipe),
    _recipe("post: `remap`", one_based_recipe),
    _recipe(
        'newsletter: "to all other classes"',
        lambda y: softhot.smooth_labels(y, softhot.Others(E), num_classes=10),
    ),
    _softhot(
        "`softhot.torch.CrossEntropyLoss`",
        lambda e: softhot.torch.CrossEntropyLoss(label_smoothing=e),
    ),
    _softhot(
        "`softhot.cross_entropy`, Others",
        lambda e: lambda z, y: softhot.cross_entropy(z, y, softhot.Others(e)),
    ),
    _softhot(
        "`softhot.binary_cross_entropy`, Bernoulli",
        lambda e: lambda z, y: softhot.binary_cross_entropy(z, y, softhot.Bernoulli(e)),
    ),
    _softhot(
        "`softhot.smooth_labels`", lambda e: lambda y: softhot.smooth_labels(y, e, num_classes=10)
    ),
)


def row(subject: Subject, found: Diagnosis) -> str:
    """A line of a table."""
    alpha, uniform = (
        "" if value is None else f"{value:.4g}" for value in (found.alpha, found.uniform)
    )
    targets = "" if found.on is None else f"{found.on:.4g}, {found.off:.4g}"
    mistakes = "; ".join(mistake.name for mistake in found.mistakes) or "none found"
    cells = (subject.name, found.form or found.kind, found.convention, alpha, uniform, targets)
    return "| " + " | ".join((*cells, mistakes)) + " |"


def diagnoses() -> dict[Subject, Diagnosis]:
    """What is found in each."""
    return {subject: subject.diagnose() for subject in SUBJECTS}


def render(found: dict[Subject, Diagnosis]) -> str:
    """The page."""
    lines = [INTRO]
    for group in dict.fromkeys(subject.group for subject in SUBJECTS):
        lines += [f"## {group}", ""]
        lines.append("| what | is a | convention | alpha | uniform | true, other | mistakes |")
        lines.append("|---|---|---|---|---|---|---|")
        lines += [row(s, d) for s, d in found.items() if s.group == group]
        lines.append("")
    lines += ["## The mistakes", ""]
    for name, check in CHECKS.items():
        seen = [(s, m) for s, d in found.items() for m in d.mistakes if m.name == name]
        if seen:
            lines += [f"### {name}", "", check.remedy, ""]
            lines += [f"- {subject.name}: {mistake.evidence}" for subject, mistake in seen] + [""]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(render(diagnoses()))
