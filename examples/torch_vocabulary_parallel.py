"""A head whose classes are spread over processes, as in large language models: digits.

    torchrun --nproc-per-node 2 examples/torch_vocabulary_parallel.py

Every process holds the weights and the logits of its own classes only. One small collective makes
each of them the loss, and the gradient of its own logits, of the whole head.
"""

import numpy as np
import torch
import torch.distributed as dist
from sklearn.datasets import load_digits

from softhot.torch import vocab_parallel_cross_entropy

DIGITS, LABELS = load_digits(return_X_y=True)
X, y = torch.tensor(DIGITS / 16), torch.tensor(LABELS)
TRAIN, HELD_OUT = slice(0, 1200), slice(1200, None)


def train(label_smoothing, steps=60):
    """The loss of every step, and the accuracy on held-out digits: the same on every process."""
    counts = [len(part) for part in np.array_split(np.arange(10), dist.get_world_size())]
    head = torch.nn.Linear(64, counts[dist.get_rank()]).double()
    torch.nn.init.zeros_(head.weight), torch.nn.init.zeros_(head.bias)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = vocab_parallel_cross_entropy(
            head(X[TRAIN]), y[TRAIN], label_smoothing=label_smoothing, classes=counts
        )
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():  # which process has the largest logit of a row, and which class it is
        top, own = head(X[HELD_OUT]).max(1)
        first = sum(counts[: dist.get_rank()])
        pairs = [torch.empty(len(top), 2).double() for _ in counts]
        dist.all_gather(pairs, torch.stack([top, first + own.double()], dim=1))
        tops, classes = torch.stack(pairs).unbind(-1)
        predicted = classes.gather(0, tops.argmax(0, keepdim=True))[0]
    return losses, (predicted == y[HELD_OUT]).double().mean().item()


def main():
    dist.init_process_group("gloo")
    for label_smoothing in (0.0, 0.1):
        losses, accuracy = train(label_smoothing)
        if dist.get_rank() == 0:
            print(f"label smoothing {label_smoothing}: loss {losses[0]:.3f} to {losses[-1]:.3f}, "
                  f"held-out accuracy {accuracy:.3f}")  # fmt: skip
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
