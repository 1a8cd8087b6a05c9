"""The GPU benchmark, as far as it goes without a GPU; tests/test_kernels_triton.py runs the whole.

Rivals stand in for themselves: modules of the names and signatures of liger-kernel 0.8.5,
flash-attn 2.8 and cut-cross-entropy 25.1.1, made of plain PyTorch. Liger's, like the real one,
writes its gradient over the logits.
"""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from benchmarks import gpu, rivals

CUDA = SimpleNamespace(type="cuda")


class Overwriting(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, target, alpha):
        with torch.enable_grad():
            leaf = logits.detach().clone().requires_grad_()
            loss = F.cross_entropy(leaf, target, label_smoothing=alpha)
        if ctx.needs_input_grad[0]:
            logits.data.copy_(torch.autograd.grad(loss, leaf)[0])
            ctx.save_for_backward(logits.detach())
        return loss.detach()

    @staticmethod
    def backward(ctx, upstream):
        return ctx.saved_tensors[0] * upstream, None, None


class Liger:
    def __init__(self, label_smoothing=0.0):
        self.alpha = label_smoothing

    def __call__(self, _input, target):
        return Overwriting.apply(_input, target, self.alpha)


class LigerLayer(Liger):
    def __call__(self, lin_weight, _input, target, bias=None):
        return F.cross_entropy(
            F.linear(_input, lin_weight, bias), target, label_smoothing=self.alpha
        )


def flash(logits, labels, precomputed_lse=None, label_smoothing=0.0):
    losses = F.cross_entropy(logits, labels, label_smoothing=label_smoothing, reduction="none")
    return losses, torch.zeros_like(losses)


def cut(e, c, targets):
    return F.cross_entropy(F.linear(e, c), targets)


@pytest.fixture(name="installed")
def _installed(monkeypatch):
    for name, contents in {
        "liger_kernel.transformers.cross_entropy": {"LigerCrossEntropyLoss": Liger},
        "liger_kernel.transformers.fused_linear_cross_entropy": {
            "LigerFusedLinearCrossEntropyLoss": LigerLayer
        },
        "flash_attn.ops.triton.cross_entropy": {"cross_entropy_loss": flash},
        "cut_cross_entropy": {"linear_cross_entropy": cut},
    }.items():
        parts = name.split(".")
        for i in range(len(parts)):
            whole = ".".join(parts[: i + 1])
            if whole not in sys.modules:
                monkeypatch.setitem(sys.modules, whole, ModuleType(whole))
        vars(sys.modules[name]).update(contents)
    monkeypatch.setattr(torch, "compile", lambda function: function)  # minutes of C++ else


def test_rivals_get_what_they_ask_for(installed):
    z = torch.randn(5, 7, dtype=torch.float64)
    h, w = torch.randn(5, 3, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)
    y, seen = torch.tensor([0, 6, 2, 2, 1]), set()
    for losses, inputs in (
        (rivals.logits_in(CUDA), (z,)),
        (rivals.hidden_in(CUDA, 0.1, 0.0), (h, w)),
    ):
        assert "torch.compile" in losses
        for name, loss in losses.items():
            if name == "softhot, in place":
                continue  # Triton's
            seen.add(name)
            leaves = [x.clone().requires_grad_() for x in inputs]
            alpha = 0.0 if "hard" in name else 0.1
            logits = F.linear(*leaves) if len(leaves) > 1 else leaves[0]
            expected = F.cross_entropy(logits, y, label_smoothing=alpha)
            truth = torch.autograd.grad(expected, leaves)
            value = loss(*leaves, y)
            with torch.no_grad():
                assert torch.allclose(loss(*leaves, y), expected), name
            assert torch.allclose(value, expected), name
            for ours, theirs in zip(torch.autograd.grad(value, leaves), truth, strict=True):
                assert torch.allclose(ours, theirs), name
            assert all(map(torch.equal, leaves, inputs)), f"{name} wrote over its inputs"
            loss(*leaves, y).backward()
            assert 0 <= gpu._error(loss, tuple(leaves), y, "hard" in name) < 1e-12, name
    assert {*rivals._KERNELS, *rivals._LAYERS} <= seen
    assert rivals.missing(CUDA) == {}


def test_what_is_left_out_is_said(monkeypatch):
    for module in ("liger_kernel", "flash_attn", "cut_cross_entropy"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(torch, "compile", lambda function: function)
    everyone = {*rivals._KERNELS, *rivals._LAYERS}
    assert rivals.missing(CUDA) == dict.fromkeys(everyone, "not installed")
    here = rivals.missing(torch.device("cpu"))
    assert here == dict.fromkeys({*everyone, "torch.compile"}, "there is no GPU")
    assert {"softhot", "torch", "torch.compile"} <= rivals.logits_in(CUDA).keys()


def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stopped:
        next(gpu.rows(SimpleNamespace(tiny=False)))
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "--tiny shows that it works" in said


def test_events_time_and_the_peak_counts(monkeypatch):
    done = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = len(done)

        def synchronize(self):
            pass

        def elapsed_time(self, end):
            return float(end.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    assert gpu._clock(lambda: done.append("a step"), CUDA) == 1
    for name, value in {
        "synchronize": None,
        "reset_peak_memory_stats": None,
        "memory_allocated": 5_000_000,
        "max_memory_allocated": 7_000_000,
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    assert gpu._extra_memory(lambda: done.append("a step"), CUDA) == 2
    assert len(done) == 3


def test_bars_are_those_that_were_asked_for():
    ms = {"softhot": 1.02, "softhot, hard": 1.0, "torch": 5.0, "Liger": 3.0}
    shares = dict.fromkeys(ms, 0.91)
    record = {"part": "logits", "shape": [4, 32768], "milliseconds": ms, "share_of_limit": shares}
    asked = gpu.bars(record)
    assert [bar for _, _, bar in asked.values()] == [0.03, 0.9, 2.0]
    assert all(gpu.HOLDS[sign](value, bar) for value, sign, bar in asked.values())
    assert "share of copy bandwidth" not in gpu.bars(record | {"shape": [4, 1000]})

    ms = {"softhot": 17.0, "softhot, hard": 16.9, "softhot, filtered": 16.5}
    record = {
        "part": "layer",
        "shape": list(gpu.LAYERS[0]),
        "milliseconds": ms,
        "forward_milliseconds": ms,
        "share_of_limit": dict.fromkeys(ms, 0.9),
        "extra_megabytes": dict.fromkeys(ms, 40.0),
        "error": dict.fromkeys(ms, 1e-3),
        "gradient_megabytes": 1000.0,
    }
    asked = gpu.bars(record)
    held = [gpu.HOLDS[sign](value, bar) for value, sign, bar in asked.values()]
    assert held == [True, True, False, True]
    text = gpu.table([record | {"bars": asked}])
    assert "milliseconds, filtered: 16.5, asked < 16.3: missed" in text
    assert "memory beyond the two gradients: 0.04, asked < 0.05: holds" in text
    assert len(gpu.bars(record | {"shape": [1, 2, 3]})) == 2
