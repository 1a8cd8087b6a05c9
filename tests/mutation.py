"""Mutation testing of the core: mutmut's mutants, each run in a fork of one pytest session.

    python -m tests.mutation                        # what has no result yet: it can be interrupted
    python -m tests.mutation 'softhot.core.row.*'   # the same, of these
    python -m tests.mutation --survivors            # those that lived, anew
    python -m tests.mutation --sample 400 --seed 0  # of a random sample
    python -m tests.mutation --report               # the table of docs/mutation.md; with --sample,
                                                    # the score of that sample and its interval

mutmut starts pytest for every mutant: a second each, three hours for the core. Here the tests are
collected once, and every mutant is a fork that runs those that reach it, the fast ones first, until
one fails. Everything else is mutmut's: which mutants there are, its results in ``mutants/`` (so
``mutmut show NAME`` works), and its settings in pyproject.toml.
"""

import argparse
import fnmatch
import hashlib
import math
import os
import resource
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from time import process_time
from unittest import mock

import mutmut.__main__ as mutmut
import pytest
from mutmut.configuration import config
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.runners.harness import ListAllTestsResult, TestRunner
from mutmut.state import state
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import change_cwd, walk_mutatable_files
from mutmut.workers.isolation import (
    ForkRunner,
    ForkServerRunner,
    run_in_fork,
    run_in_fork_with_result,
)

ROOT = Path(__file__).parent.parent
os.environ["SOFTHOT_LIBRARIES"] = "numpy strict"  # no threads, which forks don't survive


class Collected(TestRunner):
    """Runs tests of a session that is collected already; always in a fork.

    First come those that killed mutants of the same function before, then the first case of every
    test, then the second of every test, and so on; the fast ones first.
    """

    KILLERS = ROOT / "mutants" / "killers.txt"

    def __init__(self, session: pytest.Session, seconds: float) -> None:
        self.session, self.seconds = session, seconds
        self.items = {item.nodeid: item for item in session.items}
        self.turns: dict[str, int] = {}
        seen: Counter[str] = Counter()
        for name in self.items:
            test = name.partition("[")[0]
            self.turns[name] = seen[test]
            seen[test] += 1
        self.KILLERS.touch()

    def run_tests(self, *, mutant_name, tests):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        function = (mutant_name or "").rpartition("__mutmut_")[0]
        lines = [line.split("\t") for line in self.KILLERS.read_text().splitlines()]
        kills = Counter(test for where, test in lines if where == function)
        fast = state().duration_by_test
        names = sorted(tests, key=lambda name: (-kills[name], self.turns[name], fast[name]))
        items = [self.items[name] for name in names] or self.session.items
        started = process_time()
        limit = int(started + self.seconds) + 30  # of CPU time: the clock also runs for others
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
        with change_cwd("mutants"):
            for item, following in zip(items, [*items[1:], None], strict=True):
                if process_time() - started > self.seconds:
                    return 0
                if self._fails(item, following):
                    with self.KILLERS.open("a") as file:
                        file.write(f"{function}\t{item.nodeid}\n")
                    return 1
        return 0

    def run_stats(self, *, tests):
        items = [self.items[name] for name in tests] or self.session.items
        with change_cwd("mutants"):
            for item, following in zip(items, [*items[1:], None], strict=True):
                state()._stats.clear()
                started = process_time()
                if self._fails(item, following):
                    print(f"without a mutant, too, {item.nodeid} fails", file=sys.__stderr__)
                    return 1
                state().duration_by_test[item.nodeid] = process_time() - started
                for function in state()._stats:
                    state().tests_by_mangled_function_name[function].add(item.nodeid)
        return 0

    def run_forced_fail(self):
        return self.run_tests(mutant_name=None, tests=[])

    def list_all_tests(self):
        return ListAllTestsResult(ids=set(self.items))

    def _fails(self, item: pytest.Item, following: pytest.Item | None) -> bool:
        item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
        return bool(self.session.testsfailed)


class Runner(ForkRunner):
    """mutmut's runner; whatever runs tests is a fork, so that this process stays clean."""

    collect_stats = ForkServerRunner.collect_stats
    run_forced_fail = ForkServerRunner.run_forced_fail

    def run_clean_tests(self, tests):
        return 0  # collecting the stats ran them

    def _run_in_child(self, operation):
        return run_in_fork_with_result(lambda: operation(self.test_runner))

    def _exit_code_from_child(self, operation):
        return run_in_fork(lambda: operation(self.test_runner))


