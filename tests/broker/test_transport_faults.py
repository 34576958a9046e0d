"""What the conformance suite cannot ask of every broker: refusals, old and silent brokers, and brokers that die."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from random import Random
from typing import TYPE_CHECKING, Any, Self

import pytest

from fedmq.errors import BrokerRefused, ConfigError, ConnectionLost
from fedmq.testing.proxy import Proxy
from fedmq.testing.transport import raises
from fedmq.transport.address import Credentials, open_transport
from fedmq.transport.backoff import Backoff
from fedmq.transport.embedded import Embedded, has_embedded
from fedmq.transport.interface import Message, Outgoing, Profile
from fedmq.transport.mosquitto import Mosquitto
from fedmq.transport.mqtt import Endpoint, MqttTransport
from fedmq.transport.packets import MQTT_3_1_1, MQTT_5
from fedmq.transport.pending import Patience
from fedmq.transport.private import private_broker
from fedmq.transport.session import Session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from fedmq.transport.interface import Connection
    from tests.broker.conftest import Certificates

    Start = Callable[..., Awaitable[Mosquitto]]

pytestmark = pytest.mark.broker

ME = Profile("me")


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


# ---------------------------------------------------------------------------------------------------------------------
# Refusals


async def test_wrong_password_is_a_refusal_that_does_not_repeat_it(
    start_mosquitto: Start, tmp_path: Path
) -> None:
    passwords = tmp_path / "passwords"
    command = ["mosquitto_passwd", "-b", "-c", str(passwords), "device-7", "right"]
    subprocess.run(command, check=True, capture_output=True)
    broker = await start_mosquitto(["allow_anonymous false", f"password_file {passwords}"])
    for protocol in (4, 5):
        transport = open_transport(broker.address, Credentials("device-7", "hush"), protocol=protocol)
        error = await raises(BrokerRefused, transport.connect(ME))
        assert isinstance(error, BrokerRefused)
        assert error.code in {0x86, 0x87}
        assert "hush" not in repr(error) + repr(error.__dict__) + str(error)
    good = await open_transport(broker.address, Credentials("device-7", "right")).connect(ME)
    await good.close()


async def test_a_broker_that_nobody_we_know_has_signed_is_not_trusted(
    start_mosquitto: Start, certificates: Certificates
) -> None:
    settings = [f"certfile {certificates.broker}", f"keyfile {certificates.broker_key}"]
    broker = await start_mosquitto(settings, scheme="mqtts")
    trusting = open_transport(broker.address, Credentials(ca_file=certificates.ca))
    await (await trusting.connect(ME)).close()
    doubting = open_transport(broker.address, Credentials())
    error = await raises(ConnectionLost, doubting.connect(ME))
    assert "CERTIFICATE_VERIFY_FAILED" in str(error)


async def test_nobody_listens() -> None:
    transport = open_transport(f"mqtt://127.0.0.1:{Mosquitto().port}", Credentials())
    error = await raises(ConnectionLost, transport.connect(ME))
    assert "refused" in str(error)


# ---------------------------------------------------------------------------------------------------------------------
# Brokers played by the test


class Fake:
    """Answers each connection's first packet with the next of its answers, and hangs up where there is none."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.versions: list[int] = []
        self.port = 0
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def open(self) -> int:
        return sum(not task.done() for task in self._serving)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.add(asyncio.create_task(self.serve(reader, writer)))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self.answer(reader, writer)
        finally:
            writer.transport.abort()
            await asyncio.sleep(0)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = await reader.read(1_000)
        if hello:
            self.versions.append(hello[8])
        answer = self.answers.pop(0) if self.answers else b""
        writer.write(answer)
        while answer and await reader.read(65_536):
            pass

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._server.wait_closed()

    def transport(self, *protocols: int, patience: Patience | None = None) -> MqttTransport:
        endpoint = Endpoint(f"mqtt://127.0.0.1:{self.port}", "127.0.0.1", self.port)
        return MqttTransport(endpoint, protocols=protocols or (MQTT_5, MQTT_3_1_1), patience=patience)


