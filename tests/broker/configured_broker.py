"""The broker configurations of this repository, each started by a real mosquitto on free loopback ports."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from fedmq.transport.address import Credentials, open_transport
from fedmq.transport.mosquitto import LOOPBACK, find_mosquitto, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType

    from fedmq.transport.address import Protocol
    from fedmq.transport.interface import Connection, Message, Transport

REPOSITORY = Path(__file__).parents[2]
BROKER_CONFIG = REPOSITORY / "broker_config"
DEVICES = ("device-1", "device-2")
WITNESS = "\nuser witness\ntopic read #\ntopic read $SYS/#\n"
"""Added to the access list in tests: an account that hears everything, so that nothing can be said unheard."""

CERTIFICATE, PASSWORD, WEBSOCKET = 8883, 8884, 8443
"""The ports in the files, by what a client proves itself with."""


def provision(folder: Path) -> Path:
    """Copy the configuration and do what its README says: certificates and accounts, by the scripts beside it."""
    shutil.copytree(
        BROKER_CONFIG, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("certificates", "data")
    )
    script(folder, "make_certificates.sh", "broker", "broker.example.org")
    script(folder, "make_certificates.sh", "device", *DEVICES, "lost-device")
    for role in ("aggregator", "monitor"):
        script(folder, "make_certificates.sh", role)
    script(folder, "add_account.sh", *DEVICES, "aggregator", "witness")
    with (folder / "acl").open("a") as acl:
        acl.write(WITNESS)
    return folder


def script(folder: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of the folder's scripts in it, and fail with its words where it fails."""
    done = run_script(folder, name, *arguments)
    assert done.returncode == 0, done.stderr
    return done


def run_script(folder: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [f"./{name}", *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )


def _changed(text: str, changes: Sequence[tuple[str, str]]) -> str:
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    # As root it would become "mosquitto", who cannot read a test's folder.
    user = "user root\n" if os.geteuid() == 0 else ""
    return f"{user}{text}log_type information\n"


class ConfiguredBroker:
    """mosquitto with one of the files as it stands, but on free ports of loopback, and with some more words in its log.

    `changes` are further replacements of text, for tests of what a line is good for.
    """

    def __init__(self, folder: Path, name: str, changes: Sequence[tuple[str, str]] = ()) -> None:
        self.folder = folder
        self.ports: dict[int, int] = {}
        self._file = folder / f"started-{name}"
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "data").mkdir(exist_ok=True)
        self._texts = {extra: extra.read_text() for extra in (folder / "extra").glob("*.conf")}
        self._texts[self._file] = _changed((folder / name).read_text(), changes)

    def start(self) -> None:
        """Start on the ports that it had before, or on new ones, which another process may snatch in between."""
        for _ in range(3):
            again = bool(self.ports)
            self._launch()
            self._until(lambda: self._listens() or self._ended())
            if self._listens():
                return
            assert "Address already in use" in self.log(), self.log()
            assert not again, "the ports that it had before are taken"
            self.ports.clear()
        raise AssertionError(self.log())

    def _launch(self) -> None:
        for path, text in self._texts.items():
            path.write_text(re.sub(r"^listener (\d+)(?: \S+)?$", self._moved, text, flags=re.MULTILINE))
        program = find_mosquitto()
        assert program is not None
        with self._log.open("wb") as log:
            command = [program, "-c", self._file.name]
            self._process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)

    def _moved(self, found: re.Match[str]) -> str:
        port = self.ports.setdefault(int(found[1]), free_port())
        return f"listener {port} {LOOPBACK}"

    def _listens(self) -> bool:
        return " running\n" in self.log()

    def _ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _until(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not true():
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.01)

    def stop(self) -> None:
        """End it in good order, as systemd and Docker do."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def reload(self) -> None:
        """Have it read its files again, and wait until it has."""
        assert self._process is not None
        before = self.log().count("Reloading config")
        self._process.send_signal(signal.SIGHUP)
        self._until(lambda: self.log().count("Reloading config") > before)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    # --- ways in

    def by_certificate(
        self, name: str, *, protocol: Protocol = 5, certificates: Path | None = None, user: str | None = None,
        port: int | None = None,
    ) -> Transport:  # fmt: skip
        """Return the way in for a device that has the certificate of `name`, from another authority where given."""
        clients = (certificates or self.folder / "certificates") / "clients"
        credentials = Credentials(
            user, None, self.folder / "certificates/ca.pem", clients / f"{name}.pem", clients / f"{name}.key"
        )
        return open_transport(
            f"mqtts://{LOOPBACK}:{port or self.ports[CERTIFICATE]}", credentials, protocol=protocol
        )

    def by_password(
        self, name: str | None, password: str | None = None, *, protocol: Protocol = 5
    ) -> Transport:
        """Return the way in for the account of `name`, with its own password where none is given."""
        credentials = Credentials(name, password or self.password(name), self.folder / "certificates/ca.pem")
        return open_transport(f"mqtts://{LOOPBACK}:{self.ports[PASSWORD]}", credentials, protocol=protocol)

    def password(self, name: str | None) -> str | None:
        return None if name is None else (self.folder / f"{name}.password").read_text().strip()


async def hears(connection: Connection, until: str) -> list[Message]:
    """Return what is said, not what was retained, up to a message on the topic `until`."""
    heard: list[Message] = []
    async with asyncio.timeout(20):
        while until not in topics_of(heard):
            heard += [message for message in await connection.receive() if not message.retained]
    return heard


async def everything(connection: Connection, until: set[str]) -> list[Message]:
    """Return all that comes, retained or not, until there was a message on each of the topics."""
    found: list[Message] = []
    async with asyncio.timeout(20):
        while not until <= topics_of(found):
            found += await connection.receive()
    return found


def topics_of(messages: Iterable[Message]) -> set[str]:
    return {message.topic for message in messages}
