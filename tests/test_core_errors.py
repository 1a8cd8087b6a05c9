"""Bad input: more than 300 ways to be wrong, each an InputError that names argument and value."""

# ruff: noqa: E501 (tables, a row a line)

import math
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import softhot
from backends import LIBRARIES, NUMPY, Backend
from softhot import (
    RULES,
    Bernoulli,
    ConfidencePenalty,
    Focal,
    InputError,
    Margin,
    MaxSup,
    NegativeUniform,
    OneSided,
    Online,
    OnlineMeans,
    Ordinal,
    Others,
    PerClass,
    PerSample,
    Platt,
    Prevalence,
    Prior,
    Schedule,
    Similarity,
    SofthotWarning,
    Teacher,
    Uniform,
    ZLoss,
    binary_cross_entropy,
    convert_alpha,
    cross_entropy,
    desmooth,
    explain,
    rule_from_dict,
    smooth_binary_labels,
    smooth_labels,
)
from softhot.core.binary import BinaryRule
from softhot.core.check import Interval, OneOf, shown
from softhot.core.conventions import CONVENTIONS, alpha_range, meanings
from softhot.core.losses import IDS, REDUCTION, WEIGHTING
from softhot.core.rule import Rule
from softhot.core.similarity import from_confusion, from_embeddings, from_hierarchy
from softhot.core.targets import CLASSES, KINDS

Z = np.array([[0.5, 1.0, -1.0, 0.0], [2.0, 0.1, 0.3, -0.2], [0.0, 0.5, 0.25, 1.5]])
Y = np.array([0, 1, 2])
P = np.array([[0.7, 0.3, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]])
EYE = np.eye(4)
NAN, INF = math.nan, math.inf
SMOOTHED = 0.9 * np.eye(4)[:3] + 0.025


def at(array, index, value):
    """A copy with one entry changed."""
    array = np.array(array, dtype=np.float64 if isinstance(value, float) else None)
    array[index] = value
    return array


def refuses(call, argument, value):
    """It raises InputError, and nothing else, that names the argument and the value."""
    with pytest.raises(InputError) as caught:
        call()
    text = str(caught.value)
    assert caught.value.argument in text
    assert argument in text, text
    assert (value if isinstance(value, str) else shown(value)) in text, text
    assert len(text) < 600
    assert "\n" not in text
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == text
    return caught.value


@dataclass(frozen=True)
class Bad:
    """``given`` replaces what is right; the error names ``argument`` and ``value``."""

    why: str
    given: dict[str, Any]
    argument: str
    value: str = ""
    hint: str = ""


