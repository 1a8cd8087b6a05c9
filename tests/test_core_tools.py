"""The larger parts of the core: explain, desmooth, builders, online means, kinds of labels."""

import dataclasses
import math
import warnings

import numpy as np
import pytest
import scipy.optimize

import softhot
import softhot.core
from backends import NUMPY, Backend
from batches import K
from softhot import (
    ConfidencePenalty,
    Focal,
    InputError,
    Margin,
    MaxSup,
    NegativeUniform,
    Online,
    OnlineMeans,
    Ordinal,
    Others,
    PerClass,
    PerSample,
    Prior,
    Similarity,
    Teacher,
    Uniform,
    ZLoss,
    cross_entropy,
    desmooth,
    explain,
    smooth_labels,
)
from softhot.core.row import Row
from softhot.core.similarity import from_confusion, from_embeddings, from_hierarchy
from softhot.core.targets import make_target

# ---- explain --------------------------------------------------------------------------------


def test_explain_by_hand():
    e = explain(0.1, 10)
    assert (e.rule, e.num_classes, e.notes) == ("Uniform(alpha=0.1)", 10, ())
    assert (e.on, e.off) == (pytest.approx(0.91), pytest.approx(0.01))
    assert e.loss_floor == pytest.approx(-0.91 * math.log(0.91) - 0.09 * math.log(0.01))
    assert (e.entropy, e.confidence) == (e.loss_floor, e.on)
    assert e.logit_gap == pytest.approx(math.log(91))
    assert e.flip_ratio == pytest.approx(91)
    assert e.to_dict() == dataclasses.asdict(e)
    assert explain(Others(0.09), 10).on == pytest.approx(0.91)
    two = explain(Uniform(0.1), 2)
    assert (two.on, two.off, two.flip_ratio) == tuple(map(pytest.approx, (0.95, 0.05, 19)))
    assert explain(0.1, 10**15).logit_gap == pytest.approx(math.log(9e15 + 1))  # without a row


def test_explain_hard_labels_have_no_optimum():
    e = explain(Uniform(0.0), 3)
    assert (e.on, e.off, e.logit_gap, e.flip_ratio) == (1, 0, math.inf, math.inf)
    assert (e.loss_floor, e.entropy, e.confidence) == (0, 0, 1)


def test_explain_a_weight_so_small_that_the_ratio_overflows():
    e = explain(Uniform(1e-310), 10)
    assert (e.on, e.flip_ratio) == (1, math.inf)
    assert e.logit_gap == pytest.approx(-math.log(1e-311))


def test_explain_classes_that_differ():
    e = explain(Uniform(PerClass((0.0, 0.2))), 2)
    assert (e.on, e.off) == ((1.0, pytest.approx(0.9)), (0.0, pytest.approx(0.1)))
    assert e.logit_gap == (math.inf, pytest.approx(math.log(9)))
    assert e.flip_ratio == (math.inf, pytest.approx(9))
    assert e.confidence == (1.0, pytest.approx(0.9))
    swapped = explain(Similarity(1.0, ((0.2, 0.8), (0, 1))), 2)
    assert swapped.confidence == (pytest.approx(0.8), 1.0)
    assert swapped.logit_gap == (pytest.approx(math.log(0.25)), math.inf)
    means = np.array([[0.7, 0.3], [0.4, 0.6]])
    assert explain(Online(0.5), 2, prior=means).on == (pytest.approx(0.85), pytest.approx(0.8))
    assert "on" in explain(Ordinal(), 3).to_dict()
    assert "0.665241 to" not in str(explain(Ordinal(), 3))
    text = str(e)
    assert text.splitlines()[1] == "  target of the true class       0.9 to 1"


def test_explain_negative_smoothing():
    e = explain(NegativeUniform(-0.25), 5)
    assert (e.on, e.off) == (pytest.approx(1.2), pytest.approx(-0.05))
    assert (e.logit_gap, e.loss_floor, e.entropy, e.confidence) == (math.inf, -math.inf, 0, 1)
    assert e.flip_ratio == math.inf
    assert e.notes == (
        "The loss has no lower bound: give it the noise rate and a warmed-up model.",
    )
    assert str(e).endswith(e.notes[0])


