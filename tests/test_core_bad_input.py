"""Bad input: every one ends in an InputError that names the argument and shows the value."""

import math
import re

import numpy as np
import pytest

import softhot
from softhot import InputError
from softhot.core import similarity
from softhot.core.check import Interval, OneOf
from softhot.core.rule import HARD, Rule

K = 4
Z = np.linspace(-1, 1, 3 * K).reshape(3, K)
Y = np.array([0, 3, 1])
SOFT = np.full((3, K), 0.25)
U = softhot.Uniform(0.1)
B = softhot.Bernoulli(0.1)
NAN, INF = math.nan, math.inf


def with_entry(array, index, value):
    array = np.array(array, dtype=np.result_type(array, type(value)))
    array[index] = value
    return array


def ce(logits=Z, labels=Y, rule=U, **options):
    return softhot.cross_entropy_and_gradient(logits, labels, rule, **options)


def bce(logits=Z, labels=(Z > 0), rule=B, **options):
    return softhot.binary_cross_entropy_and_gradient(logits, labels, rule, **options)


def smooth(labels=Y, rule=0.1, num_classes=K, **options):
    return softhot.smooth_labels(labels, rule, num_classes=num_classes, **options)


def fields_with_ranges():
    """Every field of every rule that has a range, with every value the range refuses."""
    for name, rule in Rule.known.items():
        for field, allowed in rule.RANGES.items():
            if isinstance(allowed, Interval | OneOf):
                for i, value in enumerate(allowed.bad_values()):
                    yield pytest.param(rule, field, value, id=f"{name}.{field}-{i}")


RANGED = list(fields_with_ranges())


@pytest.mark.parametrize(("rule", "field", "value"), RANGED)
def test_fields_outside_their_range_are_refused(rule, field, value):
    given = {"counts": (1.0, 2.0)} if rule is softhot.Prior else {}
    given |= {"matrix": ((0.5, 0.5), (0.5, 0.5))} if rule is softhot.Similarity else {}
    with pytest.raises(InputError) as error:
        rule(**{**given, field: value})
    assert f"{rule.__name__}.{field}" in str(error.value)
    assert "got " in str(error.value)


