"""A study of your own model: PyTorch, with a checkpoint that a crash leaves behind.

softhot study wine --model examples/study_torch.py --seeds 5
"""

import torch

from softhot.studies.train import one_thread


def train(trial):
    torch.manual_seed(trial.seed)
    scale = torch.tensor(trial.train.features).std(0)
    x, y = torch.tensor(trial.train.features) / scale, torch.tensor(trial.train.labels)
    network = torch.nn.Sequential(
        torch.nn.Linear(x.shape[1], 32), torch.nn.Tanh(), torch.nn.Linear(32, len(trial.classes))
    )
    decay = trial.arm.recipe.weight_decay
    optimizer = torch.optim.AdamW(network.parameters(), trial.learning_rate, weight_decay=decay)
    criterion, checkpoint, begin = trial.loss("torch"), trial.folder / "state.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        begin = state["epoch"]
    with one_thread():
        for epoch in range(begin, trial.epochs):
            order = torch.Generator().manual_seed(1000 * trial.seed + epoch)
            for rows in torch.randperm(len(x), generator=order).split(trial.batch_size):
                optimizer.zero_grad()
                criterion(network(x[rows]), y[rows]).backward()
                optimizer.step()
            if epoch % 50 == 49:
                state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save(state | {"epoch": epoch + 1}, checkpoint)
        with torch.inference_mode():
            return trial.predictions(network(torch.tensor(trial.held_out.features) / scale))