@pytest.mark.parametrize("k", [2, 10, 100])
@pytest.mark.parametrize(
    "rule",
    [
        ConfidencePenalty(0.3),
        ConfidencePenalty(3.0, 0.4),
        MaxSup(0.1),
        Margin(0.05, 2.0),
        Uniform(0.1) + ConfidencePenalty(0.2),
        Others(0.1) + MaxSup(0.2) + Margin(0.01, 1.0),
        Focal(2.0) + MaxSup(0.1),
        Uniform(0.5) + ConfidencePenalty(1.5),
    ],
    ids=repr,
)
def test_explain_finds_the_optimum_of_penalties(rule, k):
    e = explain(rule, k)

    def loss(d):
        logits = np.zeros(k)
        logits[0] = d
        return float(cross_entropy(logits, np.array(0), rule))

    found = scipy.optimize.minimize_scalar(loss, bounds=(0, 40), method="bounded").fun
    assert e.loss_floor == pytest.approx(loss(e.logit_gap), rel=1e-14)
    assert found - 1e-6 <= e.loss_floor <= found + 1e-12
    p = np.exp([e.logit_gap, *[0.0] * (k - 1)])
    p /= p.sum()
    assert e.confidence == pytest.approx(p[0])
    assert e.entropy == pytest.approx(-(p * np.log(p)).sum())
    assert e.notes == ()


def test_explain_focal_and_penalties_without_optimum():
    e = explain(Focal(2.0), 5)
    assert (e.logit_gap, e.loss_floor, e.entropy, e.confidence) == (math.inf, 0, 0, 1)
    assert (e.on, e.off) == (1, 0)
    far = explain(Margin(0.1, 39.0), 5)
    assert far.logit_gap == pytest.approx(39.0, abs=1.0)
    for rule in (Ordinal() + MaxSup(0.1), NegativeUniform(-0.1) + MaxSup(0.1)):
        e = explain(rule, 5)
        assert (e.logit_gap, e.loss_floor, e.entropy, e.confidence) == (None,) * 4
        assert e.notes[-1] == "With these penalties the optimum has no closed form."
        assert "least loss                     not known in closed form\n" in str(e)


@pytest.mark.parametrize("rule", [Uniform(0.1), Prior(0.1, (1, 2, 5)), MaxSup(0.1), Focal()])
def test_explain_a_penalty_that_only_pins_the_logits(rule):
    without, pinned = explain(rule, 3), explain(rule + ZLoss(0.01), 3)
    assert pinned == dataclasses.replace(
        without,
        rule=repr(rule + ZLoss(0.01)),
        notes=("The logits are pinned: where the loss is least they are log-probabilities.",),
    )


# ---- desmooth -------------------------------------------------------------------------------


def test_desmooth_by_hand():
    p = np.array([[0.99, 0.01, 0.0], [0.5, 0.3, 0.2]])
    plain = desmooth(p, 0.3, clip=False)
    assert plain == pytest.approx((p - 0.1) / 0.7)
    clipped = desmooth(p, 0.3)
    assert clipped[0].tolist() == [1, 0, 0]
    assert clipped[1] == pytest.approx(plain[1])
    assert desmooth(p[0], 0.3).tolist() == [1, 0, 0]
    assert desmooth(p[:0], 0.3).shape == (0, 3)


def test_desmooth_keeps_dtype_and_library(backend):
    p = np.array([[0.75, 0.125, 0.125], [0.5, 0.25, 0.25]])
    given = backend.array(p)
    result = desmooth(given, 0.25)
    assert backend.dtype_of(result) == backend.dtype
    assert backend.numpy(result) == pytest.approx((p - 1 / 12) / 0.75, abs=backend.eps)
    matrix = ((0.5, 0.5, 0), (0, 0.5, 0.5), (0.5, 0, 0.5))
    result = backend.numpy(desmooth(given, Similarity(0.5, matrix)))
    expected = desmooth(p, Similarity(0.5, matrix))
    assert result == pytest.approx(expected, abs=4 * backend.eps)
    cube = backend.array(np.stack([p, p]))
    assert backend.numpy(desmooth(cube, Similarity(0.5, matrix)))[1] == pytest.approx(result)


def test_desmooth_per_sample_and_per_class():
    rng = np.random.default_rng(0)
    y = rng.dirichlet(np.ones(3), size=4)
    alpha = np.array([0.0, 0.1, 0.2, 0.3])
    rule = Uniform(PerSample())
    q = (1 - alpha[:, None]) * y + alpha[:, None] / 3
    assert desmooth(q, rule, alpha=alpha) == pytest.approx(y)
    whole = {"alpha": [0, 1, 1], "prior": y[:3]}  # integers are numbers
    taught = smooth_labels([2, 0, 1], Teacher(PerSample()), num_classes=3, **whole)
    assert taught == pytest.approx(np.array([[0, 0, 1], y[1], y[2]]))
    rates = np.array([0.0, 0.1, 0.2])
    q = y @ (np.diag(1 - rates) + rates[:, None] / 3)
    assert desmooth(q, Uniform(PerClass(rates))) == pytest.approx(y)


