"""A study of your own model: the Trainer of Hugging Face; a tiny BERT reads tables as texts.

    softhot study wine --model examples/study_huggingface.py --seeds 5

Each column is a token that says in which tenth of the training rows the number lies.
"""

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments


def train(trial):
    cuts = np.quantile(trial.train.features, np.linspace(0, 1, 11)[1:-1], axis=0).T

    def tokens(features):
        columns = [
            np.searchsorted(cut, column) for cut, column in zip(cuts, features.T, strict=True)
        ]
        return torch.tensor(np.stack(columns, 1))

    ids = tokens(trial.train.features)
    rows = [
        {"input_ids": row, "labels": int(label)}
        for row, label in zip(ids, trial.train.labels, strict=True)
    ]
    torch.manual_seed(trial.seed)
    config = BertConfig(
        vocab_size=10, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=ids.shape[1], num_labels=len(trial.classes),
    )  # fmt: skip
    arguments = TrainingArguments(
        str(trial.folder), num_train_epochs=trial.epochs, seed=trial.seed, use_cpu=True,
        per_device_train_batch_size=trial.batch_size, learning_rate=trial.learning_rate,
        report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True,
        dataloader_pin_memory=False,
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    loss = trial.loss("huggingface")
    Trainer(model, arguments, train_dataset=rows, compute_loss_func=loss).train()
    model.eval()
    with torch.inference_mode():
        return trial.predictions(model(tokens(trial.held_out.features)).logits)
