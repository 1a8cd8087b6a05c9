"""Formulas that are each other in disguise: every one holds to 1e-12."""

from dataclasses import replace
from functools import partial

import mpmath
import numpy as np
import pytest

import laws
import softhot
from batches import Batch, K, N, run, smooth
from cases import CASES, ROWS, batch_with, make_batch
from softhot import (
    Bernoulli,
    ConfidencePenalty,
    Focal,
    Margin,
    MaxSup,
    NegativeUniform,
    Online,
    Ordinal,
    Others,
    PerClass,
    PerSample,
    Prior,
    Schedule,
    Similarity,
    Teacher,
    Uniform,
    convert_alpha,
    desmooth,
    smooth_labels,
)
from softhot.core.conventions import CONVENTIONS, alpha_range, meanings
from softhot.core.similarity import from_confusion, from_embeddings, from_hierarchy

BATCH = make_batch(CASES[0])
Z, Y = BATCH.logits, BATCH.labels
P = np.exp(Z - Z.max(1, keepdims=True))
P /= P.sum(1, keepdims=True)
TRUE = np.arange(N), Y
EYE = np.eye(K)
CE = -np.log(P[TRUE])
ALPHAS = (0.0, 1e-6, 0.1, 0.5, 0.999)


def uniform(alpha):
    """Without the warning of more than a half."""
    return Uniform(PerClass((alpha,) * K))


def same_rule(one, two, batch=BATCH, other=None):
    laws.same(run(one, batch), run(two, other or batch), 1e-12)


@pytest.mark.parametrize("a", ALPHAS)
def test_uniform_is_cross_entropy_and_a_pull_on_the_true_logit(a):
    loss, gradient = run(uniform(a), BATCH)
    laws.close(loss, CE + a * (Z[TRUE] - Z.mean(1)), 1e-12)
    laws.close(gradient, P - EYE[Y] + a * (EYE[Y] - 1 / K), 1e-12)


@pytest.mark.parametrize("a", ALPHAS)
def test_uniform_is_a_kl_to_uniform_and_the_confidence_penalty_the_other_way_round(a):
    from_uniform = -np.log(K) - np.log(P).mean(1)  # KL(u || p)
    laws.close(run(uniform(a), BATCH)[0], (1 - a) * CE + a * (from_uniform + np.log(K)), 1e-12)
    to_uniform = (P * np.log(P)).sum(1) + np.log(K)  # KL(p || u)
    b = a + 0.1
    laws.close(run(ConfidencePenalty(b), BATCH)[0], CE + b * (to_uniform - np.log(K)), 1e-12)


@pytest.mark.parametrize("a", [0.0, 1.0], ids=["to the penalty", "to smoothing"])
def test_the_jensen_family_runs_from_the_confidence_penalty_to_smoothing(a):
    """Generalised entropy regularisation (Meister et al. 2020), at both of its ends."""
    with mpmath.workdps(120):
        near = abs(mpmath.mpf(a) - mpmath.mpf(10) ** -40)
        u, rows = [mpmath.mpf(1) / K] * K, []
        for z in Z:
            exp = [mpmath.exp(mpmath.mpf(float(v))) for v in z]
            p = [v / mpmath.fsum(exp) for v in exp]
            mixed = [near * x + (1 - near) * v for x, v in zip(p, u, strict=True)]
            apart = near * negentropy(p) + (1 - near) * negentropy(u) - negentropy(mixed)
            rows.append(float(apart / (near * (1 - near))))
    divergence, b = np.array(rows), 0.3
    if a == 0:
        laws.close(run(ConfidencePenalty(b), BATCH)[0], CE + b * (divergence - np.log(K)), 1e-12)
    else:
        smoothed = (1 - b) * CE + b * (divergence + np.log(K))
        laws.close(run(Uniform(b), BATCH)[0], smoothed, 1e-12)


def negentropy(p):
    return mpmath.fsum(v * mpmath.log(v) for v in p)


