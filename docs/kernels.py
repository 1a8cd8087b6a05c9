"""Write the tables of docs/kernels.md: what the compiler made, and what was measured on a CPU.

python -m docs.kernels
"""

import argparse
from pathlib import Path

from benchmarks import registers
from docs import speed

PAGE = Path(__file__).parent / "kernels.md"


def main() -> None:
    text = PAGE.read_text()
    made = list(registers.rows(argparse.Namespace()))
    text = between(text, "registers", registers.table(made))
    text = between(text, "linear", measured())
    PAGE.write_text(text)


def measured() -> str:
    """The newest record of each shape."""
    return speed.layer(speed.latest("linear", ("shape", "rival"))).partition("\n\n")[2].strip()


def between(text: str, name: str, content: str) -> str:
    """The page with ``content`` between the two comments called ``name``."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, rest = text.split(start)
    return f"{before}{start}\n{content}\n{end}{rest.split(end)[1]}"


if __name__ == "__main__":
    main()