# Each line: what is called, and what the message must say.
BAD = {
    # logits
    "logits integer": (lambda: ce(np.zeros((3, K), dtype=int)), "logits", "real", "astype"),
    "logits bool": (lambda: ce(np.zeros((3, K), dtype=bool)), "logits", "real"),
    "logits complex": (lambda: ce(Z * 1j), "logits", "real"),
    "logits text": (lambda: ce(np.array([["a", "b"]])), "logits", "numbers"),
    "logits object": (lambda: ce(np.array([[None, 1.0]])), "logits", "numbers"),
    "logits ragged": (lambda: ce([[1.0, 2.0], [1.0]]), "logits", "pad"),
    "logits scalar": (lambda: ce(1.0, 0), "logits", "class axis"),
    "logits none": (lambda: ce(None), "logits", "numbers"),
    "logits masked array": (lambda: ce(np.ma.masked_array(Z)), "logits", "where="),
    "logits nan": (lambda: ce(with_entry(Z, (1, 2), NAN)), "logits[1, 2]", "nan"),
    "logits +inf": (lambda: ce(with_entry(Z, (2, 0), INF)), "logits[2, 0]", "inf"),
    "logits all -inf": (lambda: ce(with_entry(Z, 1, -INF)), "logits[1]", "-inf"),
    "one class": (lambda: ce(Z[:, :1], np.zeros(3, int)), "logits", "2", "binary"),
    "no class": (lambda: ce(Z[:, :0], np.zeros(3, int)), "logits", "0"),
    "axis too far": (lambda: ce(axis=2), "axis", "2"),
    "axis too low": (lambda: ce(axis=-3), "axis", "-3"),
    "axis float": (lambda: ce(axis=1.0), "axis", "1.0"),
    "axis bool": (lambda: ce(axis=True), "axis", "True"),
    # labels
    "label -1": (lambda: ce(labels=with_entry(Y, 1, -1)), "labels[1]", "-1", "ignore_index"),
    "label K": (lambda: ce(labels=with_entry(Y, 2, K)), "labels[2]", "4", "0 .. 3"),
    "label -100 unasked": (lambda: ce(labels=with_entry(Y, 0, -100)), "labels[0]", "-100"),
    "other ignored": (lambda: ce(labels=with_entry(Y, 0, -1), ignore_index=-100), "labels[0]"),
    "float ids": (lambda: ce(labels=Y.astype(float)), "labels", "float64", "astype"),
    "bool ids": (lambda: ce(labels=Y > 1), "labels", "integer"),
    "complex ids": (lambda: ce(labels=Y * 1j), "labels"),
    "text ids": (lambda: ce(labels=np.array(["a", "b", "c"])), "labels", "numbers"),
    "object ids": (lambda: ce(labels=np.array([0, None, 1])), "labels", "numbers"),
    "ragged ids": (lambda: ce(labels=[[0], [1, 2], [3]]), "labels"),
    "masked ids": (lambda: ce(labels=np.ma.masked_array(Y)), "labels", "where="),
    "too few ids": (lambda: ce(labels=Y[:2]), "labels", "(3,)", "(2,)"),
    "ids as column": (lambda: ce(labels=Y[:, None]), "labels", "(3, 1)"),
    "scalar id": (lambda: ce(labels=0), "labels", "()"),
    "labels of other K": (lambda: ce(labels=SOFT[:, :3]), "labels", "(3, 3)"),
    "soft negative": (lambda: ce(labels=with_entry(SOFT, (0, 1), -0.25)), "labels[0, 1]", "-0.25"),
    "soft nan": (lambda: ce(labels=with_entry(SOFT, (0, 1), NAN)), "labels[0, 1]", "nan"),
    "soft inf": (lambda: ce(labels=with_entry(SOFT, (2, 1), INF)), "labels[2", "inf"),
    "soft sums to 1.9": (lambda: ce(labels=SOFT * 1.9), "labels[0]", "1.9", "multi-hot"),
    "soft sums to 0": (lambda: ce(labels=SOFT * 0), "labels[0]", "0.0"),
    "integer multi-hot": (lambda: ce(labels=np.eye(K, dtype=int)[:3] + 1), "labels[0]", "multi"),
    "soft complex": (lambda: ce(labels=SOFT * 1j), "labels", "complex"),
    "smoothed already": (
        lambda: ce(labels=0.9 * np.eye(K)[Y] + 0.1 / K),
        *("labels", "smoothed", "smooth_again"),
    ),
    "smoothed already, two classes": (
        lambda: ce(Z[:, :2], np.array([[0.95, 0.05], [0.05, 0.95], [0.95, 0.05]])),
        *("labels", "smoothed"),
    ),
    "ignore_index with soft labels": (lambda: ce(labels=SOFT, ignore_index=0), "ignore_index", "0"),
    "ignore_index float": (lambda: ce(ignore_index=-1.0), "ignore_index", "-1.0"),
    "ignore_index bool": (lambda: ce(ignore_index=True), "ignore_index", "True"),
    "ignore_index text": (lambda: ce(ignore_index="pad"), "ignore_index", "pad"),
    # masks
    "where of numbers": (lambda: ce(where=np.ones(3)), "where", "booleans", "astype(bool)"),
    "where too short": (lambda: ce(where=np.array([True, False])), "where", "(3,)", "(2,)"),
    "where with classes": (lambda: ce(where=np.ones((3, K), bool)), "where", "(3, 4)"),
    "where text": (lambda: ce(where="yes"), "where"),
    "allowed of numbers": (lambda: ce(allowed=np.ones(K)), "allowed", "booleans"),
    "allowed too short": (lambda: ce(allowed=np.ones(K - 1, bool)), "allowed", "(3,)"),
    "label not allowed": (
        lambda: ce(allowed=np.array([True, True, True, False])),
        *("labels[1]", "allowed", "3", "where="),
    ),
    "label masked by -inf": (lambda: ce(with_entry(Z, (1, 3), -INF)), "labels[1]", "3"),
    "soft label not allowed": (
        lambda: ce(labels=SOFT, allowed=np.array([True, True, True, False]), smooth_again=True),
        *("labels[0]", "allowed"),
    ),
    "nothing allowed": (lambda: ce(allowed=np.zeros(K, bool)), "allowed"),
    "prior without allowed mass": (
        lambda: ce(
            labels=np.zeros(3, int),
            rule=softhot.Prior(0.1, (0, 0, 1, 1)),
            allowed=np.array([True, True, False, False]),
        ),
        *("allowed[0]", "prior"),
    ),
    # class weights
    "weight negative": (lambda: ce(weight=[1.0, -1.0, 1.0, 1.0]), "weight[1]", "-1.0"),
    "weight nan": (lambda: ce(weight=[1.0, NAN, 1.0, 1.0]), "weight[1]", "nan"),
    "weight inf": (lambda: ce(weight=[1.0, 1.0, 1.0, INF]), "weight[3]", "inf"),
    "weight too short": (lambda: ce(weight=[1.0, 1.0]), "weight", "(4,)", "(2,)"),
    "weight scalar": (lambda: ce(weight=2.0), "weight", "()"),
    "weight of rows": (lambda: ce(weight=np.ones((3, K))), "weight", "(3, 4)"),
    "weight complex": (lambda: ce(weight=np.ones(K) * 1j), "weight"),
    "weight bool": (lambda: ce(weight=np.ones(K, bool)), "weight"),
    "weight text": (lambda: ce(weight="balanced"), "weight"),
    "weighting misspelt": (
        lambda: ce(weight=np.ones(K), weighting="clas"),
        "weighting",
        "'class'?",
    ),
    "weighting without weight": (lambda: ce(weighting="class"), "weighting", "weight="),
    "weighting none": (lambda: ce(weighting=None), "weighting", "None"),
    # reduction and rule
    "reduction misspelt": (lambda: ce(reduction="avg"), "reduction", "avg"),
    "reduction none": (lambda: ce(reduction=None), "reduction", "None"),
    "rule a number": (lambda: ce(rule=0.1), "rule", "softhot.Uniform(0.1)"),
    "rule a class": (lambda: ce(rule=softhot.Uniform), "rule", "Uniform(...)"),
    "rule a name": (lambda: ce(rule="uniform"), "rule", "uniform"),
    "rule none": (lambda: ce(rule=None), "rule", "None"),
    "rule binary": (lambda: ce(rule=B), "rule", "Bernoulli"),
    "schedule not fixed": (
        lambda: ce(rule=softhot.Uniform(softhot.Schedule(((0, 0.1), (9, 0.2))))),
        *("Uniform.alpha", "rule.at(step)"),
    ),
    "penalty's schedule not fixed": (
        lambda: ce(rule=U + softhot.MaxSup(softhot.Schedule(((0, 0.1),)))),
        *("MaxSup.alpha", "rule.at(step)"),
    ),
    "two bases": (lambda: U + softhot.Others(0.1), "sum of rules", "twice", "Others"),
    "a base twice": (lambda: U + U, "sum of rules", "twice"),
    "a penalty twice": (
        lambda: U + softhot.MaxSup(0.1) + softhot.MaxSup(0.2),
        *("sum of rules", "MaxSup", "twice"),
    ),
    "focal of soft labels": (lambda: ce(labels=SOFT, rule=softhot.Focal()), "labels", "Focal"),
    # weights of smoothing
    "alpha twice": (lambda: ce(alpha=np.full(3, 0.1)), "alpha", "twice", "PerSample"),
    "alpha missing": (
        lambda: ce(rule=softhot.Uniform(softhot.PerSample())),
        *("alpha", "batch", "None"),
    ),
    "alpha of other length": (
        lambda: ce(rule=softhot.Uniform(softhot.PerSample()), alpha=np.full(2, 0.1)),
        *("alpha", "(3,)", "(2,)"),
    ),
    "alpha of samples too large": (
        lambda: ce(rule=softhot.Uniform(softhot.PerSample()), alpha=np.array([0, 0.5, 1.5])),
        *("alpha", "1.5"),
    ),
    "alpha of samples nan": (
        lambda: ce(rule=softhot.Uniform(softhot.PerSample()), alpha=np.array([0, NAN, 0.5])),
        *("alpha", "nan"),
    ),
    "alpha of samples bool": (
        lambda: ce(rule=softhot.Uniform(softhot.PerSample()), alpha=np.ones(3, bool)),
        *("alpha", "bool"),
    ),
    "alpha a list": (lambda: softhot.Uniform([0.1, 0.2]), "Uniform.alpha", "PerClass"),
    "alpha an array": (lambda: softhot.Uniform(np.array([0.1])), "Uniform.alpha", "PerSample"),
    "alpha negative": (lambda: softhot.Uniform(-0.1), "Uniform.alpha", "-0.1", "NegativeUniform"),
    "alpha per class, wrong K": (
        lambda: ce(rule=softhot.Uniform(softhot.PerClass([0.1, 0.2]))),
        *("Uniform.alpha", "4", "2"),
    ),
    "alpha per class too large": (
        lambda: softhot.Uniform(softhot.PerClass([0.1, 1.2])),
        *("Uniform.alpha.values[1]", "1.2"),
    ),
    "alpha per class empty": (lambda: softhot.PerClass([]), "PerClass.values"),
    "alpha per class text": (lambda: softhot.PerClass(["a"]), "PerClass.values", "a"),
    "alpha per class ragged": (lambda: softhot.PerClass([[0.1], [0.1, 0.2]]), "PerClass.values"),
    "alpha per class scalar": (lambda: softhot.PerClass(0.1), "PerClass.values", "0.1"),
    "others beyond its top": (
        lambda: ce(Z[:, :2], np.array([0, 1, 1]), softhot.Others(0.5)),
        *("Others.alpha", "0.5", "K = 2"),
    ),
    "schedule empty": (lambda: softhot.Schedule(()), "Schedule.points"),
    "schedule of triples": (lambda: softhot.Schedule(((0, 1, 2),)), "Schedule.points"),
    "schedule backwards": (lambda: softhot.Schedule(((9, 0.1), (0, 0.2))), "Schedule.points"),
    "schedule nan": (lambda: softhot.Schedule(((0, NAN),)), "Schedule.points", "nan"),
    "schedule text": (lambda: softhot.Schedule("linear"), "Schedule.points", "linear"),
    "schedule out of range": (
        lambda: softhot.Uniform(softhot.Schedule(((0, 0.1), (9, 1.5)))),
        *("Uniform.alpha at step 9", "1.5"),
    ),
    "step nan": (lambda: softhot.Schedule(((0, 0.1),)).at(NAN), "step", "nan"),
    "step text": (lambda: softhot.Schedule(((0, 0.1),)).at("first"), "step", "first"),
    # priors
    "prior unasked": (lambda: ce(prior=SOFT), "prior", "Uniform"),
    "prior missing": (lambda: ce(rule=softhot.Teacher(0.5)), "prior", "(3, 4)", "Teacher"),
    "prior of other shape": (
        lambda: ce(rule=softhot.Teacher(0.5), prior=SOFT[:2]),
        *("prior", "(3, 4)", "(2, 4)"),
    ),
    "logits as prior": (lambda: ce(rule=softhot.Teacher(0.5), prior=Z), "prior[0]", "softmax"),
    "prior nan": (lambda: ce(rule=softhot.Teacher(0.5), prior=SOFT * NAN), "prior[0]", "nan"),
    "prior integer": (
        lambda: ce(rule=softhot.Teacher(0.5), prior=np.eye(K, dtype=int)[Y]),
        *("prior", "real"),
    ),
    "online prior of rows": (
        lambda: ce(rule=softhot.Online(0.5), prior=SOFT),
        *("prior", "(4, 4)", "(3, 4)"),
    ),
    "counts missing": (lambda: softhot.Prior(0.1), "Prior.counts"),
    "counts negative": (lambda: softhot.Prior(0.1, (1, -1)), "Prior.counts", "-1"),
    "counts zero": (lambda: softhot.Prior(0.1, (0, 0)), "Prior.counts", "not all 0"),
    "counts nan": (lambda: softhot.Prior(0.1, (1, NAN)), "Prior.counts", "nan"),
    "counts text": (lambda: softhot.Prior(0.1, ("many", "few")), "Prior.counts", "many"),
    "counts of other K": (lambda: ce(rule=softhot.Prior(0.1, (1, 2))), "Prior.counts", "4", "2"),
    "matrix missing": (lambda: softhot.Similarity(0.1), "Similarity.matrix"),
    "matrix not square": (lambda: softhot.Similarity(0.1, SOFT), "Similarity.matrix", "(3, 4)"),
    "matrix negative": (
        lambda: softhot.Similarity(0.1, ((1.5, -0.5), (0, 1))),
        *("Similarity.matrix", "-0.5"),
    ),
    "matrix not stochastic": (
        lambda: softhot.Similarity(0.1, ((0.5, 0.5), (0.5, 0.6))),
        *("Similarity.matrix[1]", "1.1"),
    ),
    "matrix of other K": (
        lambda: ce(rule=softhot.Similarity(0.1, np.eye(3))),
        *("Similarity.matrix", "4", "3"),
    ),
    "positions of other K": (
        lambda: ce(rule=softhot.Ordinal(positions=(1, 2))),
        *("Ordinal.positions", "4", "2"),
    ),
    "log of position 0": (
        lambda: softhot.Ordinal(distance="log", positions=(0, 1)),
        *("Ordinal.positions", "log"),
    ),
    "noise rate 1": (lambda: softhot.NegativeUniform.from_noise(1.0), "rate", "1.0"),
    "noise rate of no signal": (
        lambda: softhot.NegativeUniform.from_noise(0.75, num_classes=4),
        *("rate", "1.0"),
    ),
    "noise of one class": (
        lambda: softhot.NegativeUniform.from_noise(0.1, num_classes=1),
        *("num_classes", "1"),
    ),
    "threshold negative": (
        lambda: softhot.ConfidencePenalty(0.1, -1.0),
        *("ConfidencePenalty.threshold", "-1.0"),
    ),
    "max-sup per class": (
        lambda: softhot.MaxSup(softhot.PerClass([0.1, 0.2])),
        *("MaxSup.alpha", "PerClass"),
    ),
    # targets
    "no class count": (lambda: smooth(num_classes=1), "num_classes", "1"),
    "class count float": (lambda: smooth(num_classes=4.0), "num_classes", "4.0"),
    "class count bool": (lambda: smooth(num_classes=True), "num_classes", "True"),
    "class count none": (lambda: smooth(num_classes=None), "num_classes", "None"),
    "id beyond K": (lambda: smooth(num_classes=3), "labels[1]", "3"),
    "id -1": (lambda: smooth(np.array([-1])), "labels[0]", "-1"),
    "ids as floats": (lambda: smooth(np.array([0.0, 1.0])), "labels", "astype(int)"),
    "ids that could be one-hot": (lambda: smooth(np.eye(K, dtype=int)), "labels", 'kind="one_hot"'),
    "kind misspelt": (lambda: smooth(kind="onehot"), "kind", "'one_hot'?"),
    "rows of other K": (lambda: smooth(SOFT[:, :3] / 0.75), "labels", "4"),
    "multi-hot rows": (
        lambda: smooth(np.array([[1, 1, 0, 0]]), kind="one_hot"),
        *("labels[0]", "smooth_binary_labels"),
    ),
    "twice smoothed": (lambda: smooth(smooth()), "labels", "smooth_again"),
    "penalty in targets": (lambda: smooth(rule=U + softhot.MaxSup(0.1)), "rule", "rule.base"),
    "bare penalty in targets": (lambda: smooth(rule=softhot.Margin()), "rule", "Margin"),
    "alpha 1.5 in targets": (lambda: smooth(rule=1.5), "alpha", "1.5"),
    "axis of targets": (lambda: smooth(axis=5), "axis", "5"),
    "bool alpha in targets": (lambda: smooth(rule=True), "alpha", "True"),
    # conversions and inverses
    "unknown convention": (
        lambda: softhot.convert_alpha(0.1, "unifrom", "others", 5),
        "'uniform'?",
    ),
    "convention to none": (
        lambda: softhot.convert_alpha(0.1, "uniform", "one_sided", 5),
        *("to", "one_sided", "positives"),
    ),
    "convention from none": (
        lambda: softhot.convert_alpha(0.1, "skip_pad", "uniform", 5),
        *("frm", "padding"),
    ),
    "sigmoid convention": (
        lambda: softhot.convert_alpha(0.1, "sigmoid_over_classes", "uniform", 5),
        *("frm", "1/K"),
    ),
    "binary convention of five": (
        lambda: softhot.convert_alpha(0.1, "binary_half", "uniform", 5),
        *("num_classes", "5", "2"),
    ),
    "alpha beyond others": (
        lambda: softhot.convert_alpha(0.9, "others", "uniform", 5),
        *("alpha", "0.9", "0.8"),
    ),
    "kept nothing": (lambda: softhot.convert_alpha(0.0, "kept", "uniform", 5), "alpha", "0.0"),
    "one class to convert": (
        lambda: softhot.convert_alpha(0.1, "uniform", "others", 1),
        *("num_classes", "1"),
    ),
    "desmooth logits": (lambda: softhot.desmooth(Z, 0.1), "probs[0, 0]", "-1.0"),
    "desmooth integers": (lambda: softhot.desmooth(np.eye(K, dtype=int), 0.1), "probs"),
    "desmooth penalty": (
        lambda: softhot.desmooth(SOFT, U + softhot.MaxSup(0.1)),
        *("rule", "temperature"),
    ),
    "desmooth focal": (lambda: softhot.desmooth(SOFT, softhot.Focal()), "rule", "Focal"),
    "desmooth what is gone": (
        lambda: softhot.desmooth(SOFT, softhot.Similarity(1.0, np.full((K, K), 0.25))),
        *("rule", "inverted"),
    ),
    "desmooth teacher at 1": (
        lambda: softhot.desmooth(SOFT, softhot.Teacher(1.0), prior=SOFT),
        *("alpha", "below 1"),
    ),
    "desmooth axis": (lambda: softhot.desmooth(SOFT, 0.1, axis=2), "axis", "2"),
    "explain one class": (lambda: softhot.explain(U, 1), "num_classes", "1"),
    "explain a teacher": (lambda: softhot.explain(softhot.Teacher(0.5), 4), "rule", "Teacher"),
    "explain a name": (lambda: softhot.explain("uniform", 4), "rule", "uniform"),
    # JSON
    "rule from list": (lambda: softhot.rule_from_dict([1]), "rule", "[1]"),
    "rule from nothing": (lambda: softhot.rule_from_dict({}), "rule", "{}"),
    "rule of other name": (lambda: softhot.rule_from_dict({"rule": "Unifrom"}), "'Uniform'?"),
    "rule of other field": (
        lambda: softhot.rule_from_dict({"rule": "Uniform", "alfa": 0.1}),
        *("alfa", "'alpha'?"),
    ),
    "composite without parts": (lambda: softhot.rule_from_dict({"rule": "Composite"}), "parts"),
    "weight of other name": (
        lambda: softhot.rule_from_dict({"rule": "Uniform", "alpha": {"weight": "PerClas"}}),
        *("weight", "'PerClass'?"),
    ),
    # binary
    "binary label 2": (lambda: smooth_binary([0, 2]), "labels[1]", "2", "smooth_labels"),
    "binary label -1": (lambda: smooth_binary([-1, 1]), "labels[0]", "-1"),
    "binary label 1.5": (lambda: smooth_binary([0.5, 1.5]), "labels[1]", "1.5"),
    "binary label nan": (lambda: smooth_binary([0.5, NAN]), "labels[1]", "nan"),
    "binary label complex": (lambda: smooth_binary([1j]), "labels"),
    "binary rule of classes": (lambda: bce(rule=U), "rule", "Uniform"),
    "binary rule a number": (lambda: bce(rule=0.1), "rule", "0.1"),
    "binary shapes": (lambda: bce(labels=(Z > 0)[:2]), "labels", "(3, 4)", "(2, 4)"),
    "binary logits integer": (lambda: bce(np.zeros((3, K), dtype=int)), "logits", "real"),
    "binary logits inf": (lambda: bce(with_entry(Z, (0, 0), INF)), "logits[0, 0]", "inf"),
    "binary logits nan": (lambda: bce(with_entry(Z, (0, 0), NAN)), "logits[0, 0]", "nan"),
    "pos_weight negative": (lambda: bce(pos_weight=-1.0), "pos_weight", "-1"),
    "pos_weight nan": (lambda: bce(pos_weight=NAN), "pos_weight", "nan"),
    "pos_weight of other length": (lambda: bce(pos_weight=np.ones(3)), "pos_weight", "(3,)"),
    "binary weighting alone": (lambda: bce(weighting="class"), "weighting", "pos_weight="),
    "binary where": (lambda: bce(where=np.ones((3, K))), "where", "booleans"),
    "binary reduction": (lambda: bce(reduction="avg"), "reduction", "avg"),
    "binary axis": (lambda: bce(axis=2), "axis", "2"),
    "binary schedule": (
        lambda: bce(rule=softhot.Bernoulli(softhot.Schedule(((0, 0.1),)))),
        *("Bernoulli.alpha",),
    ),
    "prevalence above 1": (
        lambda: softhot.Prevalence(0.1, (0.5, 1.5)),
        *("Prevalence.rates[1]", "1.5"),
    ),
    "prevalence of other length": (
        lambda: bce(rule=softhot.Prevalence(0.1, (0.5, 0.1))),
        *("Prevalence.rates", "4", "2"),
    ),
    "platt counts negative": (lambda: softhot.Platt(-1, 1), "Platt.positives[0]", "-1"),
    "platt counts nan": (lambda: softhot.Platt(1, NAN), "Platt.negatives", "nan"),
    # similarity builders and online means
    "embeddings of zero length": (
        lambda: similarity.from_embeddings([[0.0, 0.0], [1.0, 0.0]]),
        *("embeddings[0]",),
    ),
    "embeddings nan": (lambda: similarity.from_embeddings([[NAN]]), "embeddings", "nan"),
    "temperature 0": (
        lambda: similarity.from_embeddings(np.eye(2), temperature=0),
        *("temperature", "0"),
    ),
    "confusion not square": (lambda: similarity.from_confusion(SOFT), "counts", "(3, 4)"),
    "confusion negative": (lambda: similarity.from_confusion([[1, -2], [0, 1]]), "counts", "-2"),
    "paths twice": (lambda: similarity.from_hierarchy([("a",), ("a",)]), "paths", "a"),
    "path empty": (lambda: similarity.from_hierarchy([("a",), ()]), "paths"),
    "beta 0": (lambda: similarity.from_hierarchy([("a",), ("b",)], beta=0), "beta", "0"),
    "online of one class": (lambda: softhot.OnlineMeans(1), "num_classes", "1"),
    "online update of logits": (lambda: softhot.OnlineMeans(K).update(Z, Y), "probs[0, 0]", "-1.0"),
    "online update of other K": (
        lambda: softhot.OnlineMeans(K).update(SOFT[:, :3], Y),
        *("probs", "(N, 4)"),
    ),
    "online labels": (lambda: softhot.OnlineMeans(K).update(SOFT, Y[:2]), "labels", "(3,)"),
    "online state of other keys": (
        lambda: softhot.OnlineMeans(K).load_state_dict({"means": 1}),
        *("state", "means"),
    ),
    "online state of other K": (
        lambda: softhot.OnlineMeans(K).load_state_dict(softhot.OnlineMeans(3).state_dict()),
        *("state", "(4, 4)", "(3, 3)"),
    ),
}


def smooth_binary(labels):
    return softhot.smooth_binary_labels(np.array(labels), 0.1)


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    call, *parts = BAD[name]
    with pytest.raises(InputError) as error:
        call()
    text = str(error.value)
    for part in parts:
        assert part in text, text
    assert error.value.argument
    assert error.value.allowed
    assert not re.search(r"\bTraceback\b", text)
    assert "\n" not in text


def test_there_are_enough_of_them():
    assert len(BAD) + len(RANGED) >= 200


def test_nothing_good_is_refused():
    """The same calls without the fault: the tests above would else pass on anything."""
    assert np.isfinite(ce()[0]).all()
    assert np.isfinite(bce()[0]).all()
    assert smooth().shape == (3, K)
    assert np.isfinite(ce(with_entry(Z, (1, 2), -INF))[0]).all()
    assert ce(rule=HARD, labels=0.9 * np.eye(K)[Y] + 0.1 / K)[0].shape == (3,)
    assert ce(rule=softhot.Teacher(0.5), prior=SOFT)[0].shape == (3,)
