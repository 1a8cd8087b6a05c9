"""PyTorch: the losses as functions and as modules that take the place of torch's own.

>>> import torch, softhot.torch
>>> criterion = softhot.torch.CrossEntropyLoss(label_smoothing=0.1)
>>> loss = criterion(torch.randn(8, 10, requires_grad=True), torch.randint(10, (8,)))
>>> loss.backward()

Everything works under ``torch.compile``, ``torch.func``, autocast, a ``GradScaler``, double
backward, ``DistributedDataParallel`` and on ``DTensor``. Which kernel runs, and why, says
:func:`softhot.kernels.choose`.
"""

try:
    import torch as _torch  # noqa: F401  # only to see whether it is there
except ModuleNotFoundError as error:
    message = "softhot.torch needs PyTorch: pip install 'softhot[torch]'"
    raise ModuleNotFoundError(message, name="torch") from error

from softhot.torch.functional import (
    binary_cross_entropy_with_logits as binary_cross_entropy_with_logits,
)
from softhot.torch.functional import cross_entropy as cross_entropy
from softhot.torch.linear import linear_cross_entropy as linear_cross_entropy
from softhot.torch.linear_vocabulary import (
    vocab_parallel_linear_cross_entropy as vocab_parallel_linear_cross_entropy,
)
from softhot.torch.modules import BCEWithLogitsLoss as BCEWithLogitsLoss
from softhot.torch.modules import CrossEntropyLoss as CrossEntropyLoss
from softhot.torch.modules import LinearCrossEntropyLoss as LinearCrossEntropyLoss
from softhot.torch.rank_one import with_smoothing as with_smoothing
from softhot.torch.vocabulary import vocab_parallel_cross_entropy as vocab_parallel_cross_entropy