def test_label_relaxation_is_cross_entropy_to_the_nearest_target_it_allows():
    """Lienen and Huellermeier 2021: whatever has ``q_y >= 1 - a`` is right."""
    a = 0.1
    batch = replace(BATCH, labels=np.where(np.arange(N) % 2, Z.argmax(1), Y))
    true = EYE[batch.labels] > 0
    p, wrong = P[true], (P * ~true).sum(1)
    inside = p >= 1 - a
    assert 0 < inside.sum() < N
    nearest = np.where(true, 1 - a, a * P / wrong[:, None])
    nearest = np.where(inside[:, None], P, nearest)
    relaxed = np.where(inside, 0, (1 - a) * np.log((1 - a) / p) + a * np.log(a / wrong))
    loss, gradient = run(Teacher(1.0), replace(batch, prior=nearest, by_row=True))
    laws.close(loss + (nearest * np.log(nearest)).sum(1), relaxed, 1e-12)
    laws.close(gradient, np.where(inside[:, None], 0, P - nearest), 1e-12)


@pytest.mark.parametrize("e", [0.0, 0.1, 0.3, 0.79])
def test_others_is_uniform_at_more(e):
    same_rule(Others(PerClass((e,) * K)), uniform(e * K / (K - 1)))
    if e <= 0.5:
        same_rule(Others(e), Uniform(e * K / (K - 1)))


@pytest.mark.parametrize("rho", [0.01, 0.2, 0.6])
def test_negative_uniform_is_backward_correction(rho):
    noise = (1 - rho) * EYE + rho / K
    corrected = -np.log(P) @ np.linalg.inv(noise).T
    laws.close(run(NegativeUniform.from_noise(rho), BATCH)[0], corrected[TRUE], 1e-12)
    # The same noise, told as a class drawn from the wrong ones only.
    wrong = rho * (K - 1) / K
    laws.close(run(NegativeUniform.from_noise(wrong, K), BATCH)[0], corrected[TRUE], 1e-12)


def test_negative_uniform_undoes_uniform():
    """Smoothing by a and by -a/(1 - a) is none, in expectation over the noise."""
    for a in (0.1, 0.5):
        labels = smooth_labels(Y, a, num_classes=K)
        sharp = NegativeUniform(-a / (1 - a))
        again = smooth_labels(labels, sharp, num_classes=K, smooth_again=True)
        laws.close(again, EYE[Y], 1e-12)
        # And what a model of sharpened labels says was sharpened: desmoothing smooths it.
        laws.close(desmooth(P, sharp), (1 - a) * P + a / K, 1e-12)


@pytest.mark.parametrize("e", [0.01, 0.1, 0.24])
def test_preference_losses_are_binary_smoothing(e):
    """cDPO is binary smoothing with twice as much, rDPO the negative kind."""
    d = np.linspace(-9, 9, 19)
    log_sigmoid = -np.log1p(np.exp(-d))
    log_other = -np.log1p(np.exp(d))
    ones = np.ones_like(d)
    conservative = -(1 - e) * log_sigmoid - e * log_other
    laws.close(softhot.binary_cross_entropy(d, ones, Bernoulli(2 * e)), conservative, 1e-12)
    pairs = np.stack([np.zeros_like(d), d], axis=1)
    first = np.ones(len(d), int)
    laws.close(softhot.cross_entropy(pairs, first, Uniform(2 * e)), conservative, 1e-12)
    robust = (-(1 - e) * log_sigmoid + e * log_other) / (1 - 2 * e)
    rule = NegativeUniform(-2 * e / (1 - 2 * e))
    laws.close(softhot.cross_entropy(pairs, first, rule), robust, 1e-12)
    laws.close(softhot.cross_entropy(pairs, first, NegativeUniform.from_noise(e, 2)), robust, 1e-12)


@pytest.mark.parametrize("a", [0.01, 0.1, 0.19])
def test_a_margin_of_zero_is_maxsup(a):
    """MbLS without its margin, weight for weight times K."""
    for name in ("", "allowed", "masked"):
        batch = batch_with(CASES[0], {name})
        classes = batch.support.sum(1)
        for k in set(classes):
            rows = batch.rows(np.flatnonzero(classes == k))
            same_rule(Margin(a, 0.0), MaxSup(a * int(k)), rows)


def test_maxsup_is_uniform_where_the_prediction_is_right():
    same_rule(MaxSup(0.1), Uniform(0.1), replace(BATCH, labels=Z.argmax(1)))


