"""The native kernel's NEON code on any processor, where a cross compiler and QEMU are found.

On Debian: ``apt-get install g++-aarch64-linux-gnu qemu-user``. The tests of the kernel then run
through it as through every other instruction set.
"""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import struct
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from softhot.kernels import native

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
PRESENT = bool(shutil.which(COMPILER) and shutil.which(EMULATOR))
POINTERS, GRADIENT, NORMALIZER = 11, 1, 3


def neon(call: bytes) -> int:
    """What ``softhot_baseline`` does on arm64, for :func:`softhot.kernels.native.run`."""
    pointers = native.CALL.unpack(call)[:POINTERS]
    sizes = _sizes(call)
    process = _process()
    process.stdin.write(struct.pack(f"@{POINTERS + 1}q", *sizes, len(call)) + call)
    for i, (pointer, size) in enumerate(zip(pointers[:-1], sizes, strict=False)):
        if pointer and not (i == GRADIENT and pointer == pointers[0]):
            process.stdin.write(ctypes.string_at(pointer, size))
    process.stdin.flush()
    (status,) = struct.unpack("@i", process.stdout.read(4))
    for i in range(GRADIENT, NORMALIZER + 1):
        if pointers[i]:
            ctypes.memmove(pointers[i], process.stdout.read(sizes[i]), sizes[i])
    return status


def _sizes(call: bytes) -> list[int]:
    """Bytes behind each pointer, in the order of ``Call`` in native.cpp; the pool has none."""
    n, k, stride, _, *_, dtype, reduction, _, flags = native.CALL.unpack(call)[POINTERS:]
    item = 4 if dtype == native.DTYPES["float32"] else 2
    rows = n if reduction == native.REDUCTIONS["none"] else 1
    priors = k if flags & native.PRIOR_BY_CLASS else n if flags & native.PRIOR_BY_ROW else 1
    logits = item * ((n - 1) * stride + k)
    return [logits, item * n * k, 4 * rows, 8, 8 * n, n, 4 * n, 4 * priors * k, 4 * k, 4 * n, 0]


@cache
def _process() -> subprocess.Popen:
    script = Path(__file__).parents[1] / "hatch_build.py"
    spec = importlib.util.spec_from_file_location("hatch_build", script)
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "emulated"
        sources = [str(build.SOURCES[0]), str(Path(__file__).with_name("emulated.cpp"))]
        flags = [*build.FLAGS, *build.ARITHMETIC, "-DSOFTHOT_ENTRY=softhot_baseline", "-static"]
        subprocess.run([COMPILER, *flags, *sources, "-o", str(program)], check=True)
        process = subprocess.Popen(
            [EMULATOR, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        process.stdin.flush()
        _wait_until_loaded(process)
    return process


def _wait_until_loaded(process: subprocess.Popen) -> None:
    """An empty batch is answered once the program runs, so its file may go."""
    call = native.CALL.pack(*[0] * POINTERS, 0, 2, 2, 0, *[0.0] * 5, 0, 0, 1, 0)
    process.stdin.write(struct.pack(f"@{POINTERS + 1}q", *[0] * POINTERS, len(call)) + call)
    process.stdin.flush()
    process.stdout.read(4)
