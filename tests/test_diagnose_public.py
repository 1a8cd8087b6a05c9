"""What diagnose finds in public losses, and the page of the documentation that says so."""

import importlib.util
import sys
from pathlib import Path

import pytest

from foreign import names

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def page():
    spec = importlib.util.spec_from_file_location("diagnosis", ROOT / "docs" / "diagnosis.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["diagnosis"] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


EXPECTED = {
    "`CrossEntropyLoss`, torch": ("uniform", 0.1),
    "`CrossEntropyLoss(weight=...)`, weights 1:20, torch": ("uniform", 0.1),
    "`CategoricalCrossentropy`, Keras": ("uniform", 0.1),
    "`CategoricalCrossentropy(from_logits=True)`, Keras": ("uniform", 0.1),
    "`CategoricalCrossentropy(axis=1)`, Keras": ("uniform", 0.1),
    "`BinaryCrossentropy`, Keras": ("binary_half", 0.1),
    "`CategoricalFocalCrossentropy`, Keras": ("unknown", None),
    "`softmax_cross_entropy` of `smooth_labels`, optax": ("uniform", 0.1),
    "`smooth_labels`, optax": ("uniform", 0.1),
    "timm 1.0 `LabelSmoothingCrossEntropy`": ("uniform", 0.1),
    "timm 1.0 `BinaryCrossEntropy`": ("sigmoid_over_classes", 0.1),
    "Hugging Face transformers 5 `LabelSmoother`": ("uniform", 0.1),
    "fairseq, e/K version, padding 1": ("uniform", 0.1),
    "fairseq, e/(K - 1) version, padding 1": ("others", 0.1),
    "OpenNMT-py, padding 0": ("skip_pad", 0.1),
    "ClassyVision": ("classy_vision", 0.1),
    "Megatron-LM": ("others", 0.1),
    "segmentation_models `SoftCrossEntropyLoss`": ("uniform", 0.1),
    "segmentation_models `SoftBCEWithLogitsLoss`": ("binary_full", 0.1),
    "mmpretrain `LabelSmoothLoss`, multi-label": ("binary_full", 0.1),
    "YOLOv5 class loss": ("binary_half", 0.1),
    "ConvE": ("unknown", 0.1),
    "slides, 1: smooth the labels": ("unknown", 0.05),
    "slides, 3: the definition": ("uniform", 0.1),
    "slides, 5: a PyTorch loss": ("others", 0.1),
    "slides, 7: smooth the softmax": ("uniform", 0.1),
    "slides, 8: multi-label": ("sigmoid_over_classes", 0.1),
    "post: `np.where`": ("unknown", 0.1),
    "post: `remap`": ("unknown", 0.1),
    'newsletter: "to all other classes"': ("others", 0.1),
}
MUST_SEE = {
    "`CrossEntropyLoss(weight=...)`, weights 1:20, torch": {
        "class weights inside the target",
        "ids and one-hot rows differ",
    },
    "timm 1.0 `LabelSmoothingCrossEntropy`": {"class axis"},
    "timm 1.0 `BinaryCrossEntropy`": {"e/K on sigmoids", "ids and one-hot rows differ"},
    "Hugging Face transformers 5 `LabelSmoother`": {"label -1 accepted"},
    "segmentation_models `SoftCrossEntropyLoss`": {"mean over ignored rows"},
    "mmpretrain `LabelSmoothLoss`, multi-label": {"soft labels change"},
    "ConvE": {"1/K without e"},
    "slides, 1: smooth the labels": {
        "arithmetic on class ids",
        "K from the batch",
        "rows do not sum to 1",
    },
    "slides, 5: a PyTorch loss": {"class axis"},
    "slides, 7: smooth the softmax": {"smooths predictions"},
    "slides, 8: multi-label": {"e/K on sigmoids"},
    "post: `np.where`": {
        "e for every other class",
        "rows do not sum to 1",
        "integer targets",
        "writes to its input",
    },
    "post: `remap`": {
        "e for every other class",
        "rows do not sum to 1",
        "labels read from 1",
        "label -1 accepted",
    },
}


@pytest.fixture(scope="module")
def public(page):
    return {subject: subject.diagnose() for subject in page.SUBJECTS}


def test_public_losses_are_what_they_say(public):
    found = {s.title: (d.convention, d.alpha) for s, d in public.items() if s.group != "softhot"}
    assert found == EXPECTED
    seen = {s.title: names(d) for s, d in public.items()}
    missed = {title: must - seen[title] for title, must in MUST_SEE.items() if must - seen[title]}
    assert not missed
    assert not [s.title for s, d in public.items() if s.group == "softhot" and d.mistakes]
