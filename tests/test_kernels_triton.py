"""The GPU kernels without a GPU: in Triton's interpreter, and compiled for one but not run.

The interpreter has to be chosen before kernels are defined, so each kind has a process of its own.
"""

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import softhot
from softhot.kernels import choose, explain, triton

pytest.importorskip("triton", reason="Triton is for x86-64 Linux: there are no GPU kernels here")

HERE = Path(__file__).parent
CHECKS = [
    node.name
    for node in ast.parse((HERE / "triton_checks.py").read_text()).body
    if isinstance(node, ast.FunctionDef) and node.decorator_list
]


def run(*command):
    path = os.pathsep.join([str(Path(softhot.__file__).parent.parent), str(HERE.parent), str(HERE)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module", name="said")
def _said():
    return run(str(HERE / "triton_checks.py"))


@pytest.mark.parametrize("name", CHECKS)
def test_in_the_interpreter(said, name):
    assert said[name] == ""


COMPILED = """
import json
from benchmarks import registers
kinds = [case for case in registers.cases() if case[1] == "bf16"]
print(json.dumps([registers.measure(*case) for case in kinds]))
"""


@pytest.fixture(scope="module", name="compiled")
def _compiled():
    return run("-c", COMPILED)


def test_kernels_keep_everything_in_registers(compiled):
    for made in compiled:
        assert made["spilled_bytes"] == made["stack_bytes"] == made["local_accesses"] == 0, made
        assert made["atomics"] == 0, made  # the order of a sum never depends on timing


def test_rows_are_read_and_written_16_bytes_at_a_time(compiled):
    """Wherever they start: the vocabulary of GPT-2, 50257 classes, is odd."""
    seen = {made["kernel"] for made in compiled if made["rows"] == "anywhere"}
    assert {"forward", "gradient", "in_place"} <= seen
    for made in compiled:
        if made["kernel"] in ("forward", "statistics", "gradient", "in_place"):
            assert made["loads_of_16_bytes"] > 0, made
        if made["kernel"] in ("gradient", "in_place"):
            assert made["stores_of_16_bytes"] > 0, made


SWEEP = """
import functools, json
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.driver import CudaDriver

class Driver(CudaDriver):  # compiles for a GPU that is not there
    def __init__(self): pass
    def get_current_target(self): return GPUTarget("cuda", 90, 32)
    def get_current_device(self): return 0
    def get_current_stream(self, device): return 0

triton.runtime.driver.set_active(Driver())
from softhot.kernels.native import Coefficients
from softhot.kernels.triton import launch, rows as kernels
kernel = kernels.forward
run = kernel.run
kernel.run = lambda *arguments, **options: run(*arguments, **{**options, "warmup": True})

def versions(share, n=64, k=512, mean=0.0, ignore=-100, **features):
    labels = torch.zeros(n, dtype=torch.int64)
    extra = Coefficients(mean=mean, **features)
    batch = launch.Rows(labels, None, ignore, share, False, extra, None, 0, None, 0, k)
    launch._parts = lambda logits: 1
    launch.forward(torch.zeros(n, k, dtype=torch.bfloat16), batch)
    return len(kernel.device_caches[0][0])

counts = [versions(share) for share in (0.0, 0.1, 0.3, 1.0, 1e-7, -0.2)]
counts += [versions(0.1, n=n) for n in (1, 7, 63)] + [versions(0.1, ignore=i) for i in (1, 0)]
counts += [versions(0.1, mean=m) for m in (0.5, 1.0)]
by_row = [versions(torch.rand(64)), versions(torch.rand(64))]
print(json.dumps([counts, by_row, [versions(0.1, max=0.1), versions(0.2, max=0.3)]]))
"""


def test_a_sweep_compiles_once():
    numbers, by_row, with_maximum = run("-c", SWEEP)
    assert set(numbers) == {1}
    assert by_row == [2, 2]
    assert with_maximum == [3, 3]


BENCHMARK = """
import interpreter, json, pathlib, sys
from benchmarks import __main__ as command
command.RESULTS = pathlib.Path(sys.argv[1])
sys.argv[1:] = ["gpu", "--tiny"]
assert command.main() == 0
print(json.dumps(list(map(json.loads, (command.RESULTS / "gpu.jsonl").open()))))
"""


def test_the_benchmark_works_but_for_the_clock(tmp_path):
    records = run("-W", "ignore", "-c", BENCHMARK, str(tmp_path))
    assert [len(record["shape"]) for record in records] == [2, 2, 3]
    for record in records:
        assert {"machine", "gpu_versions", "limits", "rounds", "device"} <= record.keys()
        assert record["gpu_versions"].keys() >= {"triton", "cuda"}
        losses = record["error"].keys()
        assert {"softhot", "torch"} <= losses
        assert losses == record["milliseconds"].keys() == record["forward_milliseconds"].keys()
        assert {"Liger", "flash-attention", "cut-cross-entropy, hard"} <= record["left_out"].keys()
        for name, error in record["error"].items():
            assert 0 < error < (1 if "filtered" in name else 2e-3), (name, record)
        assert record["error"]["softhot"] <= record["error"]["torch"] + 1e-4
        assert min(record["share_of_limit"].values()) > 0
    dropped, means = records[-1]["filter_error"].values()
    assert means <= dropped  # so few classes are all above the threshold


def test_the_way_is_chosen_and_explained(monkeypatch):
    rule = softhot.Uniform(0.1)
    assert choose(rule, triton=True).name == "triton"
    assert choose(softhot.Margin(), triton=True).name == "core"
    assert choose(rule + softhot.ZLoss(), triton=True).name == "triton"
    assert choose(rule + softhot.ZLoss(), native=True).name == "core"
    assert choose(rule, triton=True, traced=True).name == "core"
    assert triton.reason("cpu") == "they run on CUDA devices"
    assert triton.reason("cuda") == ""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert explain().startswith("triton: installed, but this machine has no GPU to use it on (CUDA")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H200")
    assert explain().startswith("triton: used on H200 (CUDA")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert triton.device() == ""
    monkeypatch.setattr(triton, "reason", lambda device: "Triton is not installed")
    assert explain().startswith("triton: not used here: Triton is not installed (CUDA")


def test_nothing_needs_triton():
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import softhot.torch, torch\n"
        "z = torch.zeros(2, 3, requires_grad=True)\n"
        "softhot.torch.cross_entropy(z, torch.tensor([0, 1])).backward()\n"
        "import json; print(json.dumps('triton.language' in sys.modules))"
    )
    assert run("-c", code) is False