LOSS = [
    Bad("float ids", {"labels": Y * 1.0}, "labels", "float", ".astype(int)"),
    Bad("float ids, some ignored", {"labels": Y * 1.0, "ignore_index": 1}, "labels", "float"),
    Bad("boolean ids", {"labels": Y > 0}, "labels", "bool"),
    Bad("complex ids", {"labels": Y + 0j}, "labels", "complex"),
    Bad("complex distributions", {"labels": P + 0j}, "labels", "complex"),
    Bad("label -1", {"labels": at(Y, 1, -1)}, "labels[1]", "-1", "ignore_index"),
    Bad("label K", {"labels": at(Y, 2, 4)}, "labels[2]", "4"),
    Bad("label -100", {"labels": at(Y, 0, -100)}, "labels[0]", "-100"),
    Bad("far label", {"labels": at(Y, 0, 2**40)}, "labels[0]", str(2**40)),
    Bad("1-based ids", {"labels": Y + 2}, "labels[2]", "4"),
    Bad("text labels", {"labels": ["a", "b", "c"]}, "labels", "'a'"),
    Bad("object labels", {"labels": [0, 1, None]}, "labels", "None"),
    Bad("no labels", {"labels": None}, "labels", "None"),
    Bad("ragged labels", {"labels": [[1, 0], [1]]}, "labels", "[[1, 0], [1]]", "unequal"),
    Bad("dates", {"labels": [np.datetime64("2020")] * 3}, "labels", "datetime64"),
    Bad("masked labels", {"labels": np.ma.masked_array(Y, Y == 1)}, "labels", "masked", "where="),
    Bad("labels of another length", {"labels": Y[:2]}, "labels", "(2,)"),
    Bad("labels of a wrong rank", {"labels": Y[:, None]}, "labels", "(3, 1)"),
    Bad("one label for all", {"labels": np.array(1)}, "labels", "()"),
    Bad("no labels at all", {"labels": Y[:0]}, "labels", "(0,)"),
    Bad("labels with K first", {"labels": P.T}, "labels", "(4, 3)", "axis"),
    Bad("a negative share", {"labels": at(P, (0, 2), -0.5)}, "labels[0, 2]", "-0.5"),
    Bad("a NaN share", {"labels": at(P, (1, 1), NAN)}, "labels[1, 1]", "nan"),
    Bad("an infinite share", {"labels": at(P, (1, 1), INF)}, "labels[1]", "inf"),
    Bad("rows that sum to 1.875", {"labels": P + 0.21875}, "labels[0]", "1.875", "multi-hot"),
    Bad("rows that sum to 0", {"labels": P * 0}, "labels[0]", "0.0"),
    Bad("multi-hot rows", {"labels": at(P, (2, 0), 1.0)}, "labels[2]", "2.0", "binary"),
    Bad("multi-hot integers", {"labels": np.array([[1, 1, 0, 0]] * 3)}, "labels[0]", "2.0"),
    Bad("smoothed already", {"labels": SMOOTHED}, "labels", "0.025", "smooth_again"),
    Bad("NaN logits", {"logits": at(Z, (1, 2), NAN)}, "logits[1, 2]", "nan"),
    Bad("infinite logits", {"logits": at(Z, (2, 0), INF)}, "logits[2, 0]", "inf"),
    Bad("a row of -inf", {"logits": at(Z, 1, -INF)}, "logits[1]", "-inf everywhere"),
    Bad("a masked label", {"logits": at(Z, (0, 0), -INF)}, "labels[0]", "0", "Allow"),
    Bad("a large finite mask", {"logits": at(Z, (0, 1), -1e35)}, "logits[0, 1]", "e+3", "-inf"),
    Bad(
        "a logit whose square overflows",
        {"logits": at(Z, (0, 1), 2e16), "rule": ZLoss()},
        "logits[0, 1]",
        "e+16",
        "1e+15",
    ),
    Bad("integer logits", {"logits": np.array([[1, 2, 3, 4]] * 3)}, "logits", "int", "float"),
    Bad("complex logits", {"logits": Z + 0j}, "logits", "complex"),
    Bad("boolean logits", {"logits": Z > 0}, "logits", "bool"),
    Bad("text logits", {"logits": ["a"]}, "logits", "'a'"),
    Bad("no logits", {"logits": None}, "logits", "None"),
    Bad("ragged logits", {"logits": [[1.0], [1.0, 2.0]]}, "logits", "[1.0, 2.0]"),
    Bad("masked logits", {"logits": np.ma.masked_array(Z)}, "logits", "masked"),
    Bad("scalar logits", {"logits": np.array(1.0)}, "logits", "1."),
    Bad("one class", {"logits": Z[:, :1]}, "logits.shape[1]", "1", "binary_cross_entropy"),
    Bad("no class", {"logits": Z[:, :0]}, "logits.shape[1]", "0"),
    Bad("one class, first axis", {"logits": Z[:1], "axis": 0}, "logits.shape[0]", "1"),
    Bad("axis out of range", {"axis": 2}, "axis", "2"),
    Bad("axis far below", {"axis": -3}, "axis", "-3"),
    Bad("axis half way", {"axis": 0.5}, "axis", "0.5"),
    Bad("axis as text", {"axis": "last"}, "axis", "'last'"),
    Bad("axis true", {"axis": True}, "axis", "True"),
    Bad("the other axis", {"axis": 0}, "labels", "(3,)", "axis"),
    Bad("no rule", {"rule": None}, "rule", "None"),
    Bad("a number", {"rule": 0.1}, "rule", "0.1", "softhot.Uniform(0.1)"),
    Bad("a class", {"rule": Uniform}, "rule", "Uniform", "Uniform(...)"),
    Bad("a class of another", {"rule": MaxSup}, "rule", "MaxSup", "MaxSup(...)"),
    Bad("a name", {"rule": "uniform"}, "rule", "'uniform'"),
    Bad("a binary rule", {"rule": Bernoulli(0.1)}, "rule", "Bernoulli(alpha=0.1)", "binary"),
    Bad("one-sided", {"rule": OneSided(0.1)}, "rule", "OneSided", "binary_cross_entropy"),
    Bad("a schedule", {"rule": Uniform(Schedule(((0, 0.1),)))}, "Uniform.alpha", "Schedule", ".at("),
    Bad("a scheduled penalty", {"rule": MaxSup(Schedule(((0, 0.1),)))}, "MaxSup.alpha", "Schedule"),
    Bad(
        "a schedule in a sum",
        {"rule": Uniform(0.1) + MaxSup(Schedule(((0, 0.1),)))},
        "MaxSup.alpha",
        "Schedule",
    ),
    Bad("soft labels for focal", {"rule": Focal(), "labels": P}, "labels", "distributions"),
    Bad("ids for another K", {"rule": Prior(0.1, (1, 2, 3))}, "Prior.counts", "3"),
    Bad("another matrix", {"rule": Similarity(0.1, EYE[:3, :3])}, "Similarity.matrix", "3"),
    Bad("other ranks", {"rule": Ordinal(positions=(1, 2))}, "Ordinal.positions", "2"),
    Bad("other weights", {"rule": Uniform(PerClass((0.1, 0.2)))}, "Uniform.alpha", "2"),
    Bad("Others from (K - 1)/K on", {"rule": Others(0.5), "logits": Z[:, :2], "labels": Y % 2}, "Others.alpha", "0.5", "as much"),
    Bad(
        "Others per class",
        {"rule": Others(PerClass((0, 0, 0.8, 0)))},
        "Others.alpha",
        "PerClass",
    ),
    Bad(
        "Others per class, mixed labels",
        {"rule": Others(PerClass((0, 0, 0.8, 0))), "labels": P},
        "Others.alpha",
        "PerClass",
    ),
    Bad(
        "Others over two allowed classes",
        {"rule": Others(0.5), "allowed": at(np.ones((3, 4)) > 0, (0, slice(2, 4)), False)},
        "Others.alpha",
        "0.5",
        "K = 2",
    ),
    Bad("reduction", {"reduction": "avg"}, "reduction", "'avg'"),
    Bad("weighting", {"weighting": "classes", "weight": np.ones(4)}, "weighting", "'classes'", "'class'"),
    Bad("weighting without weight", {"weighting": "class"}, "weighting", "'class'", "weight="),
    Bad("a negative weight", {"weight": np.array([1.0, -1.0, 1.0, 1.0])}, "weight[1]", "-1.0"),
    Bad("a NaN weight", {"weight": np.array([1.0, 1.0, NAN, 1.0])}, "weight[2]", "nan"),
    Bad("an infinite weight", {"weight": np.array([INF, 1.0, 1.0, 1.0])}, "weight[0]", "inf"),
    Bad("weights of samples", {"weight": np.ones(3)}, "weight", "(3,)"),
    Bad("a weight for all", {"weight": np.array(2.0)}, "weight", "()"),
    Bad("a weight in a matrix", {"weight": np.ones((4, 1))}, "weight", "(4, 1)"),
    Bad("complex weights", {"weight": np.ones(4) + 0j}, "weight", "complex"),
    Bad("boolean weights", {"weight": np.ones(4) > 0}, "weight", "bool"),
    Bad("text weights", {"weight": "balanced"}, "weight", "balanced"),
    Bad("where of numbers", {"where": np.ones(3)}, "where", "float", "astype(bool)"),
    Bad("where of integers", {"where": np.ones(3, int)}, "where", "int"),
    Bad("where of another length", {"where": np.ones(2, bool)}, "where", "(2,)"),
    Bad("where of every class", {"where": np.ones((3, 4), bool)}, "where", "(3, 4)"),
    Bad("where of nothing", {"where": [None]}, "where", "None"),
    Bad("allowed of numbers", {"allowed": np.ones((3, 4))}, "allowed", "float"),
    Bad("allowed of another length", {"allowed": np.ones(3, bool)}, "allowed", "(3,)"),
    Bad("allowed of another shape", {"allowed": np.ones((2, 4), bool)}, "allowed", "(2, 4)"),
    Bad("a label that is not allowed", {"allowed": EYE[:3] == 0}, "labels[0]", "0", "where="),
    Bad("no class allowed", {"allowed": np.zeros(4, bool)}, "labels[0]", "0"),
    Bad("mass that is not allowed", {"labels": P, "allowed": P > 0.4}, "labels[0]", "mass"),
    Bad(
        "only classes without prior",
        {"rule": Similarity(0.1, EYE[[1, 0, 3, 2]]), "allowed": np.array([True, False, True, True]), "labels": Y * 0},
        "allowed[0]",
        "0.0",
        "prior",
    ),
    Bad("ignore_index for rows", {"labels": P, "ignore_index": 0}, "ignore_index", "0", "where="),
    Bad("alpha missing", {"rule": Uniform(PerSample())}, "alpha", "None", "PerSample"),
    Bad("alpha twice", {"alpha": np.full(3, 0.1)}, "alpha", "0.1", "PerSample()"),
    Bad("alpha twice, per class", {"rule": Uniform(PerClass([0.1] * 4)), "alpha": np.ones(3) / 8}, "alpha", "0.125"),
    Bad("alpha of another length", {"rule": Uniform(PerSample()), "alpha": np.ones(2) / 8}, "alpha", "(2,)"),
    Bad("one alpha", {"rule": Uniform(PerSample()), "alpha": np.array(0.1)}, "alpha", "()"),
    Bad("alpha of 1", {"rule": Uniform(PerSample()), "alpha": at(np.zeros(3), 2, 1.0)}, "alpha", "1.0"),
    Bad("alpha below 0", {"rule": Uniform(PerSample()), "alpha": at(np.zeros(3), 2, -0.5)}, "alpha", "-0.5"),
    Bad("a NaN alpha", {"rule": Uniform(PerSample()), "alpha": at(np.zeros(3), 2, NAN)}, "alpha", "nan"),
    Bad("a positive alpha", {"rule": NegativeUniform(PerSample()), "alpha": np.ones(3) / 8}, "alpha", "0.125"),
    Bad("boolean alphas", {"rule": Uniform(PerSample()), "alpha": np.ones(3) > 0}, "alpha", "bool"),
    Bad("complex alphas", {"rule": Uniform(PerSample()), "alpha": np.ones(3) / 8 + 0j}, "alpha", "complex"),
    Bad("Others per sample", {"rule": Others(PerSample()), "alpha": np.full(3, 0.875)}, "Others.alpha", "PerSample"),
    Bad("prior missing", {"rule": Teacher()}, "prior", "None", ""),
    Bad("prior missing, by class", {"rule": Online()}, "prior", "None"),
    Bad("prior nobody asked for", {"prior": P}, "prior", "0.7"),
    Bad("logits as prior", {"rule": Teacher(), "prior": Z}, "prior[0]", "0.5", "softmax"),
    Bad("a prior that sums to less", {"rule": Teacher(), "prior": EYE[:3] * 0.984375}, "prior[0]", "0.984375"),
    Bad("a prior that sums to more", {"rule": Teacher(), "prior": EYE[:3] * 1.015625}, "prior[0]", "1.015625"),
    Bad("a NaN prior", {"rule": Teacher(), "prior": at(P, (1, 0), NAN)}, "prior[1]", "nan"),
    Bad("a negative prior", {"rule": Teacher(), "prior": at(at(P, (0, 2), -0.25), (0, 0), 0.95)}, "prior[0]", "1.0"),
    Bad("a prior of another shape", {"rule": Teacher(), "prior": P[:2]}, "prior", "(2, 4)"),
    Bad("a prior of K rows", {"rule": Teacher(), "prior": EYE}, "prior", "(4, 4)"),
    Bad("a prior of N rows", {"rule": Online(), "prior": P}, "prior", "(3, 4)"),
    Bad("an integer prior", {"rule": Online(), "prior": np.eye(4, dtype=int)}, "prior", "int"),
    Bad("prior logits by class", {"rule": Online(), "prior": EYE * 3}, "prior[0]", "3.0"),
]  # fmt: skip

