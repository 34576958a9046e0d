"""Hold the pure packages to full branch coverage.

They have no socket, clock or disk, so nothing excuses an untested branch there. Run after tests with coverage::

    .venv/bin/pytest --cov --cov-report=
    .venv/bin/python -m tools.check_coverage
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SHOWN = 12  # places named per file; the rest are found by running it again

WHOLE = ("fedmq/protocol", "fedmq/rules", "fedmq/algorithms", "fedmq/codecs", "fedmq/wire")


def measured() -> dict[str, Any]:
    """Return coverage's figures by file, paths relative to the repository."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "coverage.json")
        subprocess.run([sys.executable, "-m", "coverage", "json", "-q", "-o", str(target)], check=True)
        files: dict[str, Any] = json.loads(target.read_text())["files"]
    return {Path(name).as_posix(): figures for name, figures in files.items()}


def gaps(files: dict[str, Any]) -> list[str]:
    """Return one line for each package or file that falls short."""
    found = []
    for package in WHOLE:
        inside = {name: figures for name, figures in files.items() if name.startswith(f"{package}/")}
        if not inside:
            found.append(f"{package}: no file was measured")
        found += [f"{name}: {lack}" for name, figures in sorted(inside.items()) if (lack := lacks(figures))]
    return found


def lacks(figures: dict[str, Any]) -> str:
    """Say what never ran in one file; empty where all of it did."""
    lines = [str(line) for line in figures["missing_lines"]]
    branches = [f"{start} to {end}" for start, end in figures["missing_branches"]]
    parts = [
        f"never {verb} {', '.join(places[:SHOWN])}{', ...' if len(places) > SHOWN else ''}"
        for verb, places in (("ran line", lines), ("took branch", branches))
        if places
    ]
    return "; ".join(parts)


def main() -> int:
    """Print what is missing; return the exit status."""
    found = gaps(measured())
    for line in found:
        print(line)
    if not found:
        print(f"Every line and branch ran in {', '.join(WHOLE)}.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
