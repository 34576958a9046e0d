"""Real private brokers on free loopback ports, with whatever configuration a test wants, and certificates for them."""

from __future__ import annotations

import asyncio
import subprocess
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fedmq.transport.mosquitto import Mosquitto, find_mosquitto

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator


@pytest.fixture(scope="session")
def _mosquitto_installed() -> None:
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")


@pytest.fixture(scope="session")
def shared_mosquitto(_mosquitto_installed: None) -> Iterator[Mosquitto]:
    """One plain broker for all tests that neither configure, stop nor fill it; use topics of your own."""
    broker = Mosquitto()
    asyncio.run(broker.start())
    yield broker
    asyncio.run(broker.__aexit__(None, None, None))


@pytest.fixture
async def start_mosquitto(_mosquitto_installed: None) -> AsyncIterator[Callable[..., Awaitable[Mosquitto]]]:
    """``await start_mosquitto(["max_packet_size 1000"])``: a broker of the test's own, which ends with it."""
    async with AsyncExitStack() as stack:

        async def start(settings: list[str] | None = None, *, scheme: str = "mqtt") -> Mosquitto:
            return await stack.enter_async_context(Mosquitto(settings or [], scheme=scheme))

        yield start


@dataclass(frozen=True)
class Certificates:
    """Files of a certificate authority, of a broker at 127.0.0.1 that it signed, and of a device."""

    ca: Path
    broker: Path
    broker_key: Path
    device: Path
    device_key: Path


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates that live as long as the tests."""
    folder = tmp_path_factory.mktemp("certificates")
    _openssl(
        folder, "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
        "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=test authority",
        "-addext", "keyUsage=critical,keyCertSign",
    )  # fmt: skip
    _signed(folder, "broker", "subjectAltName=IP:127.0.0.1")
    _signed(folder, "device-7", "extendedKeyUsage=clientAuth")
    return Certificates(
        ca=folder / "ca.pem",
        broker=folder / "broker.pem",
        broker_key=folder / "broker.key",
        device=folder / "device-7.pem",
        device_key=folder / "device-7.key",
    )


def _signed(folder: Path, name: str, extension: str) -> None:
    _openssl(
        folder, "req", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
        "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}",
    )  # fmt: skip
    (folder / f"{name}.ext").write_text(
        f"{extension}\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
    )
    _openssl(
        folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
        "-out", f"{name}.pem", "-days", "2", "-extfile", f"{name}.ext",
    )  # fmt: skip


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