EACH = (NUMPY, Backend("torch", "float32"), Backend("strict", "float64"), Backend("jax", "float32"))
EACH = tuple(backend for backend in EACH if backend.library in LIBRARIES)


@pytest.mark.parametrize("bad", LOSS, ids=lambda bad: bad.why)
def test_losses_refuse(bad):
    given = {"logits": Z, "labels": Y, "rule": Uniform(0.1)} | bad.given
    for library in EACH:
        if library.dtype == "float32" and bad.why == "far label" and library.library == "jax":
            continue  # without 64 bits JAX truncates the label before it gets here
        arrays = {
            name: library.array(value) if type(value) is np.ndarray else value
            for name, value in given.items()
        }
        if not isinstance(given["logits"], np.ndarray) and library is not NUMPY:
            continue
        error = refuses(lambda given=arrays: cross_entropy(**given), bad.argument, bad.value)
        assert bad.hint in str(error), str(error)


@pytest.mark.parametrize("bad", LOSS, ids=lambda bad: bad.why)
def test_the_gradient_refuses_the_same(bad):
    given = {"logits": Z, "labels": Y, "rule": Uniform(0.1)} | bad.given
    refuses(lambda: softhot.cross_entropy_and_gradient(**given), bad.argument, bad.value)


TARGETS = [
    Bad("float ids", {"labels": Y * 1.0}, "labels", "array([0., 1., 2.])", "astype(int)"),
    Bad("a scalar share", {"labels": 0.5}, "labels", "0.5"),
    Bad("a scalar yes", {"labels": True}, "labels", "True"),
    Bad("shares that are ids", {"labels": P, "kind": "ids"}, "labels", "float64"),
    Bad("yes and no as ids", {"labels": P > 0.6, "kind": "ids"}, "labels", "bool"),
    Bad("ids called one-hot", {"labels": Y, "kind": "one_hot"}, "labels", "array([0, 1, 2])"),
    Bad("ids that could be one-hot", {"labels": np.eye(4, dtype=int)}, "labels", "(4, 4)", "kind="),
    Bad("the same, class axis first", {"labels": np.eye(4, dtype=int)[:, :2], "axis": 0}, "labels", "(4, 2)", "kind="),
    Bad("the same, class axis last but one", {"labels": np.eye(4, dtype=int)[:, :2], "axis": -2}, "labels", "(4, 2)"),
    Bad("label K", {"labels": at(Y, 0, 4)}, "labels[0]", "4"),
    Bad("label -1", {"labels": at(Y, 0, -1)}, "labels[0]", "-1"),
    Bad("rows of another K", {"labels": P, "num_classes": 5}, "labels", "0.7"),
    Bad("rows with K elsewhere", {"labels": P.T, "kind": "soft"}, "labels.shape[1]", "(4, 3)"),
    Bad("already smoothed", {"labels": SMOOTHED}, "labels", "0.025", "smooth_again=True"),
    Bad("smoothed, two classes", {"labels": [[0.95, 0.05], [0.05, 0.95]], "num_classes": 2}, "labels", "0.05"),
    Bad("smoothed mixup", {"labels": [[0.475, 0.475, 0.025, 0.025]]}, "labels", "0.025"),
    Bad("K of 1", {"num_classes": 1}, "num_classes", "1"),
    Bad("penalties", {"rule": Uniform(0.1) + MaxSup(0.1)}, "rule", "MaxSup", "rule.base"),
    Bad("focal", {"rule": Focal(2.0)}, "rule", "Focal", "cross_entropy"),
    Bad("a bare penalty", {"rule": ConfidencePenalty(0.1)}, "rule", "ConfidencePenalty"),
    Bad("no rule", {"rule": None}, "rule", "None"),
    Bad("alpha 1", {"rule": 1.0}, "Uniform.alpha", "1.0"),
    Bad("alpha -1", {"rule": -1}, "Uniform.alpha", "-1", "NegativeUniform"),
    Bad("alpha True", {"rule": True}, "Uniform.alpha", "True"),
    Bad("axis", {"axis": 2}, "axis", "2"),
    Bad("axis as a list", {"axis": [0]}, "axis", "[0]"),
    Bad("allowed", {"allowed": np.ones((3, 5), bool)}, "allowed", "(3, 5)"),
    Bad("allowed of numbers", {"allowed": np.ones(4)}, "allowed", "float64"),
    Bad("not allowed", {"allowed": np.array([False, True, True, True])}, "labels[0]", "0"),
    Bad("prior", {"prior": P}, "prior", "0.7"),
    Bad("alpha", {"alpha": [0.1] * 3}, "alpha", "[0.1, 0.1, 0.1]"),
    Bad("multi-hot", {"labels": [[1.0, 1.0, 0.0, 0.0]]}, "labels[0]", "2.0", "smooth_binary_labels"),
    Bad("multi-hot of another K", {"labels": [[1, 1, 0]], "kind": "multi_hot"}, "labels.shape[1]", "(1, 3)"),
    Bad("multi-hot and a rule for one of K", {"labels": EYE, "kind": "multi_hot", "rule": Uniform(0.1)}, "rule", "Uniform", "out of K"),
    Bad("multi-hot and a mask", {"labels": EYE, "kind": "multi_hot", "allowed": EYE > 0}, "allowed", "array"),
    Bad("multi-hot and alpha", {"labels": EYE, "kind": "multi_hot", "alpha": 0.1}, "alpha", "0.1"),
    Bad("multi-hot and a prior", {"labels": EYE, "kind": "multi_hot", "prior": 0.5}, "prior", "0.5"),
    Bad("multi-hot 2", {"labels": EYE * 2, "kind": "multi_hot", "rule": 0.1}, "labels[0, 0]", "2.0", "two classes"),
    Bad("multi-hot without an axis", {"labels": 1, "kind": "multi_hot"}, "labels", "1"),
    Bad("multi-hot of one label", {"labels": [[1]], "kind": "multi_hot", "num_classes": 1}, "num_classes", "1"),
]  # fmt: skip


