"""Label smoothing in a plain PyTorch training loop: one line, and an honest validation loss.

python examples/torch_digits.py
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

import softhot
from softhot.torch import CrossEntropyLoss

DIGITS, LABELS = load_digits(return_X_y=True)
X, y = torch.tensor(DIGITS / 16, dtype=torch.float32), torch.tensor(LABELS)
TRAIN, HELD_OUT = slice(0, 1200), slice(1200, None)


def train(criterion, epochs=8):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        criterion.train()
        for rows in torch.randperm(1200).split(64):
            optimizer.zero_grad()
            criterion(model(X[TRAIN][rows]), y[TRAIN][rows]).backward()
            optimizer.step()
    criterion.eval()  # from here on the loss is that of the hard labels, whatever the rule
    with torch.no_grad():
        logits = model(X[HELD_OUT])
        accuracy = (logits.argmax(1) == y[HELD_OUT]).float().mean()
        confidence = logits.softmax(1).amax(1).mean()
        return criterion(logits, y[HELD_OUT]).item(), accuracy.item(), confidence.item()


def main():
    for criterion in (
        CrossEntropyLoss(),
        CrossEntropyLoss(label_smoothing=0.1),
        CrossEntropyLoss(rule=softhot.MaxSup(0.1)),
        CrossEntropyLoss(rule=softhot.ConfidencePenalty(0.1)),
    ):
        loss, accuracy, confidence = train(criterion)
        print(f"{criterion.rule!s:<45} held-out loss {loss:.3f}, accuracy {accuracy:.3f}, "
              f"confidence {confidence:.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
