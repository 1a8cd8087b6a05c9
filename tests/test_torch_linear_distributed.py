"""A linear layer spread over processes is the layer."""

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import softhot
from softhot.torch import linear_cross_entropy, vocab_parallel_linear_cross_entropy
from test_torch_distributed import join

N, H, K = 9, 5, 11
RULES = (
    softhot.Uniform(0.1),
    softhot.Others(0.1),
    softhot.Prior(0.2, tuple(range(1, K + 1))),
    softhot.Uniform(0.1) + softhot.MaxSup(0.1),
    softhot.Uniform(0.1) + softhot.ZLoss(0.01),
    softhot.Uniform(softhot.PerSample()),
)


def test_one_process(tmp_path):
    threads = torch.get_num_threads()
    join(0, 1, tmp_path / "store", shards_are_the_layer)
    torch.set_num_threads(threads)


def test_two_processes(tmp_path):
    mp.spawn(join, (2, str(tmp_path / "store"), shards_are_the_layer), nprocs=2)


def test_four_processes(tmp_path):
    mp.spawn(join, (4, str(tmp_path / "store"), shards_are_the_layer), nprocs=4)


def shards(size):
    """How many classes each process holds: even, uneven, and with nothing for some."""
    even = [len(part) for part in torch.arange(K).tensor_split(size)]
    return [even, [1] * (size - 1) + [K - size + 1], [0] * (size - 1) + [K]]


def calls():
    random = torch.Generator().manual_seed(0)
    yield {}
    yield {"reduction": "sum", "class_weight": torch.rand(K, generator=random)}
    yield {"reduction": "none", "where": torch.arange(N) != 4}
    yield {"ignore_index": 3, "bias": True}


def shards_are_the_layer(rank, size):
    random = torch.Generator().manual_seed(0)
    hidden, weight, bias = (
        torch.randn(*shape, generator=random, dtype=torch.float64)
        for shape in ((N, H), (K, H), (K,))
    )
    labels = torch.randint(K, (N,), generator=random)
    upstream = torch.linspace(-1, 2, N, dtype=torch.float64)
    for i, rule in enumerate(RULES):
        for j, options in enumerate(calls()):
            if (i + j) % size:  # more processes are slower: they share the cases
                continue
            if isinstance(rule.base.alpha, softhot.PerSample):
                options["alpha"] = torch.linspace(0, 0.5, N, dtype=torch.float64)
            b = bias if options.pop("bias", False) else None
            whole = [t.clone().requires_grad_() for t in (hidden, weight)]
            expected = linear_cross_entropy(*whole, labels, b, rule, **options)
            by = upstream if expected.ndim else upstream[0]
            truth = torch.autograd.grad(expected, whole, by)
            for classes in shards(size):
                first, memory = sum(classes[:rank]), 4 * max(classes) * 8
                mine = slice(first, first + classes[rank])
                own = [hidden.clone().requires_grad_(), weight[mine].clone().requires_grad_()]
                loss = vocab_parallel_linear_cross_entropy(
                    *own,
                    labels,
                    None if b is None else b[mine],
                    rule,
                    classes=classes if j else None,
                    memory=memory,
                    **options,
                )
                dh, dw = torch.autograd.grad(loss, own, by)
                what = (rule, classes, options)
                assert torch.allclose(loss, expected, rtol=1e-12), what
                assert torch.allclose(dh, truth[0], rtol=0, atol=1e-12), what
                assert torch.allclose(dw, truth[1][mine], rtol=0, atol=1e-12), what
    everywhere = [torch.empty_like(loss) for _ in range(size)]
    dist.all_gather(everywhere, loss.detach())
    assert all(torch.equal(other, everywhere[0]) for other in everywhere)
