"""Write the tables of docs/kernels.md: what the compiler made, and what was measured on a CPU.

python -m docs.kernels
"""

import argparse
import json
from pathlib import Path

from benchmarks import linear, registers

PAGE = Path(__file__).parent / "kernels.md"
RESULTS = Path(__file__).parent.parent / "benchmarks" / "results" / "linear.jsonl"


def main() -> None:
    text = PAGE.read_text()
    made = list(registers.rows(argparse.Namespace()))
    text = between(text, "registers", registers.table(made))
    if RESULTS.exists():
        text = between(text, "linear", measured())
    PAGE.write_text(text)


def measured() -> str:
    """The newest record of each shape."""
    newest, machine = {}, {}
    for line in RESULTS.read_text().splitlines():
        run = json.loads(line)
        for row in run["rows"]:
            newest[tuple(row["shape"])], machine = row, run["machine"]
    head = (
        "| N × H × C | against all logits at once | limit | time over the three products | "
        "against torch's own chunks (hard) | memory beyond the gradients, MB (torch) | "
        "error (torch) |\n|---|---|---|---|---|---|---|"
    )
    lines = [head]
    for shape in linear.SHAPES:
        row = newest.get(shape)
        if row is None:
            continue
        times, megabytes, error = row["times_torch"], row["extra_megabytes"], row["error"]
        memory = f"{megabytes['softhot']:.0f} ({megabytes['torch']:.0f})"
        lines.append(
            f"| {' × '.join(map(str, shape))} | **{times['softhot']:.2f}×** | "
            f"{times['products']:.2f}× | {row['times_products']['softhot']:.2f} | "
            f"{row['times_torch_chunked'] or float('nan'):.1f}× | {memory} | "
            f"{error['softhot']:.0e} ({error['torch']:.0e}) |"
        )
    lines.append(
        f"\n{machine['processor']}, {machine['cores']} cores, "
        f"torch {machine['versions']['torch']}, float32, 2 threads, "
        f"{machine['date'][:10]}; the machine was shared while this ran."
    )
    return "\n".join(lines)


def between(text: str, name: str, content: str) -> str:
    """The page with ``content`` between the two comments called ``name``."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, rest = text.split(start)
    return f"{before}{start}\n{content}\n{end}{rest.split(end)[1]}"


if __name__ == "__main__":
    main()
