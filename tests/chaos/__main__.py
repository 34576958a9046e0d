"""Break things on purpose: every promise of docs/explanation/reliability.md under faults, one row after the other.

    python -m tests.chaos                       everything, within an hour
    python -m tests.chaos --quick               the same in short
    python -m tests.chaos --only NAME --seed 7  one row, from one seed
    python -m tests.chaos --mutants             faults planted on purpose, and which row notices each

Ends with 1 where a promise was broken, or a mutant lived.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shlex
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Final

from benchmarks.report import describe_command, describe_machine
from tests.chaos.row import ROWS, Mutant, Row, hunt, mutants, run_row

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BESIDE: Final = "soak"
"""The row that takes half an hour of the clock and little else: it runs beside the others, in a process of its own."""
MARKS: Final = {True: "kept", False: "BROKEN"}


def main() -> int:
    """Run what was asked for; return the exit code."""
    given = parse(sys.argv[1:])
    if given.list:
        say("\n".join(ROWS))
        return 0
    return show_mutants(given) if given.mutants else show_rows(given)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="the short form of each row")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these rows, or mutants, only")
    parser.add_argument("--seed", type=int, default=0, help="for everything that is random")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--list", action="store_true", help="name the rows")
    parser.add_argument("--mutants", action="store_true", help="plant faults, and see that each is noticed")
    given = parser.parse_args(arguments)
    known = [mutant.name for mutant in mutants()] if given.mutants else ROWS
    if unknown := set(given.only or ()) - set(known):
        parser.error(f"there is no {', '.join(sorted(unknown))}: choose among {', '.join(known)}")
    return given


# --- rows -------------------------------------------------------------------------------------------------------------


def show_rows(given: argparse.Namespace) -> int:
    """Run the rows and print each as it ends."""
    began, rows = time.monotonic(), dict[str, Row]()
    for name, row in ran([name for name in ROWS if name in (given.only or ROWS)], given):
        rows[name] = row
        say(told(name, row, given))
    broken = [name for name, row in rows.items() if not row.met]
    say(f"{len(rows) - len(broken)} of {len(rows)} promises kept, {time.monotonic() - began:.0f} s")
    if given.json:
        say(json.dumps(as_json(rows)))
    return bool(broken)


def ran(names: Sequence[str], given: argparse.Namespace) -> Iterator[tuple[str, Row]]:
    """Yield each row as it ends, the one that takes longest last: in the long form it runs beside the others."""
    if given.quick or BESIDE not in names or len(names) == 1:
        yield from ((name, run_row(name, quick=given.quick, seed=given.seed)) for name in names)
        return
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        beside = pool.submit(run_row, BESIDE, quick=False, seed=given.seed)
        for name in names:
            if name != BESIDE:
                yield name, run_row(name, quick=False, seed=given.seed)
        yield BESIDE, beside.result()


def told(name: str, row: Row, given: argparse.Namespace) -> str:
    """Return what is printed of a row."""
    command = ["python", "-m", "tests.chaos", "--only", name, "--seed", str(given.seed)]
    lines = [
        f"{MARKS[row.met]:6}  {name}: {row.promise}  ({row.seconds:.1f} s)",
        f"          seen  {row.figure}",
        f"          goal  {row.goal}",
        f"          $ {shlex.join([*command, *(['--quick'] if given.quick else [])])}",
    ]
    return "\n".join(lines)


def as_json(rows: dict[str, Row]) -> dict[str, object]:
    """Return the rows as the benchmarks report theirs: figures, goals, machine and command."""
    return {
        "figures": {
            f"{name}.{what}": value for name, row in rows.items() for what, value in row.figures.items()
        },
        "goals": [
            {"name": name, "promise": row.promise, "value": row.figure, "goal": row.goal, "met": row.met}
            for name, row in rows.items()
        ],
        "seconds": {name: round(row.seconds, 1) for name, row in rows.items()},
        "machine": describe_machine(),
        "command": describe_command(),
    }


# --- mutants ----------------------------------------------------------------------------------------------------------


def show_mutants(given: argparse.Namespace) -> int:
    """Plant each fault, and print what noticed it."""
    asked = [mutant for mutant in mutants() if mutant.name in (given.only or [mutant.name])]
    said = {mutant.name: told_of(mutant, given.seed) for mutant in asked}
    lived = [name for name, caught in said.items() if not caught]
    say(f"{len(said) - len(lived)} of {len(said)} mutants caught")
    if given.json:
        figures = {f"{mutant.name}.caught": float(said[mutant.name]) for mutant in asked}
        say(json.dumps({"figures": figures, "machine": describe_machine(), "command": describe_command()}))
    return bool(lived)


def told_of(mutant: Mutant, seed: int) -> bool:
    """Hunt one mutant, print what came of it, and tell whether it was caught."""
    found = hunt(mutant, seed)
    say(f"{'caught' if found else 'LIVED':6}  {mutant.name}: {mutant.plants}")
    say(f"          row   {mutant.row}: {found or 'noticed nothing'}")
    return bool(found)


def say(text: str) -> None:
    """Print at once: rows take minutes."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