@pytest.mark.parametrize("bad", TARGETS, ids=lambda bad: bad.why)
def test_targets_refuse(bad):
    given = {"labels": Y, "rule": Uniform(0.1), "num_classes": 4} | bad.given
    error = refuses(lambda: smooth_labels(**given), bad.argument, bad.value)
    assert bad.hint in str(error)


B = np.array([[1, 0, 1], [0, 0, 1]])
BINARY_LOSS = [
    Bad("label 2", {"labels": at(B, (0, 1), 2)}, "labels[0, 1]", "2", "smooth_labels"),
    Bad("label -1", {"labels": at(B, (0, 1), -1)}, "labels[0, 1]", "-1"),
    Bad("share 1.5", {"labels": at(B, (1, 1), 1.5)}, "labels[1, 1]", "1.5"),
    Bad("a NaN share", {"labels": at(B, (1, 1), NAN)}, "labels[1, 1]", "nan"),
    Bad("complex", {"labels": B + 0j}, "labels", "complex128"),
    Bad("text", {"labels": ["yes"]}, "labels", "'yes'"),
    Bad("shape", {"labels": B[0]}, "labels", "(3,)"),
    Bad("integer logits", {"logits": B}, "logits", "int64", "astype(float)"),
    Bad("NaN logits", {"logits": at(B, (0, 1), NAN)}, "logits[0, 1]", "nan"),
    Bad("infinite logits", {"logits": at(B, (0, 1), INF)}, "logits[0, 1]", "inf"),
    Bad("-infinite logits", {"logits": at(B, (1, 2), -INF)}, "logits[1, 2]", "-inf"),
    Bad("a rule for one of K", {"rule": Uniform(0.1)}, "rule", "Uniform(alpha=0.1)", "out of K"),
    Bad("a number", {"rule": 0.1}, "rule", "0.1", "Bernoulli"),
    Bad("no rule", {"rule": None}, "rule", "None"),
    Bad("a class", {"rule": Bernoulli}, "rule", "Bernoulli"),
    Bad("a schedule", {"rule": Bernoulli(Schedule(((0, 0.1),)))}, "Bernoulli.alpha", "Schedule", ".at("),
    Bad("rates of other labels", {"rule": Prevalence(0.1, (0.1, 0.2))}, "Prevalence.rates", "2"),
    Bad("counts of other labels", {"rule": Platt((1, 2), (3, 4))}, "Platt.positives", "2"),
    Bad("axis", {"axis": 2}, "axis", "2"),
    Bad("where of numbers", {"where": B}, "where", "int64"),
    Bad("where of another shape", {"where": np.ones(2, bool)}, "where", "(2,)"),
    Bad("a negative pos_weight", {"pos_weight": -1.0}, "pos_weight", "-1."),
    Bad("a NaN pos_weight", {"pos_weight": [1.0, NAN, 1.0]}, "pos_weight", "nan"),
    Bad("pos_weight of other labels", {"pos_weight": [1.0, 2.0]}, "pos_weight", "(2,)"),
    Bad("pos_weight of samples", {"pos_weight": np.ones((2, 3))}, "pos_weight", "(2, 3)"),
    Bad("weighting without pos_weight", {"weighting": "class"}, "weighting", "'class'", "pos_weight="),
    Bad("reduction", {"reduction": "average"}, "reduction", "'average'"),
]  # fmt: skip


