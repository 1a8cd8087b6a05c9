"""More than one process: classes spread over them, DistributedDataParallel, DTensor.

Starting processes is slow: a test starts its own once, and they go through all of the cases.
"""

import datetime
import itertools
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import nn

import softhot
from backends import Backend
from batches import K, N, run
from cases import CASES, batch_with
from softhot import InputError
from softhot.torch import CrossEntropyLoss, cross_entropy, vocab_parallel_cross_entropy

EXAMPLE = Path(__file__).parent.parent / "examples" / "torch_vocabulary_parallel.py"
# Ways to call it, each with every rule of the case table.
CALLS = (
    set(),
    {"masked", "where"},
    {"ignored", "weight", "middle", "mean"},
    {"masked", "weight", "where", "sum"},
)
DOUBLE = Backend("torch", "float64")


def join(rank, size, store, *works):
    """Go through the works as one of so many processes; what one of them raises fails the test."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=size,
        timeout=datetime.timedelta(minutes=5),
    )
    try:
        for work in works:
            work(rank, size)
    finally:
        dist.destroy_process_group()


def test_one_process(tmp_path):
    threads = torch.get_num_threads()
    join(0, 1, tmp_path / "store", shards_are_dense)
    torch.set_num_threads(threads)


def test_two_processes(tmp_path):
    works = (
        shards_are_dense,
        the_example_trains_as_a_whole_head_does,
        what_shards_cannot_do_is_said,
        data_parallel_is_whole,
        dtensors_are_whole,
        dtensors_that_torch_takes_are_taken,
    )
    mp.spawn(join, (2, str(tmp_path / "store"), *works), nprocs=2)


def test_four_processes(tmp_path):
    mp.spawn(join, (4, str(tmp_path / "store"), shards_are_dense), nprocs=4)


# ------------------------------------------------------------------------ vocabulary parallel


def shards(size):
    """How many classes each process holds: even, uneven, and with nothing for some."""
    even = [len(part) for part in np.array_split(np.arange(K), size)]
    uneven = [1] * (size - 1) + [K - size + 1]
    return [even, uneven, [0] * (size - 1) + [K]]


def shards_are_dense(rank, size):
    """Every rule of the table, against NumPy; what is no sum over classes is refused."""
    turns = enumerate(itertools.product(CASES, CALLS))
    for case, names in (turn for i, turn in turns if i % size == 0):  # more processes are slower
        batch = batch_with(case, names)
        loss, slope = run(case.rule, batch)
        arrays, _ = batch.arguments(DOUBLE)
        logits, labels = arrays.pop("logits"), arrays.pop("labels")
        arrays |= {"ignore_index": batch.ignore_index, "reduction": batch.reduction}
        upstream = torch.tensor(2.0) if loss.ndim == 0 else torch.arange(labels.numel()) / 4
        expected = upstream[:, None].numpy() * slope if loss.ndim else 2 * slope
        for classes in shards(size):
            mine = slice(sum(classes[:rank]), sum(classes[: rank + 1]))
            own = logits[:, mine].clone().requires_grad_()
            given = {**arrays, "classes": classes if names else None}
            what = f"{case.name} {names} {classes}"
            if any(isinstance(part, softhot.Margin) for part in case.rule.penalties):
                with pytest.raises(InputError, match="maxima and sums over classes"):
                    vocab_parallel_cross_entropy(own, labels, case.rule, **given)
                continue
            value = vocab_parallel_cross_entropy(own, labels, case.rule, **given)
            (gradient,) = torch.autograd.grad(value, own, upstream.reshape(value.shape).double())
            np.testing.assert_allclose(
                batch.back(value.detach().numpy()), loss, rtol=1e-12, atol=1e-12, err_msg=what
            )
            if batch.middle:
                gradient = gradient.movedim(1, -1).reshape(N, -1)
            np.testing.assert_allclose(
                gradient.numpy(), expected[:, mine], rtol=1e-12, atol=1e-12, err_msg=what
            )
    for dtype in (torch.float32, torch.float16):
        logits = torch.tensor(batch_with(CASES[0], []).logits).to(dtype).requires_grad_()
        labels = torch.arange(N) % K
        for rule in (softhot.Uniform(0.1), softhot.ConfidencePenalty(0.1)):
            dense = cross_entropy(logits, labels, rule)
            (slopes,) = torch.autograd.grad(dense, logits)
            for classes in shards(size):
                mine = slice(sum(classes[:rank]), sum(classes[: rank + 1]))
                own = logits[:, mine].detach().requires_grad_()
                value = vocab_parallel_cross_entropy(own, labels, rule)
                (slope,) = torch.autograd.grad(value, own)
                assert (value.dtype, slope.dtype) == (torch.float32, dtype)
                assert torch.allclose(value, dense, rtol=1e-5)
                eps = torch.finfo(dtype).eps
                assert torch.allclose(slope, slopes[:, mine], rtol=max(1e-5, eps), atol=eps)


def the_example_trains_as_a_whole_head_does(rank, size):
    """Digits, with and without smoothing, beside torch's own loss on all ten classes."""
    example = runpy.run_path(str(EXAMPLE))
    for alpha in (0.0, 0.1):
        losses, accuracy = example["train"](alpha, steps=20)
        head = nn.Linear(64, 10).double()
        nn.init.zeros_(head.weight), nn.init.zeros_(head.bias)
        optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
        expected = []
        for _ in range(20):
            optimizer.zero_grad()
            rows = slice(0, 1200)
            logits = head(example["X"][rows])
            loss = F.cross_entropy(logits, example["y"][rows], label_smoothing=alpha)
            loss.backward()
            optimizer.step()
            expected.append(loss.item())
        assert losses == pytest.approx(expected, rel=1e-9)
        predicted = head(example["X"][1200:]).argmax(1)
        assert accuracy == (predicted == example["y"][1200:]).double().mean().item() > 0.8


