"""A private mosquitto on a free loopback port: for `fedmq simulate`, examples and tests."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from fedmq.errors import ConfigError, MisuseError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

PLACES: Final = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin", "/opt/local/sbin")
"""Where mosquitto is installed when it is not on PATH, as on Debian for everyone but root."""

LOOPBACK: Final = "127.0.0.1"
START_S: Final = 10.0
STOP_S: Final = 3.0

SETTINGS: Final = (
    "per_listener_settings false",
    "persistence false",
    "log_dest stderr",
    "log_type error",
    "log_type warning",
    "log_type notice",
    "log_timestamp_format %Y-%m-%dT%H:%M:%S",
    "sys_interval 0",
    "set_tcp_nodelay true",
    "max_inflight_messages 100",
    # A count would drop the 1,001st update without a word; bytes protect the machine just as well.
    "max_queued_messages 0",
    f"max_queued_bytes {512 * 1024 * 1024}",
)
"""What every private broker runs with: nothing on disk, room for a fleet."""

# The broker must not outlive us, even when we are killed. Linux ends it for us (PR_SET_PDEATHSIG, option 1 of prctl),
# which has to be asked for in the child; a Python that then becomes mosquitto does it without the hazards of running
# code between fork and exec. It also lifts the soft limit on open files, as a fleet needs one each. Elsewhere a kill -9
# of this process leaves the broker running: it is bound to loopback and found by `pgrep mosquitto`.
_BECOME: Final = """
import os, resource, sys
limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
try:
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
except (OSError, ValueError):
    pass
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, 9)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


def find_mosquitto() -> str | None:
    """Return the path of the mosquitto program, or None where it is not installed."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path=os.pathsep.join(PLACES))


def mosquitto_version() -> tuple[int, ...] | None:
    """Return the version of the installed mosquitto, such as (2, 0, 11), or None where there is none."""
    program = find_mosquitto()
    if program is None:
        return None
    told = subprocess.run([program, "-h"], capture_output=True, text=True, check=False).stdout  # noqa: S603
    found = re.search(r"version (\d+)\.(\d+)\.(\d+)", told)
    return tuple(int(part) for part in found.groups()) if found else None


def free_port() -> int:
    """Return a TCP port that is free on the loopback interface just now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


class Mosquitto:
    """One mosquitto process: ``async with Mosquitto() as broker: broker.address``.

    `settings` are further lines of its configuration, which win over `SETTINGS`; anonymous clients are allowed unless
    they name ``allow_anonymous``. `scheme` says what the lines make of the listener: mqtt, mqtts, ws or wss. It can be
    stopped, killed and started again on the same port, for tests of what that does to others.
    """

    name: Final = "mosquitto"

    def __init__(self, settings: Sequence[str] = (), *, scheme: str = "mqtt") -> None:
        self._settings = tuple(settings)
        self._scheme = scheme
        self._port: int | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """The listener's port; the same over restarts."""
        if self._port is None:
            self._port = free_port()
        return self._port

    @property
    def address(self) -> str:
        """The listener's address."""
        return f"{self._scheme}://{LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int:
        """The process, for those who measure it. Raises MisuseError while it does not run."""
        if self._process is None:
            raise MisuseError("the broker is not running: start it first")
        return self._process.pid

    async def start(self) -> None:
        """Start and wait until it accepts connections. Raises ConfigError with the end of its log."""
        program = find_mosquitto()
        if program is None:
            raise ConfigError(
                "mosquitto is not installed: install it (apt install mosquitto, brew install mosquitto), "
                "or use the embedded broker (pip install 'fedmq[embedded]')"
            )
        self._launch(program)
        try:
            async with asyncio.timeout(START_S):
                while not await self._accepts():
                    self._check_alive()
                    await asyncio.sleep(0.02)
        except TimeoutError:
            await self.stop()
            raise ConfigError(
                f"mosquitto did not accept connections within {START_S:.0f} s: {self.log()}"
            ) from None

    async def stop(self) -> None:
        """End it in good order, or by force after three seconds; may be called twice."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """End it at once, as a power cut would."""
        await self._end(signal.SIGKILL)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self.stop()
        finally:
            self._clear()

    def log(self) -> str:
        """Return the end of what it wrote to its log."""
        if self._folder is None:
            return ""
        return Path(self._folder.name, "log").read_text(errors="replace")[-2_000:].strip()

    def _launch(self, program: str) -> None:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="fedmq-mosquitto-")
        folder = Path(self._folder.name)
        (folder / "mosquitto.conf").write_text("\n".join(self._lines()) + "\n")
        command = [
            sys.executable,
            "-ISc",
            _BECOME,
            str(os.getpid()),
            program,
            "-c",
            str(folder / "mosquitto.conf"),
        ]
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own words, and a program found in known places
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder
            )
        atexit.register(self._end_at_exit)

    def _lines(self) -> list[str]:
        own = {line.split()[0] for line in self._settings if line.strip()}
        lines = [line for line in SETTINGS if line.split()[0] not in own]
        if "allow_anonymous" not in own:
            lines.append("allow_anonymous true")
        if os.geteuid() == 0:
            lines.append("user root")  # it would become "mosquitto", who cannot read our folder
        if self._scheme in {"ws", "wss"}:
            # mosquitto 2.0.11 gives up when all of its listeners are websockets.
            lines.append(f"listener {free_port()} {LOOPBACK}")
        return [*lines, f"listener {self.port} {LOOPBACK}", *self._settings]

    async def _accepts(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(LOOPBACK, self.port)
        except OSError:
            return False
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return True

    def _check_alive(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            self._process = None
            raise ConfigError(f"mosquitto ended while it was starting: {self.log()}")

    async def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        atexit.unregister(self._end_at_exit)
        process.send_signal(number)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    while process.poll() is None:  # noqa: ASYNC110 - a process sends no event that every platform has
                        await asyncio.sleep(0.01)
        finally:
            process.kill()
            process.wait()

    def _end_at_exit(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._clear()

    def _clear(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


def private_mosquitto(settings: Sequence[str] = (), *, scheme: str = "mqtt") -> Mosquitto:
    """Return a broker that runs while it is entered (``async with``); the arguments are those of `Mosquitto`."""
    return Mosquitto(settings, scheme=scheme)
