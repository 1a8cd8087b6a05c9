"""The losses as modules: what a training script, skorch and fastai rely on; and the examples."""

import copy
import inspect
import pickle
import runpy
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import softhot
from shown import RESULTS, check_shown
from softhot import InputError, SofthotWarning
from softhot.kernels import Choice, choose
from softhot.torch import BCEWithLogitsLoss, CrossEntropyLoss, cross_entropy

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(autouse=True)
def _one_thread():
    """Small tensors: waiting for a second thread takes longer than the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(name="batch")
def _batch():
    random = torch.Generator().manual_seed(0)
    z = torch.randn(6, 5, generator=random, requires_grad=True)
    return z, torch.randint(5, (6,), generator=random)


def test_they_take_torch_s_places():
    assert issubclass(CrossEntropyLoss, nn.CrossEntropyLoss)
    assert issubclass(BCEWithLogitsLoss, nn.BCEWithLogitsLoss)
    pairs = (CrossEntropyLoss, nn.CrossEntropyLoss), (BCEWithLogitsLoss, nn.BCEWithLogitsLoss)
    for ours, theirs in pairs:
        expected = list(inspect.signature(theirs.__init__).parameters)
        parameters = list(inspect.signature(ours.__init__).parameters)
        assert parameters[: len(expected)] == expected
        assert not list(ours().parameters())


def test_positional_arguments_mean_what_they_mean_in_torch(batch):
    arguments = (torch.rand(5), None, 3, None, "sum", 0.0)
    ours, theirs = CrossEntropyLoss(*arguments), nn.CrossEntropyLoss(*arguments)
    assert torch.allclose(ours(*batch), theirs(*batch))
    rows = F.one_hot(batch[1], 5).float()
    arguments = (torch.rand(5), None, None, "sum", torch.rand(5))
    ours, theirs = BCEWithLogitsLoss(*arguments), nn.BCEWithLogitsLoss(*arguments)
    assert torch.allclose(ours(batch[0], rows), theirs(batch[0], rows))


def test_it_smooths_in_training_only(batch):
    z, y = batch
    rows = F.one_hot(y, 5).float()
    criterion = CrossEntropyLoss(label_smoothing=0.1)
    assert torch.allclose(criterion(z, y), F.cross_entropy(z, y, label_smoothing=0.1))
    assert torch.allclose(criterion.eval()(z, y), F.cross_entropy(z, y))
    always = CrossEntropyLoss(label_smoothing=0.1, smooth_in_eval=True).eval()
    assert torch.allclose(always(z, y), F.cross_entropy(z, y, label_smoothing=0.1))
    binary = BCEWithLogitsLoss(label_smoothing=0.1)
    expected = F.binary_cross_entropy_with_logits(z, 0.9 * rows + 0.05)
    assert torch.allclose(binary(z, rows), expected)
    assert torch.allclose(binary.eval()(z, rows), F.binary_cross_entropy_with_logits(z, rows))
    kept = BCEWithLogitsLoss(label_smoothing=0.1, smooth_in_eval=True).eval()
    assert torch.allclose(kept(z, rows), expected)


def test_a_validation_that_forgot_eval_is_told_so(batch):
    z, y = batch
    rows = F.one_hot(y, 5).float()
    for kind, target in ((CrossEntropyLoss, y), (BCEWithLogitsLoss, rows)):
        criterion = kind(label_smoothing=0.1)
        smoothed = criterion(z, target)  # training: without a word
        for off in (torch.no_grad, torch.inference_mode):
            with off():
                logits = z.detach().clone()
                with pytest.warns(SofthotWarning, match=r"criterion\.eval\(\)") as caught:
                    assert torch.equal(criterion(logits, target), smoothed)
                assert caught[0].filename == __file__
                criterion.eval()(logits, target)
                kind(label_smoothing=0.1, smooth_in_eval=True)(logits, target)
                kind()(logits, target)
            criterion.train()
        with torch.no_grad():
            criterion(z, target)  # the first of the two passes of a reentrant checkpoint


def test_in_eval_what_the_rule_takes_with_the_batch_is_not_missed(batch):
    z, y = batch
    teacher = CrossEntropyLoss(rule=softhot.Teacher(softhot.PerSample()))
    given = {"alpha": torch.full((6,), 0.5), "prior": torch.full((6, 5), 0.2)}
    assert torch.allclose(teacher(z, y, **given), F.cross_entropy(z, y, label_smoothing=0.5))
    assert torch.allclose(teacher.eval()(z, y, **given), F.cross_entropy(z, y))
    assert torch.allclose(teacher(z, y), F.cross_entropy(z, y))


def test_penalties_and_other_losses_end_with_training_too(batch):
    for rule in (softhot.Focal(2.0), softhot.Uniform(0.1) + softhot.ConfidencePenalty(0.1)):
        criterion = CrossEntropyLoss(rule=rule)
        assert not torch.allclose(criterion(*batch), F.cross_entropy(*batch))
        assert torch.allclose(criterion.eval()(*batch), F.cross_entropy(*batch))


def test_inside_a_model_it_follows_train_and_eval(batch):
    model = nn.ModuleDict({"criterion": CrossEntropyLoss(label_smoothing=0.1)})
    model.eval()
    assert torch.allclose(model["criterion"](*batch), F.cross_entropy(*batch))


def test_class_masks_of_the_module_and_of_the_batch(batch):
    z, y = batch
    own = torch.tensor([True, True, True, True, False])
    y = y % 2
    criterion = CrossEntropyLoss(label_smoothing=0.1, allowed=own)
    assert torch.allclose(criterion(z, y), F.cross_entropy(z[:, :4], y, label_smoothing=0.1))
    more = torch.tensor([True, True, True, False, True]).expand(6, 5)
    expected = F.cross_entropy(z[:, :3], y, label_smoothing=0.1)
    assert torch.allclose(criterion(z, y, allowed=more), expected)
    assert torch.allclose(criterion(z, y, allowed=more[0]), expected)
    pixels = z[:, :, None, None].expand(6, 5, 2, 3)
    labels = y[:, None, None].expand(6, 2, 3)
    mask = more[:, :, None, None].expand(6, 5, 2, 3)
    assert torch.allclose(criterion(pixels, labels, allowed=mask), expected)


def test_the_strength_can_be_changed(batch):
    z, y = batch
    criterion = CrossEntropyLoss(rule=softhot.Others(0.2))
    criterion.label_smoothing = 0.1
    assert criterion.rule == softhot.Others(0.1)
    assert torch.equal(criterion(z, y), cross_entropy(z, y, softhot.Others(0.1)))
    rule = softhot.Uniform(softhot.Schedule(((0, 0.0), (10, 0.2))))
    criterion.rule = rule.at(5)
    assert criterion.label_smoothing == 0.1
    with pytest.raises(InputError, match="Schedule"):
        CrossEntropyLoss(rule=rule)
    binary = BCEWithLogitsLoss(rule=softhot.OneSided(0.2))
    binary.label_smoothing = 0.1
    assert binary.rule == softhot.OneSided(0.1)
    for rule in (softhot.MaxSup(0.1), softhot.Focal(1.0)):
        with pytest.raises(InputError, match="label_smoothing"):
            CrossEntropyLoss(rule=rule).label_smoothing = 0.1


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_and_pickles(again, batch, tmp_path):
    z, y = batch
    own = torch.tensor([True, True, True, True, True])
    criterion = CrossEntropyLoss(
        torch.rand(5), ignore_index=2, rule=softhot.Prior(0.1, (1, 2, 3, 4, 5)), allowed=own
    )
    for other in (criterion, CrossEntropyLoss(), BCEWithLogitsLoss(pos_weight=torch.rand(5))):
        copied = again(other)
        assert repr(copied) == repr(other)
        assert copied.state_dict().keys() == other.state_dict().keys()
    assert torch.equal(again(criterion)(z, y), criterion(z, y))
    torch.save(criterion, tmp_path / "criterion.pt")
    loaded = torch.load(tmp_path / "criterion.pt", weights_only=False)
    assert torch.equal(loaded(z, y), criterion(z, y))


def test_state_moves_with_the_module():
    assert not CrossEntropyLoss().state_dict()
    criterion = CrossEntropyLoss(torch.rand(5), allowed=torch.ones(5, dtype=torch.bool))
    assert set(criterion.state_dict()) == {"weight", "allowed"}
    other = CrossEntropyLoss(torch.ones(5), allowed=torch.zeros(5, dtype=torch.bool))
    other.load_state_dict(criterion.state_dict())
    assert torch.equal(other.weight, criterion.weight)
    assert criterion.to("meta").weight.device.type == "meta"
    assert criterion.double().allowed.dtype == torch.bool


def test_repr_says_what_runs():
    assert (
        repr(CrossEntropyLoss(label_smoothing=0.1)) == "CrossEntropyLoss(rule=Uniform(alpha=0.1))"
    )
    shown = repr(
        CrossEntropyLoss(torch.ones(2), ignore_index=0, reduction="sum", weighting="class")
    )
    for part in ("weighting='class'", "ignore_index=0", "reduction='sum'", "alpha=0.0"):
        assert part in shown
    assert "OneSided" in repr(BCEWithLogitsLoss(rule=softhot.OneSided(0.1), axis=1))
    assert "axis=1" in repr(BCEWithLogitsLoss(rule=softhot.OneSided(0.1), axis=1))


def test_fastai_finds_probabilities_and_decisions(batch):
    z, _ = batch
    criterion = CrossEntropyLoss()
    assert torch.equal(criterion.activation(z), z.softmax(1))
    assert torch.equal(criterion.decodes(z), z.argmax(1))
    assert criterion.decodes(z.reshape(3, 5, 2)).shape == (3, 2)
    assert criterion.y_int  # MixUp and CutMix: class ids, not to be mixed themselves


def test_what_is_refused():
    for wrong in (
        {"size_average": True},
        {"reduce": False},
        {"reduction": "average"},
        {"label_smoothing": 1.5},
        {"label_smoothing": 0.1, "rule": softhot.Others(0.1)},
        {"rule": 0.1},
        {"rule": softhot.Others},
        {"rule": softhot.Bernoulli(0.1)},
        {"weight": [1.0, 2.0]},
        {"weighting": "class"},
        {"weighting": "classes"},
        {"allowed": [True]},
    ):
        with pytest.raises(InputError) as error:
            CrossEntropyLoss(**wrong)
        assert error.value.argument.split(".")[-1] in {*wrong, "alpha"}
    for wrong in (
        {"size_average": True},
        {"reduce": False},
        {"reduction": "average"},
        {"label_smoothing": -0.5},
        {"label_smoothing": 0.1, "rule": softhot.OneSided(0.1)},
        {"rule": softhot.Uniform(0.1)},
        {"pos_weight": [1.0]},
        {"weighting": "class"},
    ):
        with pytest.raises(InputError) as error:
            BCEWithLogitsLoss(**wrong)
        assert error.value.argument.split(".")[-1] in {*wrong, "alpha"}


def test_choose_says_which_kernel_and_why():
    plain = choose(softhot.Uniform(0.1))
    assert plain == Choice("chunked", plain.reason)
    assert "uniform prior" in plain.reason
    assert choose(softhot.Others(softhot.PerSample())).name == "chunked"
    assert choose(softhot.Uniform(0.1), compiled=True).name == "compiled"
    for rule, options, why in (
        (softhot.Focal(), {}, "statistics"),
        (softhot.MaxSup(), {}, "statistics"),
        (softhot.Ordinal(), {}, "prior of its own"),
        (softhot.Uniform(), {"soft": True}, "distributions"),
        (softhot.Uniform(), {"allowed": True}, "class mask"),
        (softhot.Uniform(), {"weighting": "class"}, "class weights"),
        (softhot.Uniform(), {"traced": True}, "operations"),
    ):
        assert choose(rule, **options).name == "core"
        assert why in choose(rule, **options).reason


def test_on_real_data_the_plain_losses_give_torch_s_curve():
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    X, y = torch.tensor(X / 16, dtype=torch.float64), torch.tensor(y)
    multi = F.one_hot(y, 10).double()
    pairs = (
        (CrossEntropyLoss(), nn.CrossEntropyLoss(), y),
        (BCEWithLogitsLoss(), nn.BCEWithLogitsLoss(), multi),
    )
    for ours, theirs, target in pairs:
        curves = []
        for criterion in (ours, theirs):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).double()
            optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
            losses = []
            for step in range(30):
                rows = slice(59 * step, 59 * step + 59)
                optimizer.zero_grad()
                loss = criterion(model(X[rows]), target[rows])
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            curves.append(losses)
        assert curves[0] == pytest.approx(curves[1], rel=1e-9)
        assert curves[0][-1] < 0.5 * curves[0][0]


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("torch*_digits.py")))
def test_examples_run(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [name])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "accuracy" in printed
    if (RESULTS / f"{name}.txt").exists():
        check_shown(name, printed, whole=True)
