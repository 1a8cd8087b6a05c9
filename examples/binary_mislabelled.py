"""One wrong label among two classes: its loss, its gradient, and what it does to the others.

python examples/binary_mislabelled.py
"""

import torch
from small import run
from torch import nn

import softhot
from softhot.datasets import load, split
from softhot.torch import BCEWithLogitsLoss


def train(x, y, alpha, steps):
    torch.manual_seed(0)
    model = nn.Linear(x.shape[1], 1)
    criterion = BCEWithLogitsLoss(rule=softhot.Bernoulli(alpha))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        criterion(model(x).squeeze(1), y).backward()
        optimizer.step()
    return model(x).detach().squeeze(1)


def main(steps=3000):
    data = load("breast_cancer")
    rows = split(data, 200, 120, 249, seed=0).train
    x = torch.from_numpy(data.features[rows])
    x, y = (x - x.mean(0)) / x.std(0), torch.from_numpy(data.labels[rows]).float()
    wrong = int(train(x, y, 0.1, 200).abs().argmax())  # the clearest case of all ...
    y[wrong] = 1 - y[wrong]  # ... gets the wrong label

    report = {}
    for alpha in (0.0, 0.1):
        logits = train(x, y, alpha, steps)
        loss, gradient = softhot.binary_cross_entropy_and_gradient(
            logits, y, softhot.Bernoulli(alpha)
        )
        row = report[alpha] = {
            "logit": abs(logits[wrong].item()),
            "loss": loss[wrong].item(),
            "gradient": abs(gradient[wrong].item()),
            "largest": logits.abs().max().item(),
        }
        print(
            f"alpha {alpha}: the wrong row has loss {row['loss']:.2f}, pull {row['gradient']:.3f}; "
            f"largest logit of all {row['largest']:.1f}"
        )
    return report


if __name__ == "__main__":
    run(main)
