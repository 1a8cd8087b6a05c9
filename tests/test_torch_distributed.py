"""More than one process: classes spread over them, DistributedDataParallel, DTensor.

Starting processes is slow: a test starts its own once, and they go through all of the cases.
"""

import datetime

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

import softhot
from softhot import InputError, PerClass, PerSample
from softhot.torch import CrossEntropyLoss, cross_entropy, vocab_parallel_cross_entropy

N, K = 9, 11
RULES = (
    softhot.Uniform(0.0),
    softhot.Uniform(0.1),
    softhot.Uniform(PerClass(np.linspace(0, 0.4, K))),
    softhot.Uniform(PerSample()),
    softhot.Others(0.1),
    softhot.NegativeUniform(-0.2),
    softhot.Prior(0.2, tuple(range(1, K + 1))),
    softhot.Prior(0.2, (1, *[0] * (K - 1))),
    softhot.Ordinal(0.5),
    softhot.Similarity(PerClass(np.linspace(0, 0.4, K)), np.full((K, K), 1 / K)),
    softhot.Online(0.3),
    softhot.Teacher(0.5, 2.0),
    softhot.Focal(2.0),
    softhot.MaxSup(0.1),
    softhot.ConfidencePenalty(0.2),
    softhot.ConfidencePenalty(0.2, 1.5),
    softhot.Uniform(0.1) + softhot.MaxSup(0.1) + softhot.ConfidencePenalty(0.2),
)


def join(rank, size, store, *works):
    """Go through the works as one of so many processes; what one of them raises fails the test."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=size,
        timeout=datetime.timedelta(seconds=60),
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
        what_shards_cannot_do_is_said,
        data_parallel_is_whole,
        dtensors_are_whole,
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


def batches():
    """Arguments of the dense loss."""
    random = torch.Generator().manual_seed(0)
    z = 4 * torch.randn(N, K, generator=random, dtype=torch.float64)
    y = torch.randint(K, (N,), generator=random)
    plain = {"logits": z, "labels": y}
    yield plain
    yield {**plain, "reduction": "sum", "weight": torch.rand(K, generator=random)}
    spoiled = z.clone()
    spoiled[2] = torch.nan
    yield {"logits": spoiled, "labels": y.index_fill(0, torch.tensor(2), -100), "reduction": "none"}
    masked = z.clone()
    masked[torch.rand(N, K, generator=random) < 0.5] = -torch.inf
    masked.scatter_(1, y[:, None], z.gather(1, y[:, None]))
    masked[:, 0] = z[:, 0]
    yield {"logits": masked, "labels": y, "where": torch.arange(N) != 1}
    yield {
        "logits": z.reshape(N, K, 1).expand(N, K, 2) + torch.arange(2) / 9,
        "labels": y[:, None].expand(N, 2),
    }
    for dtype in (torch.float32, torch.float16):
        yield {"logits": z.to(dtype), "labels": y, "reduction": "mean"}


def from_batch(rule, labels):
    random = torch.Generator().manual_seed(1)
    arguments = {}
    if isinstance(rule.base.__dict__.get("alpha"), PerSample):
        arguments["alpha"] = torch.rand(labels.shape, generator=random, dtype=torch.float64) / 2
    if rule.base.PRIOR == "by_row":
        prior = torch.rand(*labels.shape, K, generator=random, dtype=torch.float64).softmax(-1)
        arguments["prior"] = prior.movedim(-1, 1)
    elif rule.base.FROM_BATCH:
        arguments["prior"] = torch.rand(K, K, generator=random, dtype=torch.float64).softmax(-1)
    return arguments


def shards_are_dense(rank, size):
    for i, rule in enumerate(RULES):
        for j, batch in enumerate(batches()):
            if (i + j) % size:  # more processes are slower: they share the cases
                continue
            options = dict(batch)
            logits, labels = options.pop("logits"), options.pop("labels")
            options |= from_batch(rule, labels)
            dense = logits.clone().requires_grad_()
            upstream = (
                torch.tensor(2.0) if options.get("reduction") != "none" else torch.arange(N) / 4
            )
            expected = cross_entropy(dense, labels, rule, **options)
            (slopes,) = torch.autograd.grad(expected, dense, upstream.to(expected.dtype))
            for classes in shards(size):
                first = sum(classes[:rank])
                own = logits[:, first : first + classes[rank]].clone().requires_grad_()
                for given in (classes, None):
                    if given is None and rule is not RULES[1]:
                        continue
                    loss = vocab_parallel_cross_entropy(own, labels, rule, classes=given, **options)
                    (slope,) = torch.autograd.grad(loss, own, upstream.to(loss.dtype))
                    tolerance = 1e-12 if logits.dtype == torch.float64 else 1e-5
                    what = (rule, classes, options)
                    assert loss.dtype == expected.dtype
                    assert torch.allclose(loss, expected, rtol=tolerance, atol=tolerance), what
                    mine = slopes[:, first : first + classes[rank]]
                    tolerance = max(tolerance, torch.finfo(logits.dtype).eps)
                    assert slope.dtype == logits.dtype
                    assert torch.allclose(slope, mine, rtol=tolerance, atol=tolerance / 4), what


def what_shards_cannot_do_is_said(rank, size):
    z, y = torch.randn(4, 3, requires_grad=True), torch.tensor([0, 5, 2, 1])

    def message(*arguments, **options):
        with pytest.raises(InputError) as error:
            vocab_parallel_cross_entropy(*arguments, **options)
        return str(error.value)

    assert "labels[1]" in message(z, torch.tensor([0, 6, 2, 1]))
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
