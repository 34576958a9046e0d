"""Processes that come back after each death, and how much of their life they waited for a processor."""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.chaos import party
from tests.chaos.points import Points

ROOT: Final = Path(__file__).parents[2]


class Party:
    """One process that comes back after each death."""

    def __init__(self, folder: Path, name: str, *arguments: str) -> None:
        self.name, self._log = name, folder / f"{name}.log"
        self._arguments = [*arguments, "--points", name]
        self.points = Points(folder / f"{name}.points")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin a life: a program, from its first import."""
        self.points.forget()
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "tests.chaos.party", *self._arguments]
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    def kill(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def dead(self) -> bool:
        """Whether it was killed. Raises RuntimeError where it died of something else."""
        code = self._code()
        if code not in {None, -signal.SIGKILL}:
            log = self._log.read_text(errors="replace") if self._log.exists() else ""
            raise RuntimeError(f"{self.name} ended with {code}: {log[-600:]}")
        return code is not None

    def _code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    @property
    def waited(self) -> float:
        """Seconds in which it could have run and had no processor; 0 where the system does not tell."""
        if self._process is None:
            return 0.0
        try:
            return int(Path(f"/proc/{self._process.pid}/schedstat").read_text().split()[1]) / 1e9
        except (OSError, IndexError, ValueError):
            return 0.0


class Host(Party):
    """A process of devices. It is forked from one that has imported all that it needs: how long that takes is not
    measured here, and there are many of them."""

    _fork: Final = multiprocessing.get_context("forkserver")

    def __init__(self, folder: Path, name: str, *arguments: str) -> None:
        super().__init__(folder, name, *arguments)
        self._fork.set_forkserver_preload(["tests.chaos.party"])
        self._child: multiprocessing.process.BaseProcess | None = None

    def start(self) -> None:
        """Begin a life."""
        self.points.forget()
        self._child = self._fork.Process(target=party.main, args=(self._arguments,), daemon=True)
        self._child.start()

    def kill(self) -> None:
        """End it."""
        if self._child is not None:
            self._child.kill()
            self._child.join()

    def _code(self) -> int | None:
        return None if self._child is None else self._child.exitcode
