"""Embedding and LSTM over the words of a text; the mean of its states goes to a linear layer."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from softhot.studies.models.network import Dropout
from softhot.studies.spec import TrialSpec

if TYPE_CHECKING:
    from softhot.datasets import Dataset, Split

WORD = re.compile(r"\w+(?:'\w+)?|[^\w\s]")
VOCABULARY = 10_000  # most frequent words of the training texts
LENGTH = 32  # words of a text that are read
PADDING, UNKNOWN = 0, 1


def inputs(dataset: Dataset, split: Split) -> Tensor:
    """Word numbers, (N, LENGTH) int64, 0 behind the end; words are those of the training texts."""
    words = [WORD.findall(text.lower())[:LENGTH] for text in dataset.features]
    counts = Counter(word for row in split.train for word in words[row])
    known = sorted(counts, key=lambda word: (-counts[word], word))[:VOCABULARY]
    numbers = {word: i for i, word in enumerate(known, 2)}
    ids = np.full((len(words), LENGTH), PADDING)
    for row, text in zip(ids, words, strict=True):
        row[: len(text)] = [numbers.get(word, UNKNOWN) for word in text]
        row[0] = row[0] or UNKNOWN  # even a text without words has one
    return torch.from_numpy(ids)


class Texts(nn.Module):
    """Logits of texts."""

    def __init__(
        self, words: int, widths: tuple[int, ...], classes: int, dropout: nn.Module
    ) -> None:
        super().__init__()
        embedding, state = widths
        self.embedding = nn.Embedding(words, embedding, padding_idx=PADDING)
        self.lstm = nn.LSTM(embedding, state, batch_first=True)
        self.dropout, self.linear = dropout, nn.Linear(state, classes)

    def forward(self, ids: Tensor) -> Tensor:
        there = ids != PADDING
        longest = int(there.sum(1).max())
        ids, there = ids[:, :longest], there[:, :longest, None]
        states, _ = self.lstm(self.embedding(ids))
        mean = (states * there).sum(1) / there.sum(1)
        return self.linear(self.dropout(mean))


def build(trial: TrialSpec, x: Tensor, classes: int, noise: torch.Generator) -> nn.Module:
    """The network with PyTorch's own initial weights."""
    dropout = Dropout(trial.arm.recipe.dropout, noise)
    return Texts(int(x.max()) + 1, tuple(trial.hidden or ()), classes, dropout)
