"""Peak memory beyond the logits, in multiples of them, as the operating system counts it."""

import json
import os
import subprocess
import sys

import pytest

CODE = """
import json, torch, torch.nn.functional as F
import softhot
from softhot.torch import binary_cross_entropy_with_logits as binary, cross_entropy
torch.set_num_threads(1)

def resident(line):
    with open("/proc/self/status") as status:
        return next(int(row.split()[1]) * 1024 for row in status if row.startswith(line))

def measure(function, dtype=torch.float32, shape=(512, 2**15)):
    logits = torch.zeros(shape, dtype=dtype).normal_().requires_grad_()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts again from here
    before = resident("VmRSS")
    function(logits)
    return round((resident("VmHWM") - before) / (logits.numel() * logits.element_size()), 2)

y = torch.randint(2**15, (512,))
half = torch.zeros(512, 2**15, dtype=torch.bool)
U = softhot.Uniform(0.1)
ours = lambda z, rule=U, **o: cross_entropy(z, y, rule, **o)
def silent(z):
    with torch.no_grad():
        ours(z)
for warm in (torch.float32, torch.bfloat16):  # what is loaded once is not the loss's
    measure(lambda z: cross_entropy(z, y[:8] % 8, U).backward(), warm, (8, 8))
    measure(lambda z: F.cross_entropy(z, y[:8] % 8).backward(), warm, (8, 8))
print(json.dumps({
    "backward": measure(lambda z: ours(z).backward()),
    "in place": measure(lambda z: ours(z.view_as(z), inplace=True).backward()),
    "half in place": measure(lambda z: ours(z.view_as(z), inplace=True).backward(), torch.bfloat16),
    "scaled": measure(lambda z: (ours(z) * 1024).backward()),
    "by row": measure(lambda z: ours(z, reduction="none").sum().backward()),
    "ignoring": measure(lambda z: ours(z, ignore_index=3).backward()),
    "bfloat16": measure(lambda z: (ours(z) * 1024).backward(), torch.bfloat16),
    "float16": measure(lambda z: (ours(z) * 1024).backward(), torch.float16),
    "no gradient": measure(silent),
    "penalty": measure(lambda z: ours(z, softhot.ConfidencePenalty(0.1)).backward()),
    "prior": measure(lambda z: ours(z, softhot.Prior(0.1, (1,) * 2**15)).backward()),
    "binary": measure(lambda z: binary(z, half, label_smoothing=0.1).backward()),
    "images": measure(
        lambda z: cross_entropy(z, torch.zeros(8, 256, 256, dtype=torch.int64), U).backward(),
        shape=(8, 32, 256, 256),
    ),
    "torch": measure(lambda z: F.cross_entropy(z, y, label_smoothing=0.1).backward()),
}))
"""  # fmt: skip


@pytest.fixture(scope="module", name="extra")
def _extra():
    # Large blocks go back to the system when they are freed, so that the peak is what is in use.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_gradient_is_the_only_buffer_of_the_size_of_the_logits(extra):
    for name in ("backward", "scaled", "by row", "ignoring", "bfloat16", "float16", "images"):
        assert extra[name] <= 1.2, extra
    for name in ("penalty", "prior", "binary"):  # beside it a dozen arrays of a block each
        assert extra[name] <= 1.4, extra
    assert extra["torch"] >= 2, "the measurement sees nothing"


def test_without_a_gradient_or_in_place_there_is_none(extra):
    for name in ("no gradient", "in place", "half in place"):
        assert extra[name] <= 0.2, extra
