"""Hugging Face: real runs of Trainer, tiny, offline, from configurations."""

import os
import runpy
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
import torch
import transformers
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from transformers import Trainer, TrainingArguments

import softhot
from softhot import InputError
from softhot.huggingface import HardMetrics, SmoothLoss
from softhot.metrics import METRICS


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def rows(n, start=0):
    """Digits as texts of 16 tokens out of 17: the mean ink of each 2 x 2 square."""
    images, labels = load_digits(return_X_y=True)
    squares = images.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).astype(int).reshape(-1, 16)
    return squares[start : start + n], labels[start : start + n]


def classification(n, start=0):
    return [
        {"input_ids": torch.tensor(text), "labels": int(y)}
        for text, y in zip(*rows(n, start), strict=True)
    ]


def modelling(n, start=0):
    """Texts of unequal length: the end of every other one is left out of the loss."""
    items = []
    for i, text in enumerate(torch.tensor(rows(n, start)[0])):
        labels = text.clone()
        labels[16 - 3 * (i % 4) :] = -100
        items.append({"input_ids": text, "labels": labels})
    return items


SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def bert(num_labels=10):
    config = transformers.BertConfig(
        vocab_size=17, intermediate_size=16, max_position_embeddings=16, num_labels=num_labels,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.2, **SMALL,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.BertForSequenceClassification(config)


def gpt2():
    config = transformers.GPT2Config(
        vocab_size=17, n_positions=16, n_embd=16, n_layer=1, n_head=2, resid_pdrop=0.0,
        embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(config)


def llama():
    config = transformers.LlamaConfig(
        vocab_size=17, intermediate_size=16, max_position_embeddings=16, num_key_value_heads=2,
        bos_token_id=None, eos_token_id=None, **SMALL,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config)


def trainer(folder, model, data, loss=None, batch=16, steps=1, **options):
    wiring = {k: options.pop(k) for k in ("compute_metrics", "eval_dataset") if k in options}
    options = {"max_steps": 16, "learning_rate": 0.02, **options}
    arguments = TrainingArguments(
        str(folder), per_device_train_batch_size=batch, gradient_accumulation_steps=steps,
        logging_steps=1, report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True,
        max_grad_norm=0.0, dataloader_pin_memory=False, seed=0, **options,
    )  # fmt: skip
    return Trainer(model, arguments, train_dataset=data, compute_loss_func=loss, **wiring)


def losses(run):
    run.train()
    return [entry["loss"] for entry in run.state.log_history if "loss" in entry]


TASKS = {"bert": (bert, classification), "gpt2": (gpt2, modelling)}


@pytest.mark.parametrize("task", TASKS)
def test_without_smoothing_the_curve_is_that_of_the_model_s_own_loss(tmp_path, task):
    build, data = TASKS[task]
    # Their own is run on whole batches: under accumulation BERT's classifier is given
    # num_items_in_batch by transformers 5.23, ignores it, and trains on four times the gradient.
    theirs = losses(trainer(tmp_path, build(), data(64)))
    assert len(theirs) == 16
    assert np.mean(theirs[-4:]) < theirs[0] - 0.2
    for batch, steps in ((16, 1), (4, 4)):
        ours = losses(trainer(tmp_path, build(), data(64), SmoothLoss(0.0), batch, steps))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)


@pytest.mark.parametrize("task", TASKS)
def test_with_smoothing_the_curve_is_that_of_trainer_s_own_smoother(tmp_path, task):
    build, data = TASKS[task]
    ours = losses(trainer(tmp_path, build(), data(64), SmoothLoss(0.1)))
    theirs = losses(trainer(tmp_path, build(), data(64), label_smoothing_factor=0.1))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    assert not np.allclose(ours, losses(trainer(tmp_path, build(), data(64))), rtol=1e-3)


@pytest.mark.parametrize("task", TASKS)
def test_accumulating_four_micro_batches_is_one_batch(tmp_path, task):
    build, data = TASKS[task]
    weights = []
    for batch, steps in ((16, 1), (4, 4)):
        run = trainer(tmp_path, build(), data(16), SmoothLoss(0.1), batch, steps, max_steps=1,
                      optim="sgd", learning_rate=0.3)  # fmt: skip
        run.train()
        weights.append(torch.cat([p.detach().ravel() for p in run.model.parameters()]))
    start = torch.cat([p.detach().ravel() for p in build().parameters()])
    assert (weights[0] - start).abs().max() > 1e-2
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=1e-6)


def test_evaluation_is_on_hard_labels(tmp_path):
    test = classification(100, 64)
    run = trainer(
        tmp_path, bert(), classification(64), SmoothLoss(0.3), max_steps=30,
        compute_metrics=HardMetrics(), eval_dataset=test, per_device_eval_batch_size=32,
    )  # fmt: skip
    smoothed = losses(run)
    scores = run.evaluate()
    logits = run.predict(test).predictions
    probs = torch.tensor(logits, dtype=torch.float64).softmax(-1).numpy()
    truth = log_loss(rows(100, 64)[1], probs / probs.sum(1, keepdims=True))
    np.testing.assert_allclose(scores["eval_nll"], truth, rtol=1e-6)
    np.testing.assert_allclose(scores["eval_loss"], truth, rtol=1e-5)
    assert {f"eval_{name}" for name in METRICS} <= set(scores)
    assert np.mean(smoothed[-4:]) < smoothed[0] - 0.2


