"""How every benchmark reports: figures with their goals, the command and the machine, for people or as JSON."""

from __future__ import annotations

import json
import operator
import os
import platform
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Op: TypeAlias = Literal["<", "<=", ">=", ">"]

COMPARE: Final[dict[Op, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">=": operator.ge,
    ">": operator.gt,
}


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure and the bound that it should keep: `value op goal`."""

    name: str
    value: float
    op: Op
    goal: float

    @property
    def met(self) -> bool:
        """True where the bound is kept."""
        return COMPARE[self.op](self.value, self.goal)

    def as_dict(self) -> dict[str, str | float | bool]:
        """Return what the JSON line says of it."""
        return {"name": self.name, "value": self.value, "goal": self.goal, "op": self.op, "met": self.met}


def report(figures: dict[str, float], goals: Sequence[Goal], as_json: bool) -> None:  # noqa: FBT001
    """Print `figures` and `goals` with the command and the machine.

    With `as_json`, the last line is one JSON object with ``figures``, ``goals``, ``machine`` and ``command``.
    """
    machine = describe_machine()
    command = describe_command()
    print(f"$ {command}")
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    width = max(map(len, figures), default=0)
    for name, value in figures.items():
        print(f"  {name:{width}}  {value:>12,.6g}")
    for goal in goals:
        verdict = "met" if goal.met else "MISSED"
        print(f"  goal {goal.name} {goal.op} {goal.goal:g}: {verdict} ({goal.value:.6g})")
    if as_json:
        said = [goal.as_dict() for goal in goals]
        print(json.dumps({"figures": figures, "goals": said, "machine": machine, "command": command}))


def describe_machine() -> dict[str, str | float]:
    """Return what a reader must know to judge a figure; `load` is the average over the last minute."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


def describe_command() -> str:
    """Return the command line, as one would type it in the repository."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    program = f"-m {spec.name.removesuffix('.__main__')}" if spec else Path(sys.argv[0]).name
    return shlex.join(["python", *program.split(), *sys.argv[1:]])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (
        line.partition(":")[2].strip() for line in lines if line.lower().startswith(("model name", "model\t"))
    )
    return next((name for name in named if not name.isdigit()), platform.processor() or "unknown")
