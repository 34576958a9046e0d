"""The conformance suite over mosquitto, in every way that a device may reach it."""

from __future__ import annotations

import asyncio
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, ClassVar

import pytest

from fedmq.testing.proxy import Proxy
from fedmq.testing.transport import Capabilities, Rig, TransportConformance
from fedmq.transport.address import Credentials, open_transport
from fedmq.transport.mosquitto import Mosquitto, mosquitto_version

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from fedmq.transport.address import Protocol
    from tests.broker.conftest import Certificates

pytestmark = pytest.mark.broker

LIMIT = "max_packet_size 1000000"
# Debian 12's mosquitto keeps to a receive maximum only until the first acknowledgement (its issue 2301), and cuts the
# link of an MQTT 5 client after refusing a publish.
OLD = mosquitto_version() == (2, 0, 11)
MQTT_5 = Capabilities(receive_maximum=not OLD, refuses_gently=not OLD)
ACCESS = "topic readwrite #\ntopic readwrite $private/#\ntopic deny forbidden/#\n"


@asynccontextmanager
async def rig_on(
    broker: Mosquitto,
    credentials: Credentials,
    capabilities: Capabilities,
    protocol: Protocol = 5,
) -> AsyncIterator[Rig]:
    async with Proxy(broker.port) as proxy:
        fragile = broker.address.replace(str(broker.port), str(proxy.port))

        async def cut() -> None:
            proxy.cut()

        yield Rig(
            open_transport(broker.address, credentials, protocol=protocol),
            open_transport(fragile, credentials, protocol=protocol),
            cut,
            proxy.hold,
            capabilities,
        )


@pytest.fixture(scope="module")
def access(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("access") / "acl"
    path.write_text(ACCESS)
    return f"acl_file {path}"


def running(settings: list[str], scheme: str = "mqtt") -> Iterator[Mosquitto]:
    broker = Mosquitto(settings, scheme=scheme)
    asyncio.run(broker.start())
    yield broker
    asyncio.run(broker.__aexit__(None, None, None))


@pytest.fixture(scope="module")
def plain5(_mosquitto_installed: None, access: str) -> Iterator[Mosquitto]:
    yield from running([LIMIT, access])


class TestMqtt5(TransportConformance):
    capabilities: ClassVar = MQTT_5

    @pytest.fixture
    async def rig(self, plain5: Mosquitto) -> AsyncIterator[Rig]:
        async with rig_on(plain5, Credentials(), self.capabilities) as rig:
            yield rig


@pytest.fixture(scope="module")
def plain311(_mosquitto_installed: None) -> Iterator[Mosquitto]:
    yield from running([])


class TestMqtt311(TransportConformance):
    """MQTT 3.1.1 has no reason codes, no limits in CONNACK, no expiry and no receive maximum."""

    capabilities: ClassVar = Capabilities(
        receive_maximum=False, packet_limit=False, refuses=False, refuses_gently=False, expires=False
    )

    @pytest.fixture
    async def rig(self, plain311: Mosquitto) -> AsyncIterator[Rig]:
        async with rig_on(plain311, Credentials(), self.capabilities, 4) as rig:
            yield rig


@pytest.fixture(scope="module")
def websocket(_mosquitto_installed: None, access: str) -> Iterator[Mosquitto]:
    # Debian 12's mosquitto takes in websocket data at some 40 kB/s, whoever sends it: keep the largest packet small.
    yield from running(["protocol websockets", "max_packet_size 40000", access], "ws")


class TestWebsocket(TransportConformance):
    capabilities: ClassVar = MQTT_5

    @pytest.fixture
    async def rig(self, websocket: Mosquitto) -> AsyncIterator[Rig]:
        async with rig_on(websocket, Credentials(), self.capabilities) as rig:
            yield rig


@pytest.fixture(scope="module")
def tls(_mosquitto_installed: None, access: str, certificates: Certificates) -> Iterator[Mosquitto]:
    settings = [
        LIMIT,
        access,
        f"cafile {certificates.ca}",
        f"certfile {certificates.broker}",
        f"keyfile {certificates.broker_key}",
        "require_certificate true",
    ]
    yield from running(settings, "mqtts")


class TestTlsWithClientCertificate(TransportConformance):
    capabilities: ClassVar = MQTT_5

    @pytest.fixture
    async def rig(self, tls: Mosquitto, certificates: Certificates) -> AsyncIterator[Rig]:
        credentials = Credentials(
            ca_file=certificates.ca, cert_file=certificates.device, key_file=certificates.device_key
        )
        async with rig_on(tls, credentials, self.capabilities) as rig:
            yield rig


@pytest.fixture(scope="module")
def password(_mosquitto_installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    yield from running([LIMIT, *password_settings(tmp_path_factory.mktemp("passwords"))])


class TestPassword(TransportConformance):
    """And the version of MQTT found out by itself."""

    capabilities: ClassVar = MQTT_5

    @pytest.fixture
    async def rig(self, password: Mosquitto) -> AsyncIterator[Rig]:
        credentials = Credentials("device-7", "geheim")
        async with rig_on(password, credentials, self.capabilities, "auto") as rig:
            yield rig


def password_settings(folder: Path) -> list[str]:
    passwords, access = folder / "passwords", folder / "acl"
    command = ["mosquitto_passwd", "-b", "-c", str(passwords), "device-7", "geheim"]
    subprocess.run(command, check=True, capture_output=True)
    access.write_text(f"user device-7\n{ACCESS}")
    return ["allow_anonymous false", f"password_file {passwords}", f"acl_file {access}"]