def test_teacher_free_distillation_is_nearly_uniform():
    """Tf-KD_reg: its virtual teacher is a softmax of *probabilities* at T = 20: flat to 5e-4."""
    k, a = 100, 0.1
    labels = np.arange(k)
    virtual = np.where(np.eye(k) > 0, 0.99, 0.01 / (k - 1)) / 20
    teacher = np.exp(virtual) / np.exp(virtual).sum(1, keepdims=True)
    target = smooth_labels(labels, Teacher(a), num_classes=k, prior=teacher)
    assert np.abs(target - smooth_labels(labels, a, num_classes=k)).max() < a * 6e-4


def test_degenerate_rules_are_plainer_ones():
    same = partial(same_rule)
    same(Focal(0.0), Uniform(0.0))
    same(Prior(0.1, (3,) * K), Uniform(0.1))
    same(Prior(0.1, (1, 2, 3, 4, 5), 1e12), Uniform(0.1))
    same(Similarity(0.1, np.full((K, K), 1 / K)), Uniform(0.1))
    same(Similarity(0.1, (1 - EYE) / (K - 1)), Others(0.1))
    same(Similarity(1.0, EYE), Uniform(0.0))
    same(Ordinal(scale=60.0), Uniform(0.0))
    same(Ordinal(0.1, scale=1e-14), Uniform(0.1))
    same(Online(0.1), Uniform(0.1), replace(BATCH, prior=np.full((K, K), 1 / K)), BATCH)
    same(Teacher(1.0), Uniform(0.0), replace(BATCH, prior=EYE[Y], by_row=True), BATCH)
    by_class = replace(BATCH, prior=ROWS)
    same(Teacher(0.5), Online(0.5), replace(by_class, prior=ROWS[Y], by_row=True), by_class)
    same(Online(0.5), Similarity(0.5, ROWS), by_class, BATCH)
    same(Uniform(PerClass((0.1,) * K)), Uniform(0.1))
    same(Uniform(PerSample()), Uniform(0.1), replace(BATCH, alpha=np.full(N, 0.1)), BATCH)
    same(Uniform(Schedule(((0, 0.0), (4, 0.4)))).at(1), Uniform(0.1))
    same(from_confusion(np.ones((K, K))), Others(0.1))
    same(from_embeddings(EYE), Others(0.1))
    same(from_hierarchy([(name,) for name in "abcde"], beta=60.0), Uniform(0.0))


def test_spatially_varying_smoothing_is_a_teacher_of_one_half():
    """SVLS: its kernel's centre weighs as much as all neighbours, who thus are the teacher."""
    k, size = 3, 6
    labels = np.pad(np.random.default_rng(3).integers(k, size=(size, size)), 1, "edge")
    kernel = np.exp(-0.5 * np.array([[2, 1, 2], [1, 0, 1], [2, 1, 2]]))
    kernel[1, 1] = 0
    around = np.zeros((size, size, k))
    for i, j in np.ndindex(3, 3):
        around += kernel[i, j] * np.eye(k)[labels[i : i + size, j : j + size]]
    middle = labels[1:-1, 1:-1]
    convolved = (kernel.sum() * np.eye(k)[middle] + around) / (2 * kernel.sum())
    prior = around / kernel.sum()
    laws.close(smooth_labels(middle, Teacher(0.5), num_classes=k, prior=prior), convolved, 1e-12)


def test_a_squeezed_prediction_is_right_where_the_posterior_is():
    """Squeeze: ``(1 - a) p + a u``, scored against smoothed labels, has no slope at p."""
    a, posterior = 0.2, np.random.default_rng(4).dirichlet(np.ones(K), size=N)
    target = smooth_labels(posterior, a, num_classes=K, smooth_again=True)
    squeezed = (1 - a) * posterior + a / K
    slope = -(1 - a) * posterior * (target / squeezed)
    slope = slope - posterior * slope.sum(1, keepdims=True)  # back through the softmax
    laws.close(slope, np.zeros((N, K)), 1e-12)


def test_uniform_for_two_classes_is_bernoulli_label_by_label():
    labels = np.array([[1, 0, 1], [0, 0, 1]])
    pairs = smooth_labels(labels, 0.1, num_classes=2, kind="ids")[..., 1]
    laws.close(smooth_labels(labels, 0.1, num_classes=3, kind="multi_hot"), pairs, 1e-15)