# ---- builders -------------------------------------------------------------------------------


def test_hierarchy_by_hand():
    paths = [("animal", "cat"), ("animal", "dog"), ("car",)]
    rule = from_hierarchy(paths, beta=2.0, alpha=0.3)
    near, far = math.exp(-1.0), math.exp(-2.0)
    assert rule.alpha == 0.3
    assert rule.matrix[0] == pytest.approx(np.array([1, near, far]) / (1 + near + far))
    assert rule.matrix[2] == pytest.approx(np.array([far, far, 1]) / (1 + 2 * far))
    # A class may stand above another: the height is that of the deeper one.
    nested = from_hierarchy([("a",), ("a", "b"), ("c", "d", "e")], beta=3.0)
    mass = np.exp(-np.array([0, 1, 3.0]))
    assert nested.matrix[0] == pytest.approx(mass / mass.sum())
    assert from_hierarchy(paths).alpha == 1.0
    assert from_hierarchy(paths) == from_hierarchy(paths, beta=10.0)


def test_a_sharp_softmax_of_embeddings_does_not_underflow():
    near = [[1.0, 0.0], [1.0, 1e-3], [-1.0, 3.0]]  # the third is far from both
    row = from_embeddings(near, temperature=1e-3).matrix[2]
    assert row[1] == pytest.approx(1 / (1 + math.exp(-3 / math.sqrt(10))), abs=1e-3)
    assert sum(row) == pytest.approx(1)


