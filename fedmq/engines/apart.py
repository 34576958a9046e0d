"""Work that needs a framework which the rest of a run does not: done in a process of its own, which then is gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from fedmq.errors import ConfigError, FedmqError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def run_apart(program: str, asked: Mapping[str, Any]) -> None:
    """Run a module of ours that ends in `serve`, and wait for it. Raises ConfigError with what it says is wrong."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(  # noqa: S603  # our own program
        [sys.executable, "-m", program, json.dumps(asked)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no word of why"]
        raise ConfigError(lines[-1].removeprefix("fedmq: "))


def serve(work: Callable[[Mapping[str, Any]], None]) -> None:
    """Do what the command line asks for; what cannot be done is said in one line."""
    try:
        work(json.loads(sys.argv[1]))
    except FedmqError as error:
        sys.exit(f"fedmq: {error}")
