"""Label smoothing with the Trainer of Hugging Face: a tiny BERT reads scikit-learn's digits.

    python examples/huggingface_digits.py

Nothing is downloaded: the model is built from its configuration, and a digit is a text of 16
tokens, the ink of its 2 x 2 squares.
"""

import tempfile

import torch
from sklearn.datasets import load_digits
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from softhot.huggingface import HardMetrics, SmoothLoss


def fit(alpha, train, test, steps):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=17, hidden_size=64, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=16, num_labels=10, initializer_range=0.2,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, max_steps=steps, per_device_train_batch_size=16, gradient_accumulation_steps=2,
            learning_rate=3e-3, report_to=[], save_strategy="no", disable_tqdm=True, use_cpu=True,
            logging_strategy="no", dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = Trainer(
            BertForSequenceClassification(config), arguments,
            train_dataset=train, eval_dataset=test,
            compute_loss_func=SmoothLoss(alpha), compute_metrics=HardMetrics(),
        )  # fmt: skip
        trainer.train()
        return trainer.evaluate()


def main(steps=150):
    report = {}
    X, y = load_digits(return_X_y=True)
    texts = X.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16).astype(int)
    rows = [
        {"input_ids": torch.tensor(text), "labels": int(label)}
        for text, label in zip(texts, y, strict=True)
    ]
    for alpha in (0.0, 0.1):
        report[alpha] = scores = fit(alpha, rows[:1200], rows[1200:], steps)
        shown = {k: round(scores[f"eval_{k}"], 4) for k in ("nll", "accuracy", "ece", "gap")}
        print(f"alpha {alpha}: {shown}")
    return report


if __name__ == "__main__":
    main()