def test_per_sample_is_one_rule_a_row():
    shares = np.linspace(0, 0.9, N)
    loss, gradient = run(Uniform(PerSample()), replace(BATCH, alpha=shares))
    for n in range(N):
        one = BATCH.rows(np.array([n]))
        laws.same(run(uniform(shares[n]), one), (loss[[n]], gradient[[n]]), 1e-12)


def test_smoothing_twice_is_smoothing_once_more():
    once = smooth_labels(Y, 0.1, num_classes=K)
    twice = smooth_labels(once, 0.2, num_classes=K, smooth_again=True)
    laws.close(twice, smooth_labels(Y, 1 - 0.9 * 0.8, num_classes=K), 1e-12)


def test_mixing_targets_commutes_with_smoothing():
    for case in CASES:
        if case.penalty is None and case.loss is None:
            batch = make_batch(case)
            other = replace(batch, labels=(Y + 2) % K)
            mixture = replace(batch, labels=0.75 * EYE[Y] + 0.25 * EYE[other.labels])
            expected = 0.75 * smooth(case.rule, batch) + 0.25 * smooth(case.rule, other)
            laws.close(smooth(case.rule, mixture), expected, 1e-12)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_desmoothing_undoes_smoothing(case):
    if case.penalty is not None or case.loss is not None or case.name == "negative":
        return
    random = np.random.default_rng(1)
    posterior = replace(make_batch(case), labels=random.dirichlet(np.ones(K), size=N))
    per_sample = isinstance(case.rule.alpha, PerSample)
    smoothed = smooth(case.rule, posterior)
    given = {"alpha": posterior.alpha} if per_sample else {}
    if posterior.prior is not None:
        given["prior"] = posterior.prior
    for clip in (False, True):
        laws.close(desmooth(smoothed, case.rule, clip=clip, **given), posterior.labels, 1e-12)
    # The class axis may be anywhere.
    if posterior.by_row:
        given["prior"] = posterior.prior.T
    first = desmooth(smoothed.T, case.rule, axis=0, clip=False, **given)
    laws.close(first.T, posterior.labels, 1e-12)


def test_the_smoothed_loss_of_a_linear_head_is_the_hard_one_and_a_rank_one_term():
    random = np.random.default_rng(2)
    h, w, b = random.normal(size=(N, 7)), random.normal(size=(K, 7)), random.normal(size=K)
    hard = run(Uniform(0.0), replace(BATCH, logits=h @ w.T + b))[0]
    pull = (h * (w[Y] - w.mean(0))).sum(1) + b[Y] - b.mean()
    smoothed = run(Uniform(0.1), replace(BATCH, logits=h @ w.T + b))[0]
    laws.close(smoothed, hard + 0.1 * pull, 1e-12)


def test_class_weights_on_hard_labels_are_sample_weights():
    weighted = batch_with(CASES[0], {"weight"})
    by_class = batch_with(CASES[0], {"class weight"})
    for reduction in ("none", "sum", "mean"):
        one, two = (replace(batch, reduction=reduction) for batch in (weighted, by_class))
        laws.same(run(Uniform(0.0), one), run(Uniform(0.0), two), 1e-12)


def test_weights_of_one_are_none():
    for weighting in ("sample", "class"):
        for reduction in ("none", "sum", "mean"):
            plain = replace(BATCH, reduction=reduction)
            ones = replace(plain, weight=np.ones(K), weighting=weighting)
            same_rule(Uniform(0.1), Uniform(0.1), plain, ones)


def test_everything_allowed_is_no_mask():
    for case in CASES:
        batch = make_batch(case)
        free = replace(batch, allowed=np.ones((N, K), bool))
        laws.same(run(case.rule, free), run(case.rule, batch), 1e-12)


