"""Lightning: real runs, and metrics that are those of the whole epoch."""

import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from torch.utils.data import DataLoader, TensorDataset

import softhot.torch
from softhot import InputError
from softhot.metrics import METRICS, Predictions, score

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Lightning's own imports warn of
    import lightning.pytorch as pl
    from lightning.pytorch.callbacks import EarlyStopping

    from softhot.lightning import CalibrationCallback, gather

pytestmark = [
    # Lightning 2.6 asks torch 2.13 in the old way what a leaf is.
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.* is deprecated:FutureWarning"),
    # Lightning advises workers and a longer epoch; data this small need neither.
    pytest.mark.filterwarnings("ignore:The .* does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Digits(pl.LightningModule):
    def __init__(self, criterion):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(
            torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)
        )
        self.criterion = criterion
        self.curve = []

    def training_step(self, batch, batch_idx):
        loss = self.criterion(self.net(batch[0]), batch[1])
        self.curve.append(loss.item())
        return loss

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        logits = self.net(batch[0])
        loss = self.criterion(logits, batch[1])
        self.log("val_loss", loss, batch_size=len(logits))
        return {"loss": loss, "logits": logits}

    def test_step(self, batch, batch_idx):
        return {"logits": self.net(batch[0]), "labels": batch[1]}

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


def loader(start, stop, batch=64):
    X, y = (torch.tensor(part) for part in load_digits(return_X_y=True))
    data = TensorDataset((X[start:stop] / 16).float(), y[start:stop])
    return DataLoader(data, batch_size=batch)


def trainer(folder, *callbacks, epochs=3):
    return pl.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, logger=False, default_root_dir=folder,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=list(callbacks),
    )  # fmt: skip


def truth(module, start, stop):
    X, y = loader(start, stop).dataset.tensors
    with torch.no_grad():
        return Predictions.from_logits(module.net(X).numpy(), y.numpy())


def test_metrics_are_those_of_the_epoch_on_hard_labels(tmp_path):
    module = Digits(softhot.torch.CrossEntropyLoss(label_smoothing=0.2))
    run = trainer(tmp_path, CalibrationCallback(tuple(METRICS)))
    run.fit(module, loader(0, 500), loader(500, 650))
    logged = {k: float(v) for k, v in run.callback_metrics.items()}
    predictions = truth(module, 500, 650)
    for name, value in score(predictions).items():
        np.testing.assert_allclose(logged[f"val_{name}"], value, atol=1e-6, err_msg=name)
    labels = predictions.labels
    np.testing.assert_allclose(logged["val_nll"], log_loss(labels, predictions.probs), rtol=1e-5)
    # The criterion is a part of the module, so what validates is the plain cross entropy.
    np.testing.assert_allclose(logged["val_loss"], logged["val_nll"], rtol=1e-5)
    assert np.mean(module.curve[-5:]) < np.mean(module.curve[:5]) - 0.3
    tested = run.test(module, loader(650, 800), verbose=False)[0]
    np.testing.assert_allclose(tested["test_ece"], score(truth(module, 650, 800))["ece"], atol=1e-6)


def test_without_smoothing_the_curve_is_torch_s(tmp_path):
    ours, theirs = Digits(softhot.torch.CrossEntropyLoss()), Digits(torch.nn.CrossEntropyLoss())
    for module in (ours, theirs):
        trainer(tmp_path, CalibrationCallback()).fit(module, loader(0, 300), loader(300, 400))
    assert len(ours.curve) == 15
    np.testing.assert_allclose(ours.curve, theirs.curve, rtol=1e-4)


def test_early_stopping_can_monitor_them(tmp_path):
    stop = EarlyStopping(monitor="val_nll", patience=1, min_delta=10.0)
    run = trainer(tmp_path, CalibrationCallback(), stop, epochs=20)
    module = Digits(softhot.torch.CrossEntropyLoss(label_smoothing=0.1))
    run.fit(module, loader(0, 128), loader(300, 400))
    assert run.current_epoch < 5


