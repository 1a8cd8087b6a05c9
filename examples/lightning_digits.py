"""Label smoothing with Lightning, and calibration beside the validation loss.

python examples/lightning_digits.py
"""

import lightning.pytorch as pl
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from softhot.lightning import CalibrationCallback
from softhot.torch import CrossEntropyLoss


class Digits(pl.LightningModule):
    def __init__(self, label_smoothing):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        self.criterion = CrossEntropyLoss(label_smoothing=label_smoothing)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.criterion(self.net(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        logits = self.net(x)
        return {"loss": self.criterion(logits, y), "logits": logits, "labels": y}

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 3e-3)


def main(epochs=10):
    report = {}
    X, y = (torch.tensor(part) for part in load_digits(return_X_y=True))
    X = (X / 16).float()
    train = DataLoader(TensorDataset(X[:1000], y[:1000]), batch_size=64, shuffle=True)
    valid = DataLoader(TensorDataset(X[1000:], y[1000:]), batch_size=256)
    for alpha in (0.0, 0.1):
        pl.seed_everything(0, verbose=False)
        trainer = pl.Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
            callbacks=[CalibrationCallback()],
        )  # fmt: skip
        trainer.fit(Digits(alpha), train, valid)
        metrics = {name: round(float(v), 4) for name, v in trainer.callback_metrics.items()}
        print(f"alpha {alpha}: {metrics}")
        report[alpha] = metrics
    return report


if __name__ == "__main__":
    main()