def test_a_class_that_is_not_allowed_is_not_there():
    """Taking the class out of the problem, in whatever way, is the same problem."""
    few = Batch(Z, np.where(Y == K - 1, 0, Y))
    mask = np.ones((N, K), bool)
    mask[:, -1] = False
    smaller = replace(few, logits=Z[:, :-1])
    masked = np.where(mask, Z, -np.inf)
    pairs = [(rule, rule) for rule in (Uniform(0.1), Others(0.1), MaxSup(0.1), Margin(0.1, 1.0))]
    pairs += [(ConfidencePenalty(0.1, 1.0), ConfidencePenalty(0.1, 1.0)), (Focal(), Focal())]
    pairs += [(Prior(0.1, (1, 2, 3, 4, 9)), Prior(0.1, (1, 2, 3, 4)))]
    for wide, narrow in pairs:
        loss, gradient = run(narrow, smaller)
        expected = loss, np.pad(gradient, ((0, 0), (0, 1)))
        laws.same(run(wide, replace(few, allowed=mask)), expected, 1e-12)
        laws.same(run(wide, replace(few, logits=masked)), expected, 1e-12)
        half = replace(few, logits=np.where(np.arange(N)[:, None] % 2, masked, Z), allowed=mask)
        laws.same(run(wide, half), expected, 1e-12)


CONVERTIBLE = [name for name, convention in CONVENTIONS.items() if not convention.why_not]


@pytest.mark.parametrize("frm", CONVERTIBLE)
@pytest.mark.parametrize("to", CONVERTIBLE)
def test_converted_arguments_give_the_same_targets(frm, to):
    source, target = CONVENTIONS[frm], CONVENTIONS[to]
    for k in (2,) if source.binary or target.binary else (2, 3, 10, 1000):
        for e in (1e-6, 0.1, 0.3, 0.49):
            other = convert_alpha(e, frm, to, k)
            assert source.on(e, k) == pytest.approx(target.on(other, k), abs=1e-14)
            assert source.off(e, k) == pytest.approx(target.off(other, k), abs=1e-14)
            assert convert_alpha(other, to, frm, k) == pytest.approx(e, abs=1e-14)
            assert other in alpha_range(target, k)


@pytest.mark.parametrize(
    ("name", "k", "on", "off"),
    [  # e = 0.1, worked out by hand
        ("uniform", 2, 0.95, 0.05),
        ("uniform", 10, 0.91, 0.01),
        ("others", 2, 0.9, 0.1),
        ("others", 10, 0.9, 1 / 90),
        ("classy_vision", 2, 1.05 / 1.1, 0.05 / 1.1),
        ("classy_vision", 10, 1.01 / 1.1, 0.01 / 1.1),
        ("kept", 10, 0.19, 0.09),
        ("binary_half", 2, 0.95, 0.05),
        ("binary_full", 2, 0.9, 0.1),
        ("skip_pad", 10, 0.9, 0.0125),
        ("sigmoid_over_classes", 10, 0.91, 0.01),
        ("one_sided", 10, 0.9, 0.0),
    ],
)
def test_conventions_are_those_worked_out_by_hand(name, k, on, off):
    convention = CONVENTIONS[name]
    assert convention.on(0.1, k) == pytest.approx(on, abs=1e-15)
    assert convention.off(0.1, k) == pytest.approx(off, abs=1e-15)
    assert convert_alpha(0.1, name, name, k) == 0.1
    if not convention.why_not:
        alpha = PerClass((convert_alpha(0.1, name, "uniform", k),) * k)
        target = smooth_labels([0], Uniform(alpha), num_classes=k)
        assert target[0, :2] == pytest.approx([on, off])


def test_meanings_list_every_convention_that_takes_the_argument():
    assert [row["convention"] for row in meanings(0.1, 10)] == list(CONVENTIONS)
    for k in (2, 3):  # a padding class leaves two others
        assert ("skip_pad" in [row["convention"] for row in meanings(0.1, k)]) == (k > 2)
    taken = {row["convention"] for row in meanings(0.95, 10)}
    assert taken == set(CONVENTIONS) - {"others", "binary_full"}
    for row in meanings(0.1, 10):
        convention = CONVENTIONS[row["convention"]]
        k = 2 if convention.binary else 10
        assert row == {
            "convention": row["convention"],
            "formula": convention.formula,
            "on": convention.on(0.1, k),
            "off": convention.off(0.1, k),
            "uniform": convention.to_uniform(0.1, k) if convention.to_uniform else None,
            "used_by": convention.used_by,
        }
