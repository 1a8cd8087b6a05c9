"""What the compiler makes of the Triton kernels for a Hopper GPU: no GPU needed."""

import argparse
import re
import subprocess
import tempfile
from pathlib import Path

TARGET = ("cuda", 90, 32)
PRODUCTS = {"survey", "by_hidden", "by_weight"}  # in a module of their own
POINTERS = {
    "dz": None, "hidden": None, "large": "*i32",
    "logits": None, "out": None, "values": None,
    "labels": "*i64", "counted": "*i1",
}  # fmt: skip
FLOATS = {"share", "others", "by_lse", "by_mean", "by_max", "by_expected", "by_square", "eps"}
INTEGERS = {
    "n", "k", "stride", "prior_stride", "width", "first", "classes", "blocks", "number", "ignore",
    "upstream_stride", "size", "threshold_stride",
}  # fmt: skip
PLAIN = {
    "HAS_IGNORE": True, "HAS_COUNTED": False, "HAS_ALPHA": False, "HAS_DIVISOR": True,
    "PRIOR": 0, "WEIGHT": 0, "MAX": False, "EXPECTED": False,
}  # fmt: skip
WIDE = {"bf16": {"VEC": 8}, "fp32": {"VEC": 4}}
TILES = {"TILES": 4, "LANES": 256}


def cases():
    """Kernel, dtype, what it is compiled for, warps, whether rows start on 16 bytes."""
    richest = {**PLAIN, "HAS_ALPHA": True, "PRIOR": 1, "WEIGHT": 2, "MAX": True, "EXPECTED": True}
    for dtype in WIDE:
        yield "forward", dtype, PLAIN, 8, True
        yield "gradient", dtype, {**PLAIN, "BLOCK": 4096}, 8, True
        yield "in_place", dtype, PLAIN, 8, True
    yield "forward", "bf16", PLAIN, 8, False
    yield "gradient", "bf16", {**PLAIN, "BLOCK": 4096}, 8, False
    yield "in_place", "bf16", PLAIN, 8, False
    yield "forward", "bf16", richest, 8, True
    yield "gradient", "bf16", {**richest, "BLOCK": 4096}, 8, True
    yield "statistics", "bf16", PLAIN, 8, True
    yield "finish", "bf16", {**PLAIN, "ROWS": 128}, 4, True
    yield "scale", "bf16", {"BLOCK": 4096}, 8, True

    tile = {"ROWS": 128, "CLASSES": 128}
    yield "survey", "bf16", tile, 8, True
    for kernel in ("by_hidden", "by_weight"):
        sizes = {**tile, "HIDDEN": 128, "PRECISION": "tf32", "FIRST": 0}
        yield kernel, "bf16", sizes, 8, True


def measure(kernel: str, dtype: str, features: dict, warps: int, aligned: bool) -> dict:
    """Registers, spills and the widths of memory accesses of one compilation."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from softhot.kernels.triton import products, rows

    function = getattr(products if kernel in PRODUCTS else rows, kernel)
    values = {**TILES, **WIDE[dtype], **features}
    signature, constants, divisible = {}, {}, {}
    for i, name in enumerate(function.arg_names):
        if name in values:
            signature[name], constants[(i,)] = "constexpr", values[name]
        elif name in FLOATS:
            signature[name] = "fp32"
        elif name in INTEGERS or (name == "classes" and kernel in PRODUCTS):
            signature[name] = "i32"
            if name in ("k", "stride", "width", "classes", "size") and aligned:
                divisible[(i,)] = [["tt.divisibility", 16]]
        elif kernel in PRODUCTS and name == "weight":
            signature[name], divisible[(i,)] = f"*{dtype}", [["tt.divisibility", 16]]
        else:
            signature[name] = POINTERS.get(name, "*fp32") or f"*{dtype}"
            divisible[(i,)] = [["tt.divisibility", 16]]
    source = ASTSource(function, signature, constants, divisible)
    made = triton.compile(source, target=GPUTarget(*TARGET), options={"num_warps": warps})
    code = _disassembled(made.asm["cubin"])
    usage = _usage(made.asm["ptx"])
    return {
        "kernel": kernel,
        "dtype": dtype,
        "features": "any"
        if kernel in PRODUCTS
        else "all"
        if features.get("EXPECTED")
        else "uniform",
        "rows": "on 16 bytes" if aligned else "anywhere",
        "warps": warps,
        **usage,
        "shared_bytes": made.metadata.shared,
        "atomics": len(re.findall(r"\b(?:ATOMG?|RED)\b", code)),
        "local_accesses": len(re.findall(r"\b(?:LDL|STL)\b", code)),
        "matrix_units": len(re.findall(r"\bHGMMA\b", code)),
        "loads_of_16_bytes": len(re.findall(r"\bLDG\.E\.(?:\w+\.)*128\b", code)),
        "stores_of_16_bytes": len(re.findall(r"\bSTG\.E\.(?:\w+\.)*128\b", code)),
    }


def _tool(name: str) -> str:
    import triton

    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name)


def _usage(ptx: str) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        command = [_tool("ptxas"), "-v", "--gpu-name=sm_90a", str(path), "-o", f"{folder}/out"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = {}
    for name, pattern in (
        ("registers", r"Used (\d+) registers"),
        ("stack_bytes", r"(\d+) bytes stack frame"),
        ("spilled_bytes", r"(\d+) bytes spill stores"),
    ):
        matches = re.findall(pattern, done.stderr)
        found[name] = int(matches[-1]) if matches else 0
    return found


def _disassembled(cubin: bytes) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        command = [_tool("nvdisasm"), str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def rows(options: argparse.Namespace):
    for case in cases():
        yield measure(*case)


def table(records) -> str:
    lines = [
        "| kernel | dtype | rule | rows start | registers | spilled | local | 16 B loads, stores |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in records:
        wide = f"{r['loads_of_16_bytes']}, {r['stores_of_16_bytes']}"
        lines.append(
            f"| {r['kernel']} | {r['dtype']} | {r['features']} | {r['rows']} | {r['registers']} | "
            f"{r['spilled_bytes']} | {r['local_accesses']} | {wide} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(list(rows(argparse.Namespace()))))
