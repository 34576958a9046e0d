"""Print the two state machines as the page docs/reference/state-machines.md.

.venv/bin/python -m tools.print_machines --write   # write the page anew
.venv/bin/python -m tools.print_machines --check   # fail where it is not what the code says
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fedmq.protocol.diagrams import page

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "state-machines.md"


def main(arguments: list[str] | None = None) -> int:
    """Write, check or print the page; return the exit status."""
    parser = argparse.ArgumentParser(description="The state machines as a page of the documentation.")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    choice.add_argument("--check", action="store_true", help=f"say whether {PAGE.name} is up to date")
    options = parser.parse_args(arguments)
    if options.write:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page(), encoding="utf-8")
    elif options.check:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page():
            print(f"{PAGE.name} is not what the code says: run python -m tools.print_machines --write")
            return 1
    else:
        print(page(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
