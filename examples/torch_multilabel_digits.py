"""Multi-label smoothing: one image, several yes-or-no questions.

python examples/torch_multilabel_digits.py
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

import softhot
from softhot.torch import BCEWithLogitsLoss

QUESTIONS = {"even": [0, 2, 4, 6, 8], "prime": [2, 3, 5, 7], "round": [0, 6, 8, 9], "nine": [9]}


def main(epochs=6):
    digits, labels = load_digits(return_X_y=True)
    X = torch.tensor(digits / 16, dtype=torch.float32)
    answers = [torch.isin(torch.tensor(labels), torch.tensor(yes)) for yes in QUESTIONS.values()]
    y = torch.stack(answers, dim=1)
    rates = tuple(y[:1200].float().mean(0).tolist())
    for rule in (softhot.Bernoulli(0.0), softhot.Bernoulli(0.1), softhot.Prevalence(0.1, rates)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, len(QUESTIONS)))
        criterion = BCEWithLogitsLoss(rule=rule)
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        for _ in range(epochs):
            for rows in torch.randperm(1200).split(64):
                optimizer.zero_grad()
                criterion(model(X[rows]), y[rows]).backward()
                optimizer.step()
        with torch.no_grad():
            logits = model(X[1200:])
            loss = criterion.eval()(logits, y[1200:])
            accuracy = ((logits > 0) == y[1200:]).float().mean()
        print(
            f"{type(rule).__name__} {rule.alpha}: held-out loss {loss:.3f}, accuracy {accuracy:.3f}"
        )


if __name__ == "__main__":
    main()