def what_shards_cannot_do_is_said(rank, size):
    z, y = torch.randn(4, 3, requires_grad=True), torch.tensor([0, 5, 2, 1])

    def message(*arguments, **options):
        with pytest.raises(InputError) as error:
            vocab_parallel_cross_entropy(*arguments, **options)
        return str(error.value)

    assert "target[1]" in message(z, torch.tensor([0, 6, 2, 1]))
    assert "Margin" in message(z, y, softhot.Margin(0.1))
    assert "classes" in message(z, y, classes=[6])
    assert "class ids" in message(z, torch.rand(4, 3))
    assert "weight" in message(z, y, weight=torch.ones(3))
    assert "(N, C_r)" in message(z[0], y[0])
    assert "label_smoothing" in message(z, y, softhot.Others(0.1), label_smoothing=0.1)
    assert "(4,)" in message(z, y[:3])
    loss = vocab_parallel_cross_entropy(z, y, label_smoothing=0.1)
    with pytest.raises(InputError, match="differentiated once"):
        torch.autograd.grad(loss, z, create_graph=True)
    everywhere = [torch.empty(()) for _ in range(size)]
    dist.all_gather(everywhere, loss.detach())
    assert everywhere[0] == everywhere[1]  # to the last bit


# ------------------------------------------------------------------------------------- DDP


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5)).double()


def rows():
    random = torch.Generator().manual_seed(0)
    x = torch.randn(8, 6, generator=random, dtype=torch.float64)
    return x, torch.randint(5, (8,), generator=random)


def data_parallel_is_whole(rank, size):
    from torch.nn.parallel import DistributedDataParallel

    x, y = rows()
    criterion = CrossEntropyLoss(label_smoothing=0.1)
    alone, parallel = network(), DistributedDataParallel(network())
    criterion(alone(x), y).backward()
    criterion(parallel(x[rank::size]), y[rank::size]).backward()
    for one, many in zip(alone.parameters(), parallel.parameters(), strict=True):
        assert torch.allclose(one.grad, many.grad, rtol=0, atol=1e-15)


# ----------------------------------------------------------------------------------- DTensor


def dtensors_are_whole(rank, size):
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor, init_device_mesh

    mesh = init_device_mesh("cpu", (size,))
    x, y = rows()
    whole = network()(x).detach().requires_grad_()
    rules = (softhot.Uniform(0.1), softhot.Others(0.1), softhot.ConfidencePenalty(0.1))
    for rule in rules:
        expected = cross_entropy(whole, y, rule)
        (slopes,) = torch.autograd.grad(expected, whole)
        for logits_at in (Shard(0), Replicate(), Shard(1)):
            for labels_at in (Shard(0), Replicate()):
                z = distribute_tensor(whole.detach(), mesh, [logits_at]).requires_grad_()
                labels = distribute_tensor(y, mesh, [labels_at])
                loss = cross_entropy(z, labels, rule)
                loss.backward()
                where = (rule, logits_at, labels_at)
                assert torch.allclose(loss.full_tensor(), expected, rtol=1e-13), where
                assert torch.allclose(z.grad.full_tensor(), slopes, rtol=0, atol=1e-15), where


def dtensors_that_torch_takes_are_taken(rank, size):
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor, init_device_mesh

    mesh = init_device_mesh("cpu", (size,))
    x, y = rows()
    whole = network()(x).detach().requires_grad_()
    weight = torch.tensor([1.0, 0.5, 2.0, 1.25, 3.0], dtype=torch.float64)
    mixed = torch.full((8, 5), 0.1, dtype=torch.float64).scatter_(1, y[:, None], 0.6)
    taken = []
    for target, name in itertools.product((y, mixed), ("", "sum", "none", "weight", "ignore")):
        options = {"reduction": name} if name in ("sum", "none") else {}
        options |= {"weight": weight} if name == "weight" else {}
        options |= {"ignore_index": int(y[1])} if name == "ignore" else {}
        if name == "ignore" and target is mixed:
            continue
        for place in (Shard(0), Replicate()):

            def given(place=place, target=target, options=options):
                z = distribute_tensor(whole.detach(), mesh, [place]).requires_grad_()
                labels = distribute_tensor(target, mesh, [place])
                more = dict(options)
                if "weight" in more:
                    more["weight"] = distribute_tensor(more["weight"], mesh, [Replicate()])
                return z, labels, more

            z, labels, more = given()
            try:
                F.cross_entropy(z, labels, **more).sum().backward()
            except (RuntimeError, NotImplementedError):
                continue
            z, labels, more = given()
            loss = cross_entropy(z, labels, **more)
            expected = cross_entropy(whole, target, **options)
            (slopes,) = torch.autograd.grad(expected.sum(), whole)
            loss.sum().backward()
            assert torch.allclose(loss.full_tensor(), expected, rtol=1e-13), (name, place)
            assert torch.allclose(z.grad.full_tensor(), slopes, rtol=0, atol=1e-15), (name, place)
            taken.append((target is y, name, place))
    assert len(taken) > 10, taken
