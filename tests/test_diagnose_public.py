"""What diagnose finds in public losses, and the page of the documentation that says so."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CODE = """
import json
import docs.diagnosis as page
found = page.diagnoses()
rows = [
    [s.title, s.group, d.convention, d.alpha, [m.name for m in d.mistakes]]
    for s, d in found.items()
]
print(json.dumps({"page": page.render(found), "rows": rows}))
"""


@pytest.fixture(scope="module")
def public():
    """In a process of its own: what Keras is depends on what was imported before."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


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


def test_public_losses_are_what_they_say(public):
    found = {title: (name, alpha) for title, group, name, alpha, _ in public["rows"]}
    own = {title for title, group, *_ in public["rows"] if group == "softhot"}
    assert {title: reading for title, reading in found.items() if title not in own} == EXPECTED
    seen = {title: set(mistakes) for title, *_, mistakes in public["rows"]}
    missed = {title: must - seen[title] for title, must in MUST_SEE.items() if must - seen[title]}
    assert not missed
    assert len(own) >= 4
    assert not [title for title in own if seen[title]]


def test_the_page_is_what_is_found_today(public):
    assert public["page"] == (ROOT / "docs" / "diagnosis.md").read_text(), (
        "python -m docs.diagnosis"
    )