def test_several_loaders_get_names_of_their_own(tmp_path):
    module = Digits(softhot.torch.CrossEntropyLoss(label_smoothing=0.1))
    run = trainer(tmp_path, CalibrationCallback(["nll"]), epochs=1)
    run.fit(module, loader(0, 64), [loader(300, 350), loader(350, 450)])
    for i, (start, stop) in enumerate([(300, 350), (350, 450)]):
        logged = float(run.callback_metrics[f"val_nll/dataloader_idx_{i}"])
        np.testing.assert_allclose(logged, score(truth(module, start, stop))["nll"], rtol=1e-5)


class Fake:
    """Just enough of a module to log to."""

    def __init__(self):
        self.logged = {}

    def log(self, name, value, **options):
        self.logged[name] = value


def test_images_padding_and_labels_in_the_batch():
    logits = torch.randn(2, 3, 4, 5)
    labels = torch.randint(3, (2, 4, 5))
    labels[0, 0] = -100
    callback, module = CalibrationCallback(["nll"]), Fake()
    callback.on_validation_epoch_start(None, module)
    callback.on_validation_batch_end(None, module, {"logits": logits}, {"labels": labels}, 0)
    callback.on_validation_epoch_end(None, module)
    expected = torch.nn.functional.cross_entropy(logits, labels)
    np.testing.assert_allclose(module.logged["val_nll"], float(expected), rtol=1e-5)


@pytest.mark.parametrize(
    ("outputs", "batch", "text"),
    [
        (None, None, "a dictionary with 'logits'; got None. Return {'loss'"),
        (torch.tensor(1.0), None, "a dictionary with 'logits'"),
        ({"logits": torch.zeros(3)}, None, "a dictionary with 'logits'"),
        ({"logits": torch.zeros(3, 2)}, torch.zeros(3), "with 'labels'"),
        (
            {"logits": torch.zeros(3, 2)},
            [0, torch.zeros(4)],
            r"class ids of shape \(3,\); got \(4,\)",
        ),
    ],
)
def test_bad_steps(outputs, batch, text):
    with pytest.raises(InputError, match=text):
        CalibrationCallback().on_validation_batch_end(None, None, outputs, batch, 0)


def test_bad_arguments():
    with pytest.raises(InputError, match="Did you mean 'nll'"):
        CalibrationCallback(["nlll"])
    for bad in ("nll", []):
        with pytest.raises(InputError, match=r"metrics must be a sequence of names.*accuracy"):
            CalibrationCallback(bad)
    with pytest.raises(InputError, match="ignore_index must be an integer"):
        CalibrationCallback(ignore_index=None)


# Lightning takes long to import, and has no part in this.
PROCESS = """
import sys, types, torch
stand_in = types.ModuleType("lightning.pytorch")
stand_in.Callback = stand_in.LightningModule = stand_in.Trainer = object
sys.modules |= {"lightning": stand_in, "lightning.pytorch": stand_in}
from softhot.lightning import gather
rank = int(sys.argv[1])
torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank,
                                     world_size=2)
assert gather({0: rank + 10}) == [{0: 10}, {0: 11}]
"""


def test_processes_see_each_other_s_rows(tmp_path):
    assert gather("alone") == ["alone"]
    command = [sys.executable, "-W", "ignore", "-c", PROCESS]
    running = [subprocess.Popen([*command, str(r), str(tmp_path / "meet")]) for r in (0, 1)]
    assert [process.wait(timeout=120) for process in running] == [0, 0]


def test_example(tmp_path, monkeypatch):
    path = Path(__file__).parent.parent / "examples" / "lightning_digits.py"
    monkeypatch.chdir(tmp_path)
    report = runpy.run_path(str(path))["main"](epochs=3)
    assert report[0.1]["val_gap"] < report[0.0]["val_gap"]