GOOD_5 = b"\x20\x03\x00\x00\x00"
GOOD_311 = b"\x20\x02\x00\x00"
WRONG_VERSION = b"\x20\x02\x00\x01"


async def test_a_broker_that_refuses_mqtt_5_is_spoken_to_in_3_1_1_from_then_on() -> None:
    async with Fake(WRONG_VERSION, GOOD_311, GOOD_311) as broker:
        transport = broker.transport()
        for _ in range(2):
            connection = await transport.connect(ME)
            assert connection.limits.protocol == MQTT_3_1_1
            await connection.close()
        assert broker.versions == [5, 4, 4]


async def test_a_broker_that_hangs_up_on_mqtt_5_is_asked_again_next_time() -> None:
    async with Fake(b"", GOOD_311, GOOD_5, b"") as broker:
        transport = broker.transport()
        for protocol in (MQTT_3_1_1, MQTT_5):
            connection = await transport.connect(ME)
            assert connection.limits.protocol == protocol
            await connection.close()
        await raises(ConnectionLost, transport.connect(ME))  # it has spoken MQTT 5: no falling back any more
        assert broker.versions == [5, 4, 5, 5]


@pytest.mark.parametrize(
    "answers", [(), (b"\x20\x02\x00\x03",), (b"\xff\xff\xff\xff\xff\xff",), (b"nonsense",)]
)
async def test_brokers_that_make_no_sense_cost_one_error(answers: tuple[bytes, ...]) -> None:
    async with Fake(*answers) as broker:
        transport = broker.transport(MQTT_3_1_1, patience=Patience(connect_s=0.5))
        error = await raises((ConnectionLost, BrokerRefused), transport.connect(ME))
        assert "127.0.0.1" in str(error)


async def test_a_broker_that_says_nothing_is_given_up() -> None:
    async with Fake(b"\x20") as broker:
        transport = broker.transport(MQTT_5, patience=Patience(connect_s=0.3))
        await raises(ConnectionLost, transport.connect(ME), within_s=3.0)


async def test_the_brokers_limits_are_heeded() -> None:
    # receive maximum 3, maximum packet size 1,000, session present
    async with Fake(b"\x20\x0b\x01\x00\x08\x21\x00\x03\x27\x00\x00\x03\xe8") as broker:
        connection = await broker.transport(MQTT_5).connect(ME)
        limits = connection.limits
        assert (limits.inflight, limits.packet_bytes, limits.session_present) == (3, 1_000, True)
        await connection.close()


async def test_a_flood_at_qos_0_is_dropped_where_it_cannot_be_held_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Fake(GOOD_311 + b"\x30\x04\x00\x01ax" * 500) as broker:
        connection = await broker.transport(MQTT_3_1_1).connect(Profile("me", receive_maximum=10))
        await until(lambda: "faster than they are read" in caplog.text)
        assert len(await connection.receive()) == 10
        await connection.close()


async def test_the_brokers_last_words_are_passed_on() -> None:
    async with Fake(GOOD_5 + b"\xe0\x02\x8e\x00") as broker:
        connection = await broker.transport(MQTT_5).connect(ME)
        error = await raises(ConnectionLost, connection.receive())
        assert "another program connected under the same identity" in str(error)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x90\x01\x00",  # a SUBACK that ends too soon
        b"\x40\x01\x00",  # a PUBACK that ends too soon
        b"\x40\x02\x00\x00",  # a PUBACK for packet identifier 0
        b"\xe0\x03\x7b\x05\xff",  # a DISCONNECT with a reason and properties that do not exist
        b"\x32\x05\x00\x01a\x00\x00",  # a PUBLISH with packet identifier 0
        b"\x30\x02\x00\x09",  # a PUBLISH whose topic is longer than itself
        b"\x30\xff\xff\xff\xff\x01",  # a length without end
        b"\x30\xff\xff\xff\x7f",  # a packet of 256 MiB
        b"\x00\x00",  # no packet at all
    ],
)
async def test_packets_that_make_no_sense_end_the_link_and_nothing_else(nonsense: bytes) -> None:
    async with Fake(GOOD_5 + nonsense) as broker:

        async def use() -> None:  # it may come before connecting has returned
            await (await broker.transport(MQTT_5).connect(ME)).receive()

        await raises(ConnectionLost, use(), within_s=5.0)
        await until(lambda: not broker.open)