@pytest.mark.parametrize("build", [gpt2, llama], ids=["gpt2", "llama"])
def test_evaluation_of_a_language_model_is_on_hard_labels(tmp_path, build):
    run = trainer(
        tmp_path, build(), modelling(32), SmoothLoss(0.2), eval_dataset=modelling(24, 32),
        compute_metrics=HardMetrics(shift=True), per_device_eval_batch_size=24,
    )  # fmt: skip
    run.train()
    scores = run.evaluate()
    run.model.eval()
    items = modelling(24, 32)
    batch = {k: torch.stack([item[k] for item in items]) for k in ("input_ids", "labels")}
    with torch.no_grad():
        truth = float(run.model(**batch).loss)  # the model's own loss, which shifts
    np.testing.assert_allclose(scores["eval_nll"], truth, rtol=1e-5)
    # Of GPT-2 transformers 5.23 counts one label a row too many.
    counted = batch["labels"] != -100
    shares = {1.0, float(counted[:, 1:].sum() / counted.sum())} if build is gpt2 else {1.0}
    assert any(np.isclose(scores["eval_loss"], share * truth, rtol=1e-5) for share in shares)


def test_shift_follows_the_output():
    logits, labels = torch.randn(2, 5, 7), torch.randint(7, (2, 5))
    out = transformers.modeling_outputs
    shifted = SmoothLoss(0.1, shift=True)({"logits": logits}, labels)
    aligned = SmoothLoss(0.1, shift=False)({"logits": logits}, labels)
    auto = SmoothLoss(0.1)
    for kind in (out.CausalLMOutput, out.CausalLMOutputWithPast):
        torch.testing.assert_close(auto(kind(logits=logits), labels), shifted)
    for kind in (out.MaskedLMOutput, out.TokenClassifierOutput, out.Seq2SeqLMOutput):
        torch.testing.assert_close(auto(kind(logits=logits), labels), aligned)
    own = torch.nn.functional.cross_entropy
    by_torch = own(logits[:, :-1].reshape(-1, 7), labels[:, 1:].reshape(-1), label_smoothing=0.1)
    torch.testing.assert_close(shifted, by_torch)
    torch.testing.assert_close(SmoothLoss(0.1, shift=True)((logits,), labels), shifted)


def test_ignored_labels_are_as_deleted_and_none_left_is_zero():
    logits = torch.randn(4, 3, requires_grad=True)
    labels = torch.tensor([0, -100, 2, -100])
    loss = SmoothLoss(0.1)
    out = {"logits": logits}
    torch.testing.assert_close(loss(out, labels), loss({"logits": logits[::2]}, labels[::2]))
    count = torch.tensor(8)
    torch.testing.assert_close(loss(out, labels, num_items_in_batch=count), loss(out, labels) / 4)
    nothing = loss(out, torch.full((4,), -100), num_items_in_batch=0)
    nothing.backward()
    assert nothing == 0
    assert (logits.grad == 0).all()


def test_soft_labels_rules_and_penalties():
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    Y = torch.rand(4, 3, dtype=torch.float64).softmax(-1)
    rule = softhot.Others(0.1) + softhot.MaxSup(0.2)
    ours = SmoothLoss(rule)({"logits": logits}, Y)
    truth = softhot.cross_entropy(logits.detach().numpy(), Y.numpy(), rule, reduction="mean")
    np.testing.assert_allclose(float(ours.detach()), truth)
    with torch.no_grad():
        plain = SmoothLoss(rule)({"logits": logits}, Y)
    torch.testing.assert_close(plain, torch.nn.functional.cross_entropy(logits, Y).detach())


LOGITS = torch.zeros(2, 5, 7)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: SmoothLoss(1.5), r"Uniform.alpha must be a real number in \[0, 1\)"),
        (lambda: SmoothLoss("0.1"), "rule must be a rule"),
        (lambda: SmoothLoss(softhot.Teacher()), "needs nothing from the batch"),
        (lambda: SmoothLoss(softhot.Uniform(softhot.PerSample())), "needs nothing from the batch"),
        (lambda: SmoothLoss(0.1, shift=1), "shift must be True, False or 'auto'; got 1"),
        (lambda: HardMetrics(shift=None), "shift must be True, False or 'auto'"),
        (lambda: SmoothLoss(0.1, ignore_index=None), "ignore_index must be an integer"),
        (lambda: SmoothLoss()((LOGITS,), None), r"labels must be in the batch.*label_names"),
        (lambda: SmoothLoss()((LOGITS,), torch.zeros(2, 5).long()), "for an output tuple"),
        (lambda: SmoothLoss()((LOGITS,), torch.zeros(2, 4).long()), r"of shape \(2, 5\)"),
        (lambda: SmoothLoss()((LOGITS[None],), torch.zeros(1, 2, 5).long()), r"\(N, K\) or"),
        (
            lambda: SmoothLoss(0.1, shift=False)((LOGITS,), torch.full((2, 5), 9)),
            r"labels\[0\] must be a class id in 0 .. 6; got 9",
        ),
        (lambda: HardMetrics()((np.zeros((2, 5, 7)), np.zeros((2, 5), int))), "shift must be"),
        (lambda: HardMetrics()((np.zeros((2, 7)), np.zeros((2, 7)))), "class ids.*hard labels"),
    ],
)
def test_bad_input(call, text):
    with pytest.raises(InputError, match=text):
        call()


def test_example():
    path = Path(__file__).parent.parent / "examples" / "huggingface_digits.py"
    report = runpy.run_path(str(path))["main"](steps=3)
    assert {"eval_nll", "eval_gap"} <= set(report[0.1])
