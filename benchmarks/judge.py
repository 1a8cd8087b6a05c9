"""`softhot judge` on large files: wall time and peak memory of the whole command."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

STEP = 2000  # rows written at a time


def arguments(parser) -> None:
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows (default 1,000,000)")
    parser.add_argument("--classes", type=int, default=1000, help="classes (default 1,000)")
    parser.add_argument("--folder", help="where to write them (default: the temporary folder)")


def rows(options):
    """One file of overconfident logits in half precision, of each format, judged by the command."""
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for name, write in (("npz", write_npz), ("parquet", write_parquet)):
            path = Path(folder) / f"model.{name}"
            write(path, options.rows, options.classes)
            size = path.stat().st_size
            began = time.perf_counter()
            command = [sys.executable, "-m", "softhot.cli", "judge", str(path), "--json"]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            yield {
                "format": name,
                "rows": options.rows,
                "classes": options.classes,
                "file_gb": size / 1e9,
                "seconds": time.perf_counter() - began,
                "cpu_seconds": usage.ru_utime + usage.ru_stime,
                "peak_gb": usage.ru_maxrss * 1024 / 1e9,
                "exit": process.returncode,
            }
            path.unlink()


def table(records) -> str:
    lines = [
        "| file | rows | classes | GB on disk | seconds | of CPU | peak GB |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| .{r['format']} | {r['rows']:,} | {r['classes']:,} | {r['file_gb']:.2f} | "
        f"{r['seconds']:.0f} | {r['cpu_seconds']:.0f} | {r['peak_gb']:.2f} |"
        + (" FAILED" if r["exit"] else "")
        for r in records
    ]
    return "\n".join(lines)


def blocks(count: int, classes: int):
    """Logits and labels of a model whose confidence is too high by a temperature of 1.5."""
    rng = np.random.default_rng(0)
    for start in range(0, count, STEP):
        n = min(STEP, count - start)
        z = rng.standard_normal((n, classes), dtype=np.float32)
        labels = rng.integers(classes, size=n)
        z[np.arange(n), labels] += rng.normal(7, 3, size=n).astype(np.float32)
        yield (1.5 * z).astype(np.float16), labels


def write_npz(path: Path, count: int, classes: int) -> None:
    labels = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        with archive.open("logits.npy", "w", force_zip64=True) as member:
            header = {"descr": "<f2", "fortran_order": False, "shape": (count, classes)}
            np.lib.format.write_array_header_1_0(member, header)
            for z, y in blocks(count, classes):
                member.write(z.tobytes())
                labels.append(y)
        with archive.open("labels.npy", "w") as member:
            np.lib.format.write_array(member, np.concatenate(labels))


def write_parquet(path: Path, count: int, classes: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.list_(pa.float16(), classes)
    schema = pa.schema([("label", pa.int64()), ("logits", kind)])
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for z, y in blocks(count, classes):
            lists = pa.FixedSizeListArray.from_arrays(pa.array(z.ravel()), classes)
            writer.write_batch(pa.record_batch([pa.array(y), lists], schema=schema))
