"""Write docs/deviations.md: where other libraries give something else, each with its reproducer.

python -m docs.deviations
"""

import math
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "numpy")

import jax
import keras
import numpy as np
import optax
import torch
import torch.nn.functional as F

import softhot
import softhot.torch as st

PAGE = Path(__file__).with_suffix(".md")
INTRO = """\
# Known deviations

Where a public loss gives another number than softhot for the same question, and why. Everything
here was run with the versions named; "formula" rows are written anew from what a project defines,
so that it need not be installed. Where nothing is listed, `python -m tests.differential` holds the
libraries to each other on random batches.

Write this page anew with `python -m docs.deviations`.
"""
NAN, INF = math.nan, math.inf


@dataclass(frozen=True)
class Deviation:
    """One question, their answer and ours; answers are numbers, or the words of a refusal."""

    title: str
    library: str
    why: str
    theirs: Callable[[], Any]
    ours: Callable[[], Any]


def class_weights_move_the_optimum():
    """Train one logit row of class 0 to the end under weights 1 : 20."""
    return trained(lambda z, y, w: F.cross_entropy(z, y, weight=w, label_smoothing=0.1))


def sample_weights_do_not():
    return trained(lambda z, y, w: st.cross_entropy(z, y, label_smoothing=0.1, weight=w))


def trained(loss) -> list[float]:
    z = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([1.0, 20.0], dtype=torch.float64)
    optimizer = torch.optim.LBFGS([z], max_iter=200)

    def closure():
        optimizer.zero_grad()
        value = loss(z, torch.tensor([0]), weight)
        value.backward()
        return value

    optimizer.step(closure)
    return [round(p, 3) for p in z.detach().softmax(-1)[0].tolist()]


LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.0, 0.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 2])
WEIGHT = torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)
MASKED = torch.tensor([[2.0, 0.0, -INF]], dtype=torch.float64)
FIRST = torch.tensor([0])


def ids_and_probabilities(loss, **options):
    one_hot = F.one_hot(LABELS, 3).double()
    return [loss(LOGITS, labels, weight=WEIGHT, **options).item() for labels in (LABELS, one_hot)]


def half_precision(loss):
    return loss(torch.zeros(1, 8000, dtype=torch.float16), FIRST, label_smoothing=0.1).item()


def in_eval_mode(criterion):
    return [criterion.train(on)(LOGITS, LABELS).item() for on in (True, False)]


def refusal(call):
    """The text of the InputError that a call ends in."""
    try:
        return call()
    except softhot.InputError as error:
        return str(error)


def last_axis(z, y, e):
    """timm's formula: every operation on the last axis, where NCHW has the width."""
    log_p = z.log_softmax(-1)
    nll = -log_p.gather(-1, y.unsqueeze(1)).squeeze(1)
    return ((1 - e) * nll - e * log_p.mean(-1)).mean().item()


def square_image():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 3, 3, 3, generator=generator), torch.tensor([[[0, 1, 2]] * 3])


def clamped(z, y, e):
    """Hugging Face's LabelSmoother: rows of -100 masked, then every id raised to at least 0."""
    log_p = -z.log_softmax(-1)
    kept = y != -100
    nll = log_p.gather(-1, y.clamp(min=0)[:, None])[:, 0]
    return ((1 - e) * nll[kept].mean() + e * log_p[kept].mean()).item()


def mean_over_ignored(z, y, e):
    """segmentation_models: ignored pixels count in the mean's denominator."""
    log_p = z.log_softmax(-1)
    kept = y != -100
    nll = -log_p.gather(-1, y.clamp(min=0)[:, None])[:, 0]
    rows = (1 - e) * nll - e * log_p.mean(-1)
    return torch.where(kept, rows, 0.0).mean().item()


HALF_IGNORED = torch.tensor([0, -100])