@pytest.mark.parametrize("bad", BINARY_LOSS, ids=lambda bad: bad.why)
def test_binary_losses_refuse(bad):
    given = {"logits": B * 1.5, "labels": B, "rule": Bernoulli(0.1)} | bad.given
    error = refuses(lambda: binary_cross_entropy(**given), bad.argument, bad.value)
    assert bad.hint in str(error)
    if set(bad.given) <= {"labels", "axis"} and bad.why != "shape":
        given.pop("logits")
        refuses(lambda: smooth_binary_labels(**given), bad.argument, bad.value)


KNOWN = {**RULES, **{n: r for n, r in Rule.known.items() if issubclass(r, BinaryRule)}}
RANGED = [(rule, name) for rule in KNOWN.values() for name in rule.RANGES]


@pytest.mark.parametrize(("rule", "name"), RANGED, ids=lambda v: getattr(v, "__name__", v))
def test_rules_refuse_what_their_ranges_refuse(rule, name):
    """The ranges say themselves what is bad; so a new rule is tested unasked."""
    allowed = rule.RANGES[name]
    assert len(allowed.bad_values()) >= 6
    for value in allowed.bad_values():
        error = refuses(lambda v=value: rule(**{name: v}), f"{rule.__name__}.{name}", value)
        assert str(allowed) in str(error)
    if name == "alpha":
        numbers = [v for v in allowed.bad_values() if type(v) is float and math.isfinite(v)]
        for value in numbers:
            refuses(lambda v=value: rule(PerClass([v])), f"{rule.__name__}.alpha", value)
            refuses(lambda v=value: rule(Schedule([(7, v)])), "alpha at step 7", value)


CALLS = [
    ("smooth_labels", lambda v: smooth_labels([0], 0.1, num_classes=v), "num_classes", CLASSES),
    ("explain", lambda v: explain(0.1, v), "num_classes", CLASSES),
    ("convert_alpha", lambda v: convert_alpha(0.1, "others", "uniform", v), "num_classes", CLASSES),
    ("meanings", lambda v: meanings(0.1, v), "num_classes", CLASSES),
    ("OnlineMeans", OnlineMeans, "num_classes", CLASSES),
    ("reduction", lambda v: cross_entropy(Z, Y, Uniform(0.1), reduction=v), "reduction", REDUCTION),
    ("weighting", lambda v: cross_entropy(Z, Y, Uniform(0.1), weighting=v), "weighting", WEIGHTING),
    ("ignore_index", lambda v: cross_entropy(Z, Y, Uniform(0.1), ignore_index=v), "ignore_index", IDS),
    ("kind", lambda v: smooth_labels(Y, 0.1, num_classes=4, kind=v), "kind", KINDS),
    ("frm", lambda v: convert_alpha(0.1, v, "uniform", 4), "frm", OneOf(*CONVENTIONS)),
    ("to", lambda v: convert_alpha(0.1, "uniform", v, 4), "to", OneOf(*CONVENTIONS)),
    ("rate", NegativeUniform.from_noise, "rate", Interval(0, 1, "()")),
    ("classes", lambda v: NegativeUniform.from_noise(0.1, v), "num_classes", CLASSES),
    ("step", Schedule([(0, 0.1)]).at, "step", Interval(-INF, INF, "()")),
    ("beta", lambda v: from_hierarchy([("a",), ("b",)], beta=v), "beta", Interval(0, INF, "()")),
    ("temperature", lambda v: from_embeddings(EYE, temperature=v), "temperature", Interval(0, INF, "()")),
    ("threshold", lambda v: ConfidencePenalty(0.1, v), "threshold", Interval(0, INF, "()")),
    ("rates", lambda v: Prevalence(0.1, (v,)), "Prevalence.rates", Interval(0, 1)),
    ("positives", lambda v: Platt((v,), (1,)), "Platt.positives", Interval(0, INF, "[)")),
    ("negatives", lambda v: Platt((1,), (v,)), "Platt.negatives", Interval(0, INF, "[)")),
]  # fmt: skip
NONE_IS_RIGHT = ("kind", "ignore_index", "classes", "threshold")


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call[0])
def test_arguments_refuse_what_their_ranges_refuse(call):
    name, function, argument, allowed = call
    for value in allowed.bad_values():
        if value is None and name in NONE_IS_RIGHT:
            continue
        error = refuses(lambda v=value: function(v), argument, "")
        if name not in ("rates", "positives", "negatives") or type(value) is float:
            assert shown(value) in str(error)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_conventions_refuse_what_their_ranges_refuse(name):
    k = 2 if CONVENTIONS[name].binary else 4
    for value in alpha_range(CONVENTIONS[name], k).bad_values():
        refuses(lambda v=value: convert_alpha(v, name, name, k), "alpha", value)