def test_embeddings_by_hand():
    rule = from_embeddings([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]], temperature=0.5)
    near, far = math.exp(math.sqrt(0.5) / 0.5), 1.0
    assert rule.matrix[0] == pytest.approx([0, far / (near + far), near / (near + far)])
    assert rule.matrix[2] == pytest.approx([0.5, 0.5, 0])
    assert rule.alpha == 0.1
    assert from_embeddings(np.eye(3), alpha=0.4).alpha == 0.4
    sharp = from_embeddings([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    assert sharp.matrix[0][1] == pytest.approx(1 / (1 + math.exp(-10 / math.sqrt(1.01))))


def test_confusions_by_hand():
    rule = from_confusion([[50, 3, 1], [0, 9, 0], [4, 4, 9]], alpha=0.2)
    assert rule.matrix == ((0.0, 0.75, 0.25), (0.5, 0.0, 0.5), (0.5, 0.5, 0.0))
    assert rule.alpha == 0.2
    assert from_confusion([[0, 1], [1, 0]]).alpha == 0.1


# ---- online means ---------------------------------------------------------------------------


def test_online_means_by_hand(backend):
    state = OnlineMeans(3)
    assert state.means.tolist() == np.full((3, 3), 1 / 3).tolist()
    probs = np.array(
        [[0.5, 0.25, 0.25], [0.75, 0.125, 0.125], [0.5, 0.25, 0.25], [0.25, 0.5, 0.25]]
    )
    labels = np.array([0, 0, 1, 1])
    for part in (slice(0, 1), slice(1, 4)):
        state.update(backend.array(probs[part]), backend.array(labels[part]))
    assert state.means.tolist() == np.full((3, 3), 1 / 3).tolist()
    state.finish_epoch()
    right = [[0.625, 0.1875, 0.1875], [0.25, 0.5, 0.25], [1 / 3] * 3]
    assert state.means == pytest.approx(np.array(right))
    state.finish_epoch()
    assert state.means.tolist() == np.full((3, 3), 1 / 3).tolist()


def test_online_means_take_predictions_that_are_still_part_of_a_graph():
    import torch

    for dtype in (torch.float32, torch.bfloat16):
        logits = torch.randn(4, 3, requires_grad=True)
        state = OnlineMeans(3)
        state.update(logits.softmax(1).to(dtype), logits.argmax(1))
        state.finish_epoch()
        assert state.means.sum(1) == pytest.approx(1, abs=1e-15)


def test_online_means_survive_a_checkpoint():
    state = OnlineMeans(2)
    state.update([[0.9, 0.1]], [0])
    saved = state.state_dict()
    assert {name: array.shape for name, array in saved.items()} == {
        "means": (2, 2), "sums": (2, 2), "counts": (2,),
    }  # fmt: skip
    other = OnlineMeans(2)
    other.load_state_dict(saved)
    state.update([[0.7, 0.3]], [0])
    state.finish_epoch()
    assert saved["sums"].tolist() == [[0.9, 0.1], [0, 0]]
    other.update([[0.7, 0.3]], [0])
    other.finish_epoch()
    assert other.means == pytest.approx(np.array([[0.8, 0.2], [0.5, 0.5]]))
    assert np.array_equal(other.means, state.means)
    loss = cross_entropy(np.zeros((1, 2)), np.array([0]), Online(0.5), prior=state.means)
    assert loss == pytest.approx(math.log(2))


# ---- smooth_labels, where it takes more than ids ----------------------------------------------


def test_kinds_of_labels():
    ids = np.array([[2, 0], [1, 1]])
    rows = np.eye(3)[ids]
    expected = smooth_labels(ids, 0.3, num_classes=3)
    assert expected.shape == (2, 2, 3)
    for labels, kind in (
        (ids, "ids"), (rows, None), (rows, "soft"), (rows > 0, None), (rows > 0, "one_hot"),
        (rows.astype(int), "one_hot"), (rows.astype(int), "soft"), (rows.tolist(), None),
    ):  # fmt: skip
        assert np.array_equal(smooth_labels(labels, 0.3, num_classes=3, kind=kind), expected)
    square = np.array([[0, 1], [1, 0]])
    assert smooth_labels(square, 0.3, num_classes=2, kind="ids").shape == (2, 2, 2)
    assert smooth_labels(square, 0.3, num_classes=2, kind="one_hot").shape == (2, 2)
    # One row of ids is never taken for one one-hot row, nor ids along another axis.
    assert smooth_labels([0, 1, 0], 0.3, num_classes=3).shape == (3, 3)
    assert smooth_labels(square[:1], 0.3, num_classes=2, axis=0, kind="ids").shape == (2, 1, 2)
    assert smooth_labels(np.zeros((2, 3), int), 0.3, num_classes=2).shape == (2, 3, 2)
    assert smooth_labels(np.array(1), 0.3, num_classes=3)[1] == pytest.approx(0.8)


@pytest.mark.parametrize("alpha", [0.5, PerClass((1.0, 0.5, 0.0))], ids=repr)
def test_one_hot_rows_give_what_ids_give_to_the_last_share(alpha):
    """A class may give all of its mass away, and another may have none that is allowed."""
    rule = Similarity(alpha, ((0, 0.5, 0.5), (0.5, 0, 0.5), (0, 1, 0)))
    for allowed in (None, np.array([True, False, True])):
        ids = np.arange(3) if allowed is None else np.zeros(1, int)
        wanted = smooth_labels(ids, rule, num_classes=3, allowed=allowed)
        rows = smooth_labels(np.eye(3)[ids], rule, num_classes=3, allowed=allowed)
        assert np.array_equal(rows, wanted)


def test_where_the_class_axis_goes():
    ids = np.array([[2, 0, 1, 1], [1, 1, 0, 2]])
    expected = smooth_labels(ids, 0.3, num_classes=3)
    for axis in (-1, 2):
        assert np.array_equal(smooth_labels(ids, 0.3, num_classes=3, axis=axis), expected)
    for axis in (1, -2):
        result = smooth_labels(ids, 0.3, num_classes=3, axis=axis)
        assert np.array_equal(result, np.moveaxis(expected, -1, 1))
    rows = np.moveaxis(np.eye(3)[ids], -1, 0)
    result = smooth_labels(rows, 0.3, num_classes=3, axis=0)
    assert np.array_equal(result, np.moveaxis(expected, -1, 0))
    mask = np.ones((3, 2, 4), bool)
    mask[0, ids != 0] = False
    result = smooth_labels(rows, 0.3, num_classes=3, axis=0, allowed=mask)
    assert not result[~mask].any()
    assert result.sum(0) == pytest.approx(1)
    prior = np.moveaxis(np.random.default_rng(0).dirichlet(np.ones(3), size=(2, 4)), -1, 0)
    result = smooth_labels(ids, Teacher(0.5), num_classes=3, axis=0, prior=prior)
    assert result == pytest.approx(0.5 * rows + 0.5 * prior)


def test_the_dtype_of_targets(backend):
    ids = backend.array(np.array([0, 2]))
    default = {"numpy": "float64", "torch": "float32", "strict": "float64"}.get(backend.library)
    if backend.library == "jax":
        default = backend.dtype
    assert backend.dtype_of(smooth_labels(ids, 0.1, num_classes=3)) == default
    real = backend.array(np.eye(3))
    assert backend.dtype_of(smooth_labels(real, 0.1, num_classes=3)) == backend.dtype
    assert backend.dtype_of(smooth_labels(real > 0, 0.1, num_classes=3)) == default
    per_class = Uniform(PerClass((0.1, 0.2, 0.3)))
    assert backend.dtype_of(smooth_labels(real, per_class, num_classes=3)) == backend.dtype
    result = smooth_labels(ids, 0.1, num_classes=3, dtype=backend.real)
    assert backend.dtype_of(result) == backend.dtype


@pytest.mark.parametrize(
    ("labels", "k"),
    [
        ([[0.25, 0.25, 0.25, 0.25]], 4),  # flat: nothing is known, nothing was smoothed
        ([[0.5, 0.5, 0.0, 0.0]], 4),
        ([[0.7, 0.1, 0.1, 0.1], [0.4, 0.2, 0.2, 0.2]], 4),  # least values differ
        ([[0.7, 0.1, 0.1, 0.1], [0.697, 0.101, 0.101, 0.101]], 4),  # by little, but not rounding
        ([[0.695, 0.1, 0.1025, 0.1025]], 4),  # nor do those of one row
        ([[0.6, 0.2, 0.1, 0.1], [0.1, 0.2, 0.6, 0.1]], 4),  # two, not three, at the least value?
        ([[0.9, 0.1]], 2),  # one row of two classes may be anything
        ([[0.9, 0.1], [0.2, 0.8]], 2),
        (np.zeros((0, 4)), 4),
    ],
    ids=range(9),
)
def test_labels_that_were_not_smoothed_pass(labels, k):
    if np.array_equal(labels, [[0.6, 0.2, 0.1, 0.1], [0.1, 0.2, 0.6, 0.1]]):
        with pytest.raises(InputError, match="not smoothed already"):
            smooth_labels(labels, 0.1, num_classes=k)  # mixup of two smoothed rows looks like this
        return
    smooth_labels(labels, 0.1, num_classes=k)


def test_smoothing_twice_on_purpose():
    once = smooth_labels([0, 1], 0.1, num_classes=4)
    for rule in (0.1, Prior(0.1, (1, 2, 3, 4))):
        with pytest.raises(InputError, match="smooth_again"):
            smooth_labels(once, rule, num_classes=4)
        smooth_labels(once, rule, num_classes=4, smooth_again=True)
    smooth_labels(once, 0.0, num_classes=4)
    smooth_labels(once, Teacher(0.5), num_classes=4, prior=once)


@pytest.mark.parametrize("library", ["numpy", "strict"])
def test_rows_that_do_not_count_are_no_evidence_of_smoothing(library):
    once = smooth_labels([0, 1], 0.1, num_classes=4)
    rows = np.stack([np.concatenate([once, [[1.0, 0, 0, 0]]])] * 2)  # (2, 3, 4)
    backend = Backend(library, "float64")

    def loss(*where, **options):
        arrays = (backend.array(np.zeros((2, 3, 4))), backend.array(rows))
        counted = backend.array(np.array([where, where]))
        return cross_entropy(*arrays, Uniform(0.1), where=counted, **options)

    with pytest.raises(InputError, match="smooth_again"):
        loss(True, True, False)
    loss(True, False, True)
    loss(False, False, False)
    loss(True, True, False, smooth_again=True)


def test_warnings_of_more_than_a_half():
    for alpha in (0.5, 0.0, 0.1):
        Uniform(alpha)
    with pytest.warns(softhot.SofthotWarning, match=r"alpha = 0\.51 .* did you mean 0\.49\?"):
        Uniform(0.51)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Ordinal(1.0)
        Focal(5.0)
    assert not caught
    assert Backend("torch", "float64") != NUMPY
    assert K == 5


def test_single_precision_stays_single():
    rows = np.array([[0.75, 0.25, 0.0], [0.0, 0.0, 1.0]], np.float32)
    target = make_target(np, rows, Prior(0.1, (1, 2, 3)), 3)
    assert target.dense().dtype == np.float32
    row = Row(np.zeros((2, 3), np.float32), target, None)
    partials = {"lse": 1.0, "true": np.array([-0.9, -0.9]), "prior": -0.1}
    assert row.gradient(partials).dtype == np.float32