def keras_axis_1():
    """Targets over axis 1 of three classes, for two positions: smoothed by alpha / 2."""
    labels = np.zeros((1, 3, 2))
    labels[0, 0] = 1.0
    loss = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=0.3, axis=1, reduction=None
    )
    return float(np.asarray(loss(labels, np.zeros((1, 3, 2))))[0, 0])


def softhot_axis_1():
    z, y = np.zeros((1, 3, 2)), np.zeros((1, 2), dtype=int)
    return float(softhot.cross_entropy(z, y, softhot.Uniform(0.3), axis=1)[0, 0])


DEVIATIONS = (
    Deviation(
        "Class weights make the wrong class optimal",
        "torch",
        "the weights multiply each class's smoothed share, so the best prediction is w q; from a "
        "ratio of 1 + K(1 - a)/a = 19 on it is another class. The optimum for a sample of class 0:",
        class_weights_move_the_optimum,
        sample_weights_do_not,
    ),
    Deviation(
        "Ids and the same labels as one-hot rows differ",
        "torch",
        "with weights, the mean divides by the summed weights for ids and by N for probabilities:",
        lambda: ids_and_probabilities(F.cross_entropy),
        lambda: ids_and_probabilities(st.cross_entropy),
    ),
    Deviation(
        "A masked class makes the loss infinite",
        "torch",
        "smoothing puts mass on a class whose logit is -inf; softhot puts none there:",
        lambda: F.cross_entropy(MASKED, FIRST, label_smoothing=0.1).item(),
        lambda: st.cross_entropy(MASKED, FIRST, label_smoothing=0.1).item(),
    ),
    Deviation(
        "A masked class and a probability target make it NaN",
        "torch",
        "0 times -inf:",
        lambda: F.cross_entropy(MASKED, torch.eye(3, dtype=torch.float64)[:1]).item(),
        lambda: st.cross_entropy(MASKED, torch.eye(3, dtype=torch.float64)[:1]).item(),
    ),
    Deviation(
        "Flat logits of 8000 classes overflow in float16",
        "torch",
        "the log-probabilities are summed in the dtype of the logits (CPU):",
        lambda: half_precision(F.cross_entropy),
        lambda: half_precision(st.cross_entropy),
    ),
    Deviation(
        "Negative and NaN smoothing are accepted, and ignored",
        "torch",
        "the loss of plain cross entropy comes back:",
        lambda: [F.cross_entropy(LOGITS, LABELS, label_smoothing=a).item() for a in (-3.0, NAN)],
        lambda: refusal(lambda: st.cross_entropy(LOGITS, LABELS, label_smoothing=-3.0)),
    ),
    Deviation(
        "Probabilities that sum to 5 are accepted",
        "torch",
        "targets are not looked at:",
        lambda: F.cross_entropy(LOGITS, torch.full((2, 3), 5 / 3, dtype=torch.float64)).item(),
        lambda: refusal(
            lambda: st.cross_entropy(LOGITS, torch.full((2, 3), 5 / 3, dtype=torch.float64))
        ),
    ),
    Deviation(
        "Smoothing goes on in eval()",
        "torch",
        "training and validation loss of the same module, the second comparable between alphas "
        "only without smoothing:",
        lambda: in_eval_mode(torch.nn.CrossEntropyLoss(label_smoothing=0.1)),
        lambda: in_eval_mode(st.CrossEntropyLoss(label_smoothing=0.1)),
    ),
    Deviation(
        "A batch of ignored rows is NaN",
        "torch",
        "0 / 0; softhot gives 0 with zero gradient:",
        lambda: F.cross_entropy(LOGITS, torch.tensor([-100, -100])).item(),
        lambda: st.cross_entropy(LOGITS, torch.tensor([-100, -100])).item(),
    ),
    Deviation(
        "Any alpha is accepted",
        "optax",
        "`smooth_labels` has no range:",
        lambda: np.asarray(optax.smooth_labels(np.eye(2, dtype=np.float32)[:1], -3.0)).tolist(),
        lambda: refusal(lambda: softhot.smooth_labels([0], -3.0, num_classes=2)),
    ),
    Deviation(
        "Float class ids are taken for a distribution",
        "optax",
        "`smooth_labels` does arithmetic on the ids:",
        lambda: np.asarray(optax.smooth_labels(np.array([0.0, 2.0, 1.0]), 0.1)).round(3).tolist(),
        lambda: refusal(lambda: softhot.smooth_labels([0.0, 2.0, 1.0], 0.1, num_classes=4)),
    ),
    Deviation(
        "Label -1 is the last class",
        "optax",
        "ids wrap around; losses of the labels -1 and 2 of three classes:",
        lambda: [
            round(float(optax.softmax_cross_entropy_with_integer_labels(LOGITS.numpy()[0], y)), 4)
            for y in (-1, 2)
        ],
        lambda: refusal(
            lambda: softhot.cross_entropy(LOGITS.numpy()[:1], np.array([-1]), softhot.Uniform(0.1))
        ),
    ),
    Deviation(
        "A masked class makes the loss NaN",
        "optax",
        "0 times -inf for a hard target, -inf times alpha / K for a smoothed one:",
        lambda: [
            float(optax.softmax_cross_entropy(MASKED.numpy()[0], optax.smooth_labels(y, a)))
            for y, a in ((np.eye(3)[0], 0.0), (np.eye(3)[0], 0.1))
        ],
        lambda: [
            float(softhot.cross_entropy(MASKED.numpy(), np.array([0]), softhot.Uniform(a))[0])
            for a in (0.0, 0.1)
        ],
    ),
    Deviation(
        "The number of classes is read off the last axis",
        "keras",
        "with `axis=1` alpha is divided by the length of the last axis, so targets do not sum to "
        "1; at zero logits the loss is log K = 1.0986 whatever the smoothing:",
        keras_axis_1,
        softhot_axis_1,
    ),
    Deviation(
        "The class axis is always the last",
        "timm formula",
        "on NCHW logits with C = W the softmax runs over the width, without an error:",
        lambda: last_axis(*square_image(), 0.1),
        lambda: st.cross_entropy(*square_image(), label_smoothing=0.1).item(),
    ),
    Deviation(
        "Label -1 trains as class 0",
        "Hugging Face formula",
        "every id is raised to at least 0 after -100 is masked; losses of the labels -1 and 0:",
        lambda: [clamped(LOGITS[:1], torch.tensor([y]), 0.1) for y in (-1, 0)],
        lambda: refusal(
            lambda: st.cross_entropy(LOGITS[:1], torch.tensor([-1]), label_smoothing=0.1)
        ),
    ),
    Deviation(
        "Ignored rows count in the mean",
        "segmentation_models formula",
        "one row of two is ignored; the loss of the other is",
        lambda: mean_over_ignored(LOGITS, HALF_IGNORED, 0.1),
        lambda: st.cross_entropy(LOGITS, HALF_IGNORED, label_smoothing=0.1).item(),
    ),
)


def answer(value: Any) -> str:
    """An answer as the page shows it."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "[" + ", ".join(map(answer, value)) + "]"
    return str(value)


def page() -> str:
    """The whole page."""
    installed = ("torch", "optax", "keras", "jax", "numpy")
    versions = ", ".join(f"{name} {version(name).split('+')[0]}" for name in installed)
    parts = [INTRO, f"Versions: {versions}.\n"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, deviation in enumerate(DEVIATIONS, 1):
            theirs, ours = answer(deviation.theirs()), answer(deviation.ours())
            parts.append(
                f"## {number}. {deviation.title} ({deviation.library})\n\n"
                f"{deviation.why[0].upper()}{deviation.why[1:]}\n\n"
                f"| {deviation.library} | softhot |\n|---|---|\n| {theirs} | {ours} |\n"
            )
    parts.append(f"The code of every row: [deviations.py]({Path(__file__).name}).\n")
    return "\n".join(parts)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    PAGE.write_text(page())
    print(f"wrote {len(DEVIATIONS)} deviations to {PAGE.name}")
