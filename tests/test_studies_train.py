import dataclasses

import numpy as np
import pytest
import torch

from softhot.datasets import load, split
from softhot.studies import StudySpec
from softhot.studies.train import (
    Diverged,
    batches,
    initial_network,
    one_thread,
    standardized,
    train,
)
from studies_cases import TINY

WINE = load("wine")
PARTS = split(WINE, 60, 40, 78, 0)
NONE, SOFT, SOFTER, NEXT_SEED = TINY.trials()[:4]


def weights(trial):
    network = initial_network(trial, 13, 3)
    return np.concatenate([p.detach().numpy().ravel() for p in network.parameters()])


def test_arms_of_a_seed_start_from_the_same_weights():
    assert (weights(NONE) == weights(SOFT)).all()
    assert (weights(NONE) == weights(SOFTER)).all()
    assert NEXT_SEED.seed == 1
    assert not (weights(NONE) == weights(NEXT_SEED)).any()


def test_arms_of_a_seed_see_the_same_batches():
    def steps(trial):
        return [rows.tolist() for rows in batches(trial, 60)]

    assert steps(NONE) == steps(SOFT) == steps(SOFTER)
    assert steps(NONE) != steps(NEXT_SEED)


def test_initial_weights_neither_use_nor_move_the_global_generator():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    initial_network(NONE, 13, 3)
    assert (torch.rand(3) == expected).all()
    assert (weights(NONE) == weights(NONE)).all()


@pytest.mark.parametrize("batch_size", [1, 7, 60, 64])
def test_every_pass_takes_each_row_once(batch_size):
    trial = dataclasses.replace(NONE, batch_size=batch_size, epochs=2)
    found = list(batches(trial, 60))
    assert max(map(len, found)) == min(batch_size, 60)
    first, second = np.concatenate(found).reshape(2, 60)
    assert sorted(first) == sorted(second) == list(range(60))
    assert (first != second).any()


def test_the_network_is_what_the_settings_say():
    network = initial_network(StudySpec().trials()[0], 64, 10)
    shapes = [tuple(p.shape) for p in network.parameters() if p.ndim == 2]
    assert shapes == [(128, 64), (64, 128), (10, 64)]
    assert [type(layer).__name__ for layer in network] == ["Linear", "ReLU"] * 2 + ["Linear"]
    linear = dataclasses.replace(NONE, hidden=())
    assert len(initial_network(linear, 13, 3)) == 1


def test_standardized_looks_at_training_rows_only():
    features = np.array([[1, 7], [3, 7], [1000, 9]], np.float32)
    expected = [[-1, 0], [1, 0], [998, 2]]
    np.testing.assert_array_equal(standardized(features, np.array([0, 1])), expected)


def plain_training(trial, label_smoothing):
    """The same training, written with torch's own loss."""
    network = initial_network(trial, 13, 3)
    x = torch.from_numpy(standardized(WINE.features, PARTS.train))
    y = torch.from_numpy(WINE.labels)
    adam = torch.optim.Adam(network.parameters(), lr=trial.learning_rate)
    for rows in batches(trial, 60):
        chosen = PARTS.train[rows]
        adam.zero_grad()
        torch.nn.functional.cross_entropy(
            network(x[chosen]), y[chosen], label_smoothing=label_smoothing
        ).backward()
        adam.step()
    return network(x[PARTS.test]).detach().numpy()


@pytest.mark.parametrize(("trial", "alpha"), [(NONE, 0.0), (SOFTER, 0.3)])
def test_training_is_adam_on_the_smoothed_cross_entropy(trial, alpha):
    result = train(trial, WINE, PARTS)
    np.testing.assert_allclose(result.test_logits, plain_training(trial, alpha), atol=1e-4)


def test_training_again_gives_the_same_bytes():
    one, two = (train(SOFT, WINE, PARTS) for _ in range(2))
    assert one.test_logits.tobytes() == two.test_logits.tobytes()
    assert one.validation_logits.tobytes() == two.validation_logits.tobytes()
    assert one.test_logits.dtype == np.float32
    assert (one.test_labels == WINE.labels[PARTS.test]).all()
    assert one.split == PARTS.digest
    assert one.seconds > 0
    assert {"python", "torch", "numpy", "scikit-learn", "softhot"} == set(one.versions)


def test_held_out_rows_do_not_touch_training():
    """Other features there, but not in one test row, which must get the same logits."""
    features = WINE.features.copy()
    features[np.r_[PARTS.validation, PARTS.test[1:]]] *= 3
    changed = dataclasses.replace(WINE, features=features)
    before, after = (train(SOFT, data, PARTS).test_logits for data in (WINE, changed))
    np.testing.assert_allclose(before[0], after[0], rtol=1e-5)
    assert not np.allclose(before[1], after[1])


def test_divergence_is_an_error_not_a_result():
    features = WINE.features * np.float32(1)
    features[PARTS.test[0]] = 3e38
    wild = dataclasses.replace(WINE, features=features)
    with pytest.raises(Diverged, match="smaller learning_rate"), np.errstate(over="ignore"):
        train(NONE, wild, PARTS)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_training_takes_one_thread_and_gives_the_others_back(monkeypatch):
    inside = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam,
        "step",
        lambda *arguments: (inside.append(torch.get_num_threads()), step(*arguments)),
    )
    train(NONE, WINE, PARTS)
    assert set(inside) == {1}
    assert torch.get_num_threads() == 2
    with pytest.raises(ZeroDivisionError), one_thread():
        _ = 1 / 0
    assert torch.get_num_threads() == 2