class Loop:
    """The plugin that puts mutmut in the place of pytest's loop over tests."""

    def __init__(self, names: list[str], children: int, seconds: float) -> None:
        self.names, self.children, self.seconds = names, children, seconds

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        runner = Runner(self.children, Collected(session, self.seconds))
        with change_cwd(ROOT), mock.patch.object(mutmut, "get_mutant_runner", return_value=runner):
            mutmut._run(self.names, self.children)
        return True


def results() -> dict[str, dict[str, int | None]]:
    """Exit codes by file and mutant."""
    found = {}
    for path in sorted(walk_mutatable_files()):
        data = SourceFileMutationData(path=path)
        data.load()
        found[str(path)] = data.exit_code_by_key
    return found


def chosen(options: argparse.Namespace) -> list[str]:
    """The mutants to run."""
    every = {name: code for codes in results().values() for name, code in codes.items()}
    names = sample(every, options.sample, options.seed) if options.sample else sorted(every)
    if options.names:
        names = [n for n in names if any(fnmatch.fnmatch(n, pattern) for pattern in options.names)]
    if options.survivors:
        return [n for n in names if status(every[n]) in ("survived", "no tests")]
    return [n for n in names if every[n] is None]


def sample(names: Iterable[str], size: int, seed: int) -> list[str]:
    """So many names at random: a larger sample holds the smaller one, and a mutant more or less
    elsewhere changes little."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())[:size]


def status(code: int | None) -> str:
    return status_by_exit_code[code]


def report() -> str:
    """The table: a row a file, and how many of its mutants were killed."""
    lines = ["| file | mutants | killed | survived | score |", "|---|---|---|---|---|"]
    total: Counter[str] = Counter()
    for path, codes in results().items():
        found = Counter(status(code) for code in codes.values())
        total += found
        if found:
            lines.append(row(f"`{Path(path).relative_to('src/softhot/core')}`", found))
    return "\n".join([*lines, row("all", total)])


def counts(found: Counter[str]) -> tuple[int, int]:
    """Killed and not: a time-out is a kill, a mutant without tests a survivor."""
    killed = sum(found[s] for s in ("killed", "timeout", "segfault", "suspicious"))
    return killed, found["survived"] + found["no tests"]


def score_of_sample(size: int, seed: int) -> str:
    """The share that was killed, with its 95 % interval (Wilson)."""
    every = {name: code for codes in results().values() for name, code in codes.items()}
    killed, lived = counts(Counter(status(every[name]) for name in sample(every, size, seed)))
    n, z = killed + lived, 1.96
    middle = (killed + z * z / 2) / (n + z * z)
    half = z * math.sqrt(killed * lived / n + z * z / 4) / (n + z * z)
    return (
        f"{n} of {len(every)} mutants at random (seed {seed}): {killed} killed, "
        f"{100 * killed / n:.1f} % (95 % interval {100 * (middle - half):.1f} to "
        f"{100 * (middle + half):.1f} %)"
    )


def row(name: str, found: Counter[str]) -> str:
    """A row of the table."""
    killed, lived = counts(found)
    score = f"{100 * killed / (killed + lived):.1f} %" if killed + lived else ""
    unknown = f" (+ {found['not checked']} not run)" if found["not checked"] else ""
    return f"| {name} | {killed + lived}{unknown} | {killed} | {lived} | {score} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="patterns of mutants")
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--survivors", action="store_true")
    parser.add_argument("--report", action="store_true", help="print the table and run nothing")
    parser.add_argument("--seconds", type=float, default=60.0, help="most for one mutant")
    parser.add_argument("--children", type=int, default=os.cpu_count())
    options = parser.parse_args()
    os.chdir(ROOT)
    if options.report:
        print(score_of_sample(options.sample, options.seed) if options.sample else report())
        return 0
    set_mutant_under_test("mutant_generation")
    Path("mutants").mkdir(exist_ok=True)
    mutmut.copy_src_dir()
    mutmut.copy_also_copy_files()
    mutmut.setup_source_paths()
    mutmut.create_mutants(options.children)
    names = chosen(options)
    if not names:
        print(report())
        return 0
    arguments = [*config().pytest_add_cli_args, *config().pytest_add_cli_args_test_selection]
    with change_cwd("mutants"):
        pytest.main(
            ["--rootdir=.", "-x", "-s", *arguments],
            plugins=[Loop(names, options.children, options.seconds)],
        )
    print(report())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