ELSE = [
    ("others from (K - 1)/K on", lambda: convert_alpha(0.75, "others", "uniform", 4), "alpha", "0.75"),
    ("from one that does not convert", lambda: convert_alpha(0.1, "skip_pad", "uniform", 4), "frm", "'skip_pad'"),
    ("to one that does not convert", lambda: convert_alpha(0.1, "uniform", "one_sided", 4), "to", "'one_sided'"),
    ("sigmoids do not convert", lambda: convert_alpha(0.1, "sigmoid_over_classes", "uniform", 4), "frm", "'sigmoid_over"),
    ("binary with K = 4", lambda: convert_alpha(0.1, "binary_half", "uniform", 4), "num_classes", "4"),
    ("binary of K = 4", lambda: convert_alpha(0.1, "uniform", "binary_full", 4), "num_classes", "4"),
    ("a sum of two targets", lambda: Uniform(0.1) + Prior(0.1, (1, 2)), "the sum of rules", "Prior"),
    ("a sum of a target and focal", lambda: Uniform(0.1) + Focal(), "the sum of rules", "Focal"),
    ("two targets behind penalties", lambda: (Uniform(0.1) + MaxSup(0.1)) + Others(0.1), "the sum of rules", "Others"),
    ("a penalty twice", lambda: MaxSup(0.1) + MaxSup(0.2), "the sum of rules", "MaxSup"),
    ("a penalty twice, added later", lambda: Uniform(0.1) + Margin() + Margin(0.1), "the sum of rules", "Margin"),
    ("a sum with a binary rule", lambda: Uniform(0.1) + Bernoulli(0.1), "rule", "Bernoulli"),
    ("a binary rule with a penalty", lambda: Bernoulli(0.1) + MaxSup(0.1), "rule", "Bernoulli"),
    ("MaxSup per class", lambda: MaxSup(PerClass((0.1,))), "MaxSup.alpha", "PerClass"),
    ("Bernoulli per class", lambda: Bernoulli(PerClass((0.1,))), "Bernoulli.alpha", "PerClass"),
    ("Prevalence per sample", lambda: Prevalence(PerSample()), "Prevalence.alpha", "PerSample"),
    ("MaxSup per sample", lambda: MaxSup(PerSample()), "MaxSup.alpha", "PerSample"),
    ("alpha as a list", lambda: Uniform([0.1, 0.2]), "Uniform.alpha", "[0.1, 0.2]"),
    ("alpha as an array", lambda: Uniform(np.array([0.1])), "Uniform.alpha", "array([0.1])"),
    ("a huge alpha", lambda: Uniform(10**400), "Uniform.alpha", "1000"),
    ("no counts", lambda: Prior(0.1), "Prior.counts", "()"),
    ("counts of 0", lambda: Prior(0.1, (0, 0)), "Prior.counts", "(0, 0)"),
    ("a negative count", lambda: Prior(0.1, (3, -1)), "Prior.counts", "(3, -1)"),
    ("a NaN count", lambda: Prior(0.1, (3, NAN)), "Prior.counts", "nan"),
    ("text counts", lambda: Prior(0.1, "many"), "Prior.counts", "'many'"),
    ("ragged counts", lambda: Prior(0.1, ((1,), (1, 2))), "Prior.counts", "((1,), (1, 2))"),
    ("a matrix of counts", lambda: Prior(0.1, ((1, 2),)), "Prior.counts", "((1, 2),)"),
    ("no matrix", lambda: Similarity(0.1), "Similarity.matrix", "()"),
    ("a flat matrix", lambda: Similarity(0.1, (0.5, 0.5)), "Similarity.matrix", "(0.5, 0.5)"),
    ("a matrix that is not square", lambda: Similarity(0.1, EYE[:3]), "Similarity.matrix", "(3, 4)"),
    ("a negative matrix", lambda: Similarity(0.1, ((1.5, -0.5), (0, 1))), "Similarity.matrix", "-0.5"),
    ("rows that don't sum to 1", lambda: Similarity(0.1, ((1, 0), (0.5, 0.4))), "Similarity.matrix[1]", "0.9"),
    ("ranks as text", lambda: Ordinal(positions="abc"), "Ordinal.positions", "'abc'"),
    ("an infinite rank", lambda: Ordinal(positions=(1, INF)), "Ordinal.positions", "inf"),
    ("rank 0 and a logarithm", lambda: Ordinal(distance="log", positions=(0, 1)), "Ordinal.positions", "(0, 1)"),
    ("too much noise", lambda: NegativeUniform.from_noise(0.75, 4), "rate * 4 / (4 - 1)", "1.0"),
    ("no values", lambda: PerClass(()), "PerClass.values", "()"),
    ("one value", lambda: PerClass(0.1), "PerClass.values", "0.1"),
    ("text values", lambda: PerClass(("a",)), "PerClass.values", "'a'"),
    ("boolean values", lambda: PerClass((True,)), "PerClass.values", "True"),
    ("ragged values", lambda: PerClass(((1,), (1, 2))), "PerClass.values", "((1,), (1, 2))"),
    ("a matrix of values", lambda: PerClass(((0.1,),)), "PerClass.values", "((0.1,),)"),
    ("no points", lambda: Schedule(()), "Schedule.points", "()"),
    ("one number", lambda: Schedule(0.1), "Schedule.points", "0.1"),
    ("points without steps", lambda: Schedule((0.1, 0.2)), "Schedule.points", "(0.1, 0.2)"),
    ("points of three", lambda: Schedule(((1, 2, 3),)), "Schedule.points", "((1, 2, 3),)"),
    ("points as text", lambda: Schedule("ab"), "Schedule.points", "'ab'"),
    ("points that are None", lambda: Schedule(((None, None),)), "Schedule.points", "None"),
    ("a NaN point", lambda: Schedule(((0, NAN),)), "Schedule.points", "nan"),
    ("steps backwards", lambda: Schedule(((1, 0.1), (0, 0.2))), "Schedule.points", "((1, 0.1), (0, 0.2))"),
    ("two weights", lambda: Uniform(PerClass((0.1, 1.0))), "Uniform.alpha.values[1]", "1.0"),
    ("a weight of a step", lambda: Uniform(Schedule(((0, 0.1), (5, 1.0)))), "Uniform.alpha at step 5", "1.0"),
    ("no mapping", lambda: rule_from_dict("Uniform"), "rule", "'Uniform'"),
    ("no name", lambda: rule_from_dict({"alpha": 0.1}), "rule", "{'alpha': 0.1}"),
    ("an unknown name", lambda: rule_from_dict({"rule": "Unifrom"}), "rule", "Did you mean 'Uniform'?"),
    ("an unknown field", lambda: rule_from_dict({"rule": "Uniform", "aplha": 0.1}), "a field of Uniform", "'alpha'?"),
    ("a bad field", lambda: rule_from_dict({"rule": "Uniform", "alpha": 2}), "Uniform.alpha", "2"),
    ("an unknown weight", lambda: rule_from_dict({"rule": "Uniform", "alpha": {"weight": "X"}}), "alpha['weight']", "'X'"),
    ("a nameless weight", lambda: rule_from_dict({"rule": "Uniform", "alpha": {}}), "alpha['weight']", "None"),
    ("a weight without values", lambda: rule_from_dict({"rule": "Uniform", "alpha": {"weight": "PerClass"}}), "PerClass.values", "None"),
    ("a weight with more", lambda: rule_from_dict({"rule": "Uniform", "alpha": {"weight": "PerSample", "x": 1}}), "a field of PerSample", "'x'"),
    ("no parts", lambda: rule_from_dict({"rule": "Composite", "parts": []}), "rule", "'parts': []"),
    ("parts of text", lambda: rule_from_dict({"rule": "Composite", "parts": "ab"}), "rule", "'ab'"),
    ("a part of text", lambda: rule_from_dict({"rule": "Composite", "parts": ["ab"]}), "rule", "'ab'"),
    ("more than parts", lambda: rule_from_dict({"rule": "Composite", "parts": [{}], "x": 1}), "rule", "'x': 1"),
    ("two targets in parts", lambda: rule_from_dict({"rule": "Composite", "parts": [{"rule": "Uniform"}] * 2}), "the sum of rules", "Uniform"),
    ("paths as text", lambda: from_hierarchy("ab"), "paths", "'ab'"),
    ("one path", lambda: from_hierarchy([("a",)]), "paths", "('a',)"),
    ("names as paths", lambda: from_hierarchy(["cat", "dog"]), "paths[0]", "'cat'"),
    ("numbers as paths", lambda: from_hierarchy([("a",), 1]), "paths[1]", "1"),
    ("an empty path", lambda: from_hierarchy([("a",), ()]), "paths[1]", "()"),
    ("one path twice", lambda: from_hierarchy([("a",), ("b",), ("a",)]), "paths", "('a',)"),
    ("one embedding", lambda: from_embeddings([[1.0, 2.0]]), "embeddings", "[1., 2.]"),
    ("an embedding of zeros", lambda: from_embeddings([[1.0], [0.0]]), "embeddings[1]", "[0.]"),
    ("flat embeddings", lambda: from_embeddings([1.0, 2.0]), "embeddings", "[1.0, 2.0]"),
    ("one class confused", lambda: from_confusion([[1]]), "counts", "(1, 1)"),
    ("confusions not square", lambda: from_confusion([[1, 2]]), "counts", "(1, 2)"),
    ("negative confusions", lambda: from_confusion([[1, -2], [0, 1]]), "counts", "-2.0"),
    ("desmooth a penalty", lambda: desmooth(P, Uniform(0.1) + MaxSup(0.1)), "rule", "MaxSup"),
    ("desmooth focal", lambda: desmooth(P, Focal()), "rule", "Focal"),
    ("desmooth a binary rule", lambda: desmooth(P, Bernoulli(0.1)), "rule", "Bernoulli"),
    ("desmooth integers", lambda: desmooth([[1, 0]], 0.1), "probs", "int64"),
    ("desmooth a number", lambda: desmooth(0.5, 0.1), "probs", "float64"),
    ("desmooth logits", lambda: desmooth(Z, 0.1), "probs[0, 2]", "-1.0"),
    ("desmooth scores", lambda: desmooth(P * 2, 0.1), "probs[0]", "2.0"),
    ("desmooth one class", lambda: desmooth([[1.0]], 0.1), "probs.shape[1]", "1"),
    ("desmooth along no axis", lambda: desmooth(P, 0.1, axis=5), "axis", "5"),
    ("desmooth a singular map", lambda: desmooth(P, Similarity(1.0, np.full((4, 4), 0.25))), "rule", "'a singular map'"),
    ("desmooth per sample", lambda: desmooth(P, Similarity(PerSample(), EYE)), "rule", "PerSample()"),
    ("desmooth all of it", lambda: desmooth(P, Teacher(1.0), prior=P), "alpha", "1.0"),
    ("desmooth without prior", lambda: desmooth(P, Teacher(0.5)), "prior", "None"),
    ("desmooth without means", lambda: desmooth(P, Online(0.5)), "prior", "None"),
    ("explain a teacher", lambda: explain(Teacher(), 4), "rule", "Teacher"),
    ("explain per sample", lambda: explain(Uniform(PerSample()), 4), "rule", "PerSample"),
    ("explain online without means", lambda: explain(Online(), 4), "prior", "None"),
    ("explain too much", lambda: explain(Others(0.5), 2), "Others.alpha", "0.5"),
    ("explain a number", lambda: explain(1.5, 4), "Uniform.alpha", "1.5"),
    ("explain a schedule", lambda: explain(Uniform(Schedule(((0, 0.1),))), 4), "Uniform.alpha", "Schedule"),
    ("explain text", lambda: explain("uniform", 4), "rule", "'uniform'"),
    ("means of ids", lambda: OnlineMeans(4).update(Y, Y), "probs", "(3,)"),
    ("means of other classes", lambda: OnlineMeans(3).update(P, Y), "probs", "(3, 4)"),
    ("means of logits", lambda: OnlineMeans(4).update(Z, Y), "probs[0, 2]", "-1.0"),
    ("a teacher without prior", lambda: smooth_labels(Y, Teacher(), num_classes=4), "prior", "None"),
    ("means without labels", lambda: OnlineMeans(4).update(P, Y[:2]), "labels", "(2,)"),
    ("means of label 4", lambda: OnlineMeans(4).update(P, Y + 2), "labels[2]", "4"),
    ("means of floats", lambda: OnlineMeans(4).update(P, Y * 1.0), "labels", "float64"),
    ("a state of nothing", lambda: OnlineMeans(4).load_state_dict({}), "state", "[]"),
    ("a state that is a list", lambda: OnlineMeans(4).load_state_dict([1]), "state", "[1]"),
    ("a state of other classes", lambda: OnlineMeans(4).load_state_dict(OnlineMeans(3).state_dict()), "state['means']", "(3, 3)"),
    ("Platt of label 2", lambda: Platt.from_labels([0, 2]), "labels[1]", "2"),
    ("negatives of other labels", lambda: smooth_binary_labels([1, 0], Platt(1, (1, 2, 3))), "Platt.negatives", "3"),
    ("ranks of 0 and more", lambda: smooth_binary_labels([1, 0], Prevalence(0.1, (0.1, 0.2, 0.3))), "Prevalence.rates", "3"),
]  # fmt: skip