async def test_a_publish_that_is_never_acknowledged_breaks_the_link() -> None:
    async with Fake(GOOD_5) as broker:
        connection = await broker.transport(MQTT_5, patience=Patience(0.2, slowest=1e6)).connect(ME)
        waiting = asyncio.create_task(connection.receive())
        error = await raises(ConnectionLost, connection.publish(Outgoing("a", b"x")), within_s=5.0)
        assert "did not acknowledge the message to 'a'" in str(error)
        await raises(ConnectionLost, waiting)
        await until(lambda: not broker.open)
        await connection.close()


async def test_patience_grows_with_what_is_under_way() -> None:
    async with Fake(GOOD_5) as broker:
        connection = await broker.transport(MQTT_5, patience=Patience(0.1, slowest=100_000.0)).connect(ME)
        start = time.monotonic()
        await raises(ConnectionLost, connection.publish(Outgoing("a", bytes(100_000))), within_s=10.0)
        assert time.monotonic() - start >= 1.0
        await connection.close()


# ---------------------------------------------------------------------------------------------------------------------
# Cancelling


async def test_a_cancelled_connect_does_not_take_over_later(
    shared_mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread may still be on the way; the connection that was made meanwhile must stay."""
    profile = Profile("cancelled-connect")
    transport = open_transport(shared_mosquitto.address, Credentials(), protocol=5)
    dialled, go_on, dial = threading.Event(), threading.Event(), socket.create_connection

    def slow(*arguments: Any, **options: Any) -> socket.socket:  # noqa: ANN401
        dialled.set()
        go_on.wait(10.0)
        return dial(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(socket, "create_connection", slow)
        connecting = asyncio.create_task(transport.connect(profile))
        await until(dialled.is_set)
    connecting.cancel()
    await asyncio.wait((connecting,))
    assert connecting.cancelled()
    connection = await transport.connect(profile)
    go_on.set()
    for _ in range(20):
        await asyncio.sleep(0.02)
        await connection.publish(Outgoing("still/there", b"x"))
    await connection.close()


async def test_connecting_may_be_cancelled_at_any_moment(shared_mosquitto: Mosquitto) -> None:
    """Nothing is left behind: no socket, no task, no error that nobody takes."""
    before = asyncio.all_tasks()
    async with Proxy(shared_mosquitto.port) as proxy:
        transport = open_transport(f"mqtt://127.0.0.1:{proxy.port}", Credentials(), protocol=5)
        for step in range(30):
            connecting = asyncio.create_task(transport.connect(Profile("cancelled-any-time")))
            await asyncio.sleep(step * 0.0005)
            connecting.cancel()
            await asyncio.wait((connecting,))
            if not connecting.cancelled():
                await connecting.result().close()
        await until(lambda: not proxy.open)
    await until(lambda: asyncio.all_tasks() <= before)


# ---------------------------------------------------------------------------------------------------------------------
# Brokers that die


class Listener:
    """A session that notes what it gets."""

    def __init__(self, address: str) -> None:
        self.payloads: list[bytes] = []
        self.session = Session(
            open_transport(address, Credentials()),
            Profile("listener"),
            on_connected=self.connected,
            on_messages=self.messages,
            random=Random(1),
            backoff=Backoff(base_s=0.05, cap_s=0.5),
        )

    async def connected(self, connection: Connection) -> None:
        await connection.subscribe("t/#")

    async def messages(self, batch: Sequence[Message]) -> None:
        self.payloads += [message.payload for message in batch]


async def test_a_session_outlives_its_broker(start_mosquitto: Start) -> None:
    broker = await start_mosquitto()
    listener = Listener(broker.address)
    async with listener.session as session:
        for number in range(5):
            payload = bytes([number])
            await asyncio.wait_for(session.publish(Outgoing("t/x", payload)), 20.0)
            await until(lambda payload=payload: payload in listener.payloads)  # type: ignore[misc]
            await broker.kill()
            waiting = asyncio.create_task(session.publish(Outgoing("t/y", payload + b"while down")))
            await broker.start()
            await asyncio.wait_for(waiting, 20.0)
            await until(lambda payload=payload: payload + b"while down" in listener.payloads)  # type: ignore[misc]


async def test_killed_and_started_again_it_has_the_same_address(start_mosquitto: Start) -> None:
    broker = await start_mosquitto()
    transport = open_transport(broker.address, Credentials())
    connection = await transport.connect(ME)
    await broker.kill()
    await raises(ConnectionLost, connection.receive(), within_s=1.0)
    await raises(ConnectionLost, transport.connect(ME))
    await connection.close()
    await broker.start()
    again = await transport.connect(ME)
    assert not again.limits.session_present
    await again.close()
    await broker.stop()
    await broker.stop()


async def test_what_mosquitto_does_not_like_is_told(start_mosquitto: Start) -> None:
    with pytest.raises(ConfigError, match="no_such_setting"):
        await start_mosquitto(["no_such_setting 1"])


async def test_mosquitto_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmq.transport.mosquitto.find_mosquitto", lambda: None)
    with pytest.raises(ConfigError, match=r"apt install mosquitto.*fedmq\[embedded\]"):
        await Mosquitto().start()


@pytest.mark.usefixtures("_mosquitto_installed")
async def test_either_kind_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async with private_broker() as broker:
        assert broker.name == "mosquitto"
        connection = await open_transport(broker.address, Credentials()).connect(ME)
        await connection.close()
    monkeypatch.setattr("fedmq.transport.private.find_mosquitto", lambda: None)
    monkeypatch.setattr("fedmq.transport.private.has_embedded", lambda: True)
    assert private_broker().name == "embedded"
    monkeypatch.setattr("fedmq.transport.private.has_embedded", lambda: False)
    with pytest.raises(ConfigError, match="no broker on this machine"):
        private_broker()
    monkeypatch.setattr("fedmq.transport.embedded.has_embedded", lambda: False)
    with pytest.raises(ConfigError, match="pip install"):
        async with private_broker("embedded"):
            pass


KINDS = [
    "mosquitto",
    pytest.param(
        "embedded", marks=pytest.mark.skipif(not has_embedded(), reason="needs the extra 'embedded'")
    ),
]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing ends a child whose parent is killed")
@pytest.mark.parametrize("kind", KINDS)
async def test_a_private_broker_does_not_outlive_a_parent_that_is_killed(kind: str, tmp_path: Path) -> None:
    program = (
        "import asyncio\n"
        "from fedmq.transport.private import private_broker\n"
        "async def main():\n"
        f"    async with private_broker({kind!r}) as broker:\n"
        "        print(broker.address, flush=True)\n"
        "        await asyncio.sleep(1000)\n"
        "asyncio.run(main())\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # what it cannot clear away goes with the test
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, env=environment
    )
    assert parent.stdout is not None
    address = (await asyncio.wait_for(parent.stdout.readline(), 30.0)).decode().strip()
    transport = open_transport(address, Credentials())
    connection = await transport.connect(ME)
    os.kill(parent.pid, signal.SIGKILL)
    await parent.wait()
    await raises(ConnectionLost, connection.receive(), within_s=5.0)
    await connection.close()
    await raises(ConnectionLost, transport.connect(ME))


async def test_a_private_broker_listens_on_loopback_only(shared_mosquitto: Mosquitto) -> None:
    assert _listeners(shared_mosquitto.port) == {"0100007F"}
    if has_embedded():
        async with Embedded() as broker:
            assert _listeners(broker.port) == {"0100007F"}


def _listeners(port: int) -> set[str]:
    """The addresses, as Linux prints them, that something listens on at `port`."""
    found = set()
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(name) as table:  # noqa: PTH123 - no path of ours
            rows = [line.split() for line in list(table)[1:]]
        found |= {
            row[1].split(":")[0] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port
        }
    return found
