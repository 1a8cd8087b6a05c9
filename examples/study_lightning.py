"""A study of your own model: Lightning.

softhot study wine --model examples/study_lightning.py --seeds 5
"""

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, TensorDataset


class Network(pl.LightningModule):
    def __init__(self, trial):
        super().__init__()
        self.net = torch.nn.Linear(trial.train.features.shape[1], len(trial.classes))
        self.criterion, self.step_size = trial.loss("torch"), trial.learning_rate

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.criterion(self.net(x), y)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), self.step_size)


def train(trial):
    pl.seed_everything(trial.seed, verbose=False)
    scale = trial.train.features.std(0)
    x, y = torch.tensor(trial.train.features / scale), torch.tensor(trial.train.labels)
    rows = DataLoader(TensorDataset(x, y), trial.batch_size, shuffle=True)
    network = Network(trial)
    trainer = pl.Trainer(
        max_epochs=trial.epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(network, rows)
    with torch.inference_mode():
        return trial.predictions(network.net(torch.tensor(trial.held_out.features / scale)))