@pytest.mark.parametrize("bad", ELSE, ids=lambda bad: bad[0])
def test_everything_else_refuses(bad):
    refuses(*bad[1:])


# Every argument that is an array, of every function: what is no array of numbers names it.
ARRAYS = [
    (cross_entropy, {"logits": Z, "labels": Y, "rule": Uniform(0.1)}, ("logits", "labels", "where", "allowed", "weight")),
    (cross_entropy, {"logits": Z, "labels": Y, "rule": Uniform(PerSample())}, ("alpha",)),
    (cross_entropy, {"logits": Z, "labels": Y, "rule": Teacher()}, ("prior",)),
    (cross_entropy, {"logits": Z, "labels": Y, "rule": Online()}, ("prior",)),
    (smooth_labels, {"labels": Y, "rule": 0.1, "num_classes": 4}, ("labels", "allowed")),
    (smooth_labels, {"labels": Y, "rule": Uniform(PerSample()), "num_classes": 4}, ("alpha",)),
    (smooth_labels, {"labels": Y, "rule": Teacher(), "num_classes": 4}, ("prior",)),
    (smooth_labels, {"labels": Y, "rule": Online(), "num_classes": 4}, ("prior",)),
    (desmooth, {"probs": P, "rule": 0.1}, ("probs",)),
    (desmooth, {"probs": P, "rule": Uniform(PerSample())}, ("alpha",)),
    (desmooth, {"probs": P, "rule": Teacher()}, ("prior",)),
    (desmooth, {"probs": P, "rule": Online()}, ("prior",)),
    (explain, {"rule": Online(), "num_classes": 4}, ("prior",)),
    (binary_cross_entropy, {"logits": B * 1.5, "labels": B, "rule": Bernoulli(0.1)}, ("logits", "labels", "where", "pos_weight")),
    (smooth_binary_labels, {"labels": B, "rule": 0.1}, ("labels",)),
    (Platt.from_labels, {"labels": B}, ("labels",)),
    (OnlineMeans(4).update, {"probs": P, "labels": Y}, ("probs", "labels")),
]  # fmt: skip


