"""Builds the native kernel into the package, if the machine has a C++ compiler.

Without one the package is built all the same, and its losses take a slower way that
``softhot explain --kernels`` names. ``python hatch_build.py`` builds the kernel in a checkout.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ModuleNotFoundError:  # run as a script
    BuildHookInterface = object  # type: ignore[assignment, misc]

FOLDER = Path(__file__).parent / "src" / "softhot" / "kernels"
SOURCES = [FOLDER / name for name in ("native.cpp", "simd.h", "xla.h")]  # one and what it includes
LIBRARY = FOLDER / "_native.so"
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-O3", "-std=c++17", "-fPIC", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti")
# Results must not depend on what the compiler merges; nothing here looks at errno or traps.
ARITHMETIC = ("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")
AVX2 = ("-mavx2", "-mfma", "-mf16c")
AVX512 = (*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl")
AVX512BF16 = (*AVX512, "-mavx512bf16")
INSTRUCTION_SETS: dict[str, dict[str, tuple[str, ...]]] = {
    "x86_64": {"baseline": (), "avx2": AVX2, "avx512": AVX512, "avx512bf16": AVX512BF16},
    "arm64": {"baseline": ()},  # which has NEON
}


def build(library: Path = LIBRARY, extra: Sequence[str] = (), compiler: str | None = None) -> str:
    """Compile the kernel to ``library``. Returns an empty string, or why there is none."""
    if os.name != "posix":
        return f"it is not built on {platform.system()}"
    compiler = compiler or os.environ.get("CXX") or next(filter(shutil.which, COMPILERS), None)
    if compiler is None:
        return f"no C++ compiler was found ({', '.join(COMPILERS)})"
    machine = {"amd64": "x86_64", "aarch64": "arm64"}.get(
        platform.machine().lower(), platform.machine().lower()
    )
    sets = INSTRUCTION_SETS.get(machine, {"baseline": ()})
    with tempfile.TemporaryDirectory() as folder:
        objects = []
        for name, flags in sets.items():
            objects.append(f"{folder}/{name}.o")
            symbols = [f"-DSOFTHOT_ENTRY=softhot_{name}", f"-DSOFTHOT_XLA=softhot_xla_{name}"]
            if name == "baseline":
                symbols.append(f"-DSOFTHOT_VERSION={version()}")
            command = [compiler, *FLAGS, *ARITHMETIC, *flags, *symbols, *extra]
            said = _run([*command, "-c", str(SOURCES[0]), "-o", objects[-1]])
            if said:
                return said
        linked = f"{folder}/{library.name}"
        said = _run([compiler, "-shared", *extra, *objects, "-o", linked])
        if not said:
            shutil.copy(linked, library.with_suffix(".new"))
            os.replace(library.with_suffix(".new"), library)  # a running process keeps the old one
        return said


def version() -> int:
    """The number by which a library knows the sources it was made from."""
    return zlib.crc32(b"".join(source.read_bytes() for source in SOURCES)) & 0x7FFFFFFF


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return f"{command[0]} could not be run: {error}"
    return f"{' '.join(command)} failed:\n{done.stderr}" if done.returncode else ""


class NativeKernel(BuildHookInterface):
    """Hatchling's hook: a wheel with the kernel is for this platform, one without for any."""

    def initialize(self, version: str, build_data: dict) -> None:
        if self.target_name != "wheel":
            return
        reason = build()
        if reason:
            self.app.display_warning(f"softhot is built without its native kernel: {reason}")
            LIBRARY.unlink(missing_ok=True)
            return
        build_data["artifacts"].append(f"/{LIBRARY.relative_to(Path(self.root)).as_posix()}")
        build_data["pure_python"] = False
        tag = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{tag}"


if __name__ == "__main__":
    sys.exit(build() or 0)