@pytest.mark.parametrize(("function", "right", "names"), ARRAYS)
def test_what_is_no_array_of_numbers_names_the_argument(function, right, names):
    for name in names:
        for bad in (["a"], [[1.0], [1.0, 2.0]], np.ma.masked_array([1.0], [True])):
            with pytest.raises(InputError) as caught:
                function(**{**right, name: bad})
            assert caught.value.argument == name
            assert shown(bad) in str(caught.value)


def test_there_are_many():
    ranges = sum(len(rule.RANGES[name].bad_values()) for rule, name in RANGED)
    assert len(LOSS) + len(TARGETS) + len(BINARY_LOSS) + len(ELSE) >= 250
    assert ranges >= 200


WARNED = [
    (lambda: Uniform(0.9), "did you mean 0.1"),
    (lambda: smooth_labels([0], 0.75, num_classes=4), "did you mean 0.25"),
    (
        lambda: cross_entropy(Z, Y, Uniform(0.1), weight=[1, 1, 1, 38], weighting="class"),
        "class 3 the best prediction for a sample of class 0: its weight is 38 times as large, and "
        "from 37 on",
    ),
    (
        lambda: cross_entropy(Z, P, Uniform(0.1), weight=[0, 1, 1, 1], weighting="class"),
        "its weight is inf times",
    ),
    (
        lambda: binary_cross_entropy(B * 1.0, B, Bernoulli(0.1), pos_weight=20, weighting="class"),
        "the best prediction for some negatives",
    ),
]


@pytest.mark.parametrize("warned", WARNED, ids=range(len(WARNED)))
def test_what_is_probably_not_meant_is_warned_of_where_it_was_written(warned):
    call, text = warned
    with pytest.warns(SofthotWarning, match=text) as caught:
        call()
    assert [w.filename for w in caught] == [__file__]


NOT_WARNED = [
    lambda: Uniform(0.5),
    lambda: Similarity(1.0, EYE),
    lambda: cross_entropy(Z, Y, Uniform(0.1), weight=[1, 1, 1, 36], weighting="class"),
    lambda: cross_entropy(Z, Y, Uniform(0.1), weight=[1, 1, 1, 1000], weighting="sample"),
    lambda: cross_entropy(
        Z, Y, Uniform(0.1), weight=[1, 1, 1, 38], weighting="class", validate=False
    ),
    lambda: binary_cross_entropy(B * 1.0, B, Bernoulli(0.1), pos_weight=18, weighting="class"),
    lambda: binary_cross_entropy(B * 1.0, B, Bernoulli(0.1), pos_weight=1000),
]


@pytest.mark.parametrize("call", NOT_WARNED, ids=range(len(NOT_WARNED)))
def test_what_is_fine_is_not_warned_of(call):
    call()  # warnings are errors
