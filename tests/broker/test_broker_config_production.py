"""broker_config/production.conf, attacked: what nobody may say or hear is looked for on the wire, never in a SUBACK."""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
import ssl
import subprocess
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Literal

import aiomqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from fedmq.errors import BrokerRefused, TransportError
from fedmq.protocol.frames import Step
from fedmq.testing.proxy import Proxy
from fedmq.transport.address import Credentials, open_transport
from fedmq.transport.interface import Outgoing, Profile
from fedmq.wire.limits import PACKET_BYTES
from fedmq.wire.topics import Topics
from tests.broker.configured_broker import (
    CERTIFICATE,
    PASSWORD,
    WEBSOCKET,
    ConfiguredBroker,
    everything,
    hears,
    provision,
    script,
    topics_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from fedmq.transport.address import Protocol
    from fedmq.transport.interface import Connection, Transport

    Joining = Callable[..., Awaitable[Connection]]

pytestmark = pytest.mark.broker

NOT_AUTHORIZED = 0x87
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, _mosquitto_installed: None) -> Path:
    """A provisioned folder, websockets switched on as the example says."""
    made = provision(tmp_path_factory.mktemp("broker"))
    shutil.copy(made / "extra/websockets.conf.example", made / "extra/websockets.conf")
    return made


@pytest.fixture(scope="module")
def broker(folder: Path) -> Iterator[ConfiguredBroker]:
    with ConfiguredBroker(folder, "production.conf") as running:
        yield running


@pytest.fixture
def topics() -> Topics:
    """A federation of the test's own."""
    return Topics(f"watch-{next(_numbers)}")


@pytest.fixture
async def join(topics: Topics) -> AsyncIterator[Joining]:
    """``await join(transport, "device-1")``: a connection that ends with the test."""
    async with AsyncExitStack() as stack:

        async def connect(transport: Transport, name: str, will: Outgoing | None = None) -> Connection:
            connection = await transport.connect(
                Profile(f"fedmq-{topics.federation}-{name}", will, durable=False)
            )
            stack.push_async_callback(connection.close)
            return connection

        yield connect


@pytest.fixture(params=[5, 4], ids=["mqtt5", "mqtt3.1.1"])
def protocol(request: pytest.FixtureRequest) -> Protocol:
    chosen: Protocol = request.param
    return chosen


@pytest.fixture(params=["certificate", "password"])
def enter(
    request: pytest.FixtureRequest, broker: ConfiguredBroker, protocol: Protocol
) -> Callable[[str], Transport]:
    """Each way in, under each version of MQTT."""
    way = broker.by_certificate if request.param == "certificate" else broker.by_password
    return lambda name: way(name, protocol=protocol)


async def say(connection: Connection, topic: str, payload: bytes = b"x", *, retain: bool = False) -> None:
    await connection.publish(Outgoing(topic, payload, retain))


# --- what must work ---------------------------------------------------------------------------------------------------


class TestProtocol:
    async def test_aggregator_and_device_can_say_and_hear_all_that_the_protocol_needs(
        self, enter: Callable[[str], Transport], join: Joining, topics: Topics
    ) -> None:
        aggregator = await join(
            enter("aggregator"), "aggregator", Outgoing(topics.beacon, b"gone", retain=True)
        )
        device = await join(
            enter("device-1"), "device-1", Outgoing(topics.status("device-1"), b"gone", retain=True)
        )
        await aggregator.subscribe(*topics.aggregator_filters)
        await device.subscribe(
            *topics.device_filters("device-1"),
            topics.frame_filter(Step(3, key=True)),
            topics.beacon,
            topics.report,
        )

        said = [
            topics.frame(Step(3, key=True), 0),
            topics.frame(Step(3, key=True), 1),
            topics.manifest,
            topics.task,
            topics.beacon,
            topics.report,
        ]
        for topic in said:
            await say(aggregator, topic, retain=True)
        await say(aggregator, topics.receipt("device-1"))
        assert topics_of(await hears(device, topics.receipt("device-1"))) == {
            *said,
            topics.receipt("device-1"),
        }

        answers = [topics.status("device-1"), topics.update("device-1", 1), topics.update("device-1", 1, 7)]
        for topic in answers:
            await say(device, topic, retain=topic == answers[0])
        assert topics_of(await hears(aggregator, answers[-1])) == set(answers)

    async def test_a_late_device_finds_model_and_task_waiting(
        self, enter: Callable[[str], Transport], join: Joining, topics: Topics
    ) -> None:
        aggregator = await join(enter("aggregator"), "aggregator")
        for topic in (topics.frame(Step(1, key=True), 0), topics.manifest, topics.task):
            await say(aggregator, topic, retain=True)
        device = await join(enter("device-1"), "device-1")
        await device.subscribe(topics.manifest, topics.task, topics.frame_filter(Step(1, key=True)))
        found = await everything(device, {topics.manifest, topics.task, topics.frame(Step(1, key=True), 0)})
        assert all(message.retained for message in found)

    @pytest.mark.parametrize("who", ["device-1", "aggregator"])
    async def test_last_wills_are_told(
        self, broker: ConfiguredBroker, join: Joining, topics: Topics, protocol: Protocol, who: str
    ) -> None:
        topic = topics.beacon if who == "aggregator" else topics.status(who)
        other = await join(broker.by_password("device-2" if who == "aggregator" else "aggregator"), "other")
        await other.subscribe(topic)
        async with Proxy(broker.ports[CERTIFICATE]) as proxy:
            cut_off = broker.by_certificate(who, protocol=protocol, port=proxy.port)
            await join(cut_off, who, Outgoing(topic, b"gone", retain=True))
            proxy.cut()
            assert [message.payload for message in await hears(other, topic)] == [b"gone"]

    async def test_the_broker_says_its_limits_and_they_are_those_of_the_protocol(
        self, broker: ConfiguredBroker, join: Joining
    ) -> None:
        limits = (await join(broker.by_certificate("device-1"), "device-1")).limits
        assert (limits.packet_bytes, limits.inflight) == (PACKET_BYTES, 100)

    async def test_websockets_take_the_same_accounts(
        self, broker: ConfiguredBroker, join: Joining, topics: Topics
    ) -> None:
        address = f"wss://127.0.0.1:{broker.ports[WEBSOCKET]}/mqtt"
        ca = broker.folder / "certificates/ca.pem"
        aggregator = await join(broker.by_certificate("aggregator"), "aggregator")
        await aggregator.subscribe(*topics.aggregator_filters)
        own = open_transport(address, Credentials("device-1", broker.password("device-1"), ca), protocol=5)
        with pytest.raises(BrokerRefused):
            await say(await join(own, "device-1"), topics.status("device-2"))
        await say(await join(own, "device-1"), topics.status("device-1"))
        assert topics_of(await hears(aggregator, topics.status("device-1"))) == {topics.status("device-1")}
        with pytest.raises(TransportError):
            await join(open_transport(address, Credentials("device-1", "wrong", ca), protocol=5), "device-1")


# --- what must not: saying ----------------------------------------------------------------------------------------


def forbidden_to_say(topics: Topics) -> dict[str, str]:
    return {
        "another's update": topics.update("device-2", 1),
        "another's chunk": topics.update("device-2", 1, 0),
        "another's status": topics.status("device-2"),
        "the task": topics.task,
        "the manifest": topics.manifest,
        "a model frame": topics.frame(Step(1, key=True), 0),
        "the aggregator's status": topics.beacon,
        "the report": topics.report,
        "its own receipt": topics.receipt("device-1"),
        "another's receipt": topics.receipt("device-2"),
        "a name that begins with its own": topics.update("device-10", 1),
        "its name in other case": topics.update("DEVICE-1", 1),
        "a federation's root": topics.prefix,
        "another version": f"fedmq/v2/{topics.federation}/up/device-1/status",
        "elsewhere": "elsewhere/device-1",
        "the broker's figures": "$SYS/broker/uptime",
    }


class TestSaying:
    @pytest.mark.parametrize("what", list(forbidden_to_say(Topics("x"))))
    async def test_a_device_speaks_under_its_own_name_only(
        self, what: str, broker: ConfiguredBroker, enter: Callable[[str], Transport], protocol: Protocol,
        join: Joining, topics: Topics,
    ) -> None:  # fmt: skip
        topic, own = forbidden_to_say(topics)[what], topics.status("device-1")
        witness = await join(broker.by_password("witness"), "witness")
        await witness.subscribe("#", f"{topics.prefix}/#", topic)
        forger = await join(enter("device-1"), "device-1")
        refused = await self._refused(forger, Outgoing(topic, b"forged", retain=True))
        # Debian 12's mosquitto (2.0.11-1.2+deb12u2) hangs up after a publish that it has denied.
        device = await join(enter("device-1"), "device-1")
        await say(device, own, b"own", retain=True)
        heard = [message for message in await hears(witness, own) if not message.topic.startswith("$SYS")]
        assert topics_of(heard) == {own}
        assert all(message.payload == b"own" for message in heard)
        assert refused == (NOT_AUTHORIZED if protocol == 5 else None)  # MQTT 3.1.1 has no way to say so
        await self._nothing_planted(witness, topic, own)

    async def _refused(self, device: Connection, outgoing: Outgoing) -> int | None:
        try:
            await device.publish(outgoing)
        except BrokerRefused as error:
            return error.code
        return None

    async def _nothing_planted(self, witness: Connection, topic: str, own: str) -> None:
        """Ask for what is retained on the topic; the device's own status, asked for next, ends the answer."""
        await witness.unsubscribe("#", topic)
        await witness.subscribe(topic)
        await witness.subscribe(own)
        found = {message.topic: message.payload for message in await everything(witness, {own})}
        assert found.get(topic) != b"forged"

    async def test_a_topic_alias_is_no_way_around(
        self, broker: ConfiguredBroker, join: Joining, topics: Topics
    ) -> None:
        witness = await join(broker.by_password("witness"), "witness")
        await witness.subscribe(f"{topics.prefix}/#")
        alias = Properties(PacketTypes.PUBLISH)
        alias.TopicAlias = 1
        async with raw_client(broker, "device-1") as device:
            await device.publish(topics.task, b"forged", qos=1, properties=alias)
            with contextlib.suppress(aiomqtt.MqttError):
                await device.publish("", b"forged again", qos=1, properties=alias)
        async with raw_client(broker, "device-1") as device:
            await device.publish(topics.status("device-1"), b"own", qos=1)
        assert [m.payload for m in await hears(witness, topics.status("device-1"))] == [b"own"]

    @pytest.mark.parametrize("what", ["another's status", "the aggregator's status", "the task"])
    async def test_a_forged_last_will_is_never_told(
        self, what: str, broker: ConfiguredBroker, protocol: Protocol, join: Joining, topics: Topics
    ) -> None:
        """mosquitto 2.0 takes such a will on CONNECT without a word, and must not tell it in the end."""
        witness = await join(broker.by_password("witness"), "witness")
        await witness.subscribe(f"{topics.prefix}/#")
        async with Proxy(broker.ports[CERTIFICATE]) as proxy:
            forged = Outgoing(forbidden_to_say(topics)[what], b"forged", retain=True)
            with contextlib.suppress(BrokerRefused):
                await join(
                    broker.by_certificate("device-1", protocol=protocol, port=proxy.port), "device-1", forged
                )
            proxy.cut()
            # The same client again: before it is let in, the broker is done with the one before, will and all.
            device = await join(broker.by_certificate("device-1"), "device-1")
        await say(device, topics.status("device-1"), b"own")
        assert [m.payload for m in await hears(witness, topics.status("device-1"))] == [b"own"]

    async def test_the_aggregator_does_not_speak_for_devices(
        self, broker: ConfiguredBroker, join: Joining, topics: Topics
    ) -> None:
        aggregator = await join(broker.by_certificate("aggregator"), "aggregator")
        with pytest.raises(BrokerRefused):
            await say(aggregator, topics.update("device-1", 1))

    async def test_a_packet_beyond_the_limit_ends_the_connection_unheard(
        self, broker: ConfiguredBroker, protocol: Protocol, join: Joining, topics: Topics
    ) -> None:
        witness = await join(broker.by_password("witness"), "witness")
        await witness.subscribe(f"{topics.prefix}/#")
        own = topics.status("device-1")
        with pytest.raises(aiomqtt.MqttError):
            async with raw_client(broker, "device-1", protocol) as flooding:
                await flooding.publish(topics.update("device-1", 1), bytes(PACKET_BYTES), qos=1, timeout=1)
        device = await join(broker.by_password("device-1", protocol=protocol), "device-1")
        largest = PACKET_BYTES - 200
        await say(device, topics.update("device-1", 2), bytes(largest))
        await say(device, own)
        heard = await hears(witness, own)
        assert [(m.topic, len(m.payload)) for m in heard] == [
            (topics.update("device-1", 2), largest),
            (own, 1),
        ]


def raw_client(broker: ConfiguredBroker, name: str, protocol: Literal["auto", 4, 5] = 5) -> aiomqtt.Client:
    """A client that checks nothing by itself."""
    return aiomqtt.Client(
        "127.0.0.1", broker.ports[PASSWORD], username=name, password=broker.password(name), identifier="raw",
        protocol=aiomqtt.ProtocolVersion(4 if protocol == 4 else 5), timeout=5,
        tls_context=trusting(broker),
    )  # fmt: skip


def trusting(broker: ConfiguredBroker) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=broker.folder / "certificates/ca.pem")


# --- what must not: hearing ---------------------------------------------------------------------------------------


def filters_too_far(topics: Topics) -> list[str]:
    up, down = f"{topics.prefix}/up", f"{topics.prefix}/down"
    return [
        "#", "+/#", "$SYS/#", f"{topics.prefix}/#", "fedmq/v1/+/+/+/#", f"{up}/#", f"{up}/device-2/#",
        topics.status("device-2"), topics.update("device-2", 1), f"{down}/#", f"{down}/+/receipt",
        topics.receipt("device-2"), f"$share/g/{up}/#", f"$share/g/{down}/+/receipt",
    ]  # fmt: skip


class TestHearing:
    @pytest.mark.parametrize("number", range(len(filters_too_far(Topics("x")))))
    async def test_a_device_hears_what_is_for_all_and_for_itself_only(
        self,
        number: int,
        broker: ConfiguredBroker,
        enter: Callable[[str], Transport],
        join: Joining,
        topics: Topics,
    ) -> None:
        heard = await self._heard_by(enter("device-1"), filters_too_far(topics)[number], broker, join, topics)
        assert heard == {topics.task}

    async def test_the_attack_would_show_a_leak(
        self, broker: ConfiguredBroker, join: Joining, topics: Topics
    ) -> None:
        heard = await self._heard_by(
            broker.by_password("witness"), f"{topics.prefix}/#", broker, join, topics
        )
        assert {topics.status("device-2"), topics.update("device-2", 1), topics.receipt("device-2")} < heard

    async def _heard_by(
        self, listener: Transport, spied: str, broker: ConfiguredBroker, join: Joining, topics: Topics
    ) -> set[str]:
        """Return on which topics `listener` hears others' secrets, retained before it came or said while it listens."""
        aggregator = await join(broker.by_password("aggregator"), "aggregator")
        victim = await join(broker.by_certificate("device-2"), "device-2")
        await say(victim, topics.status("device-2"), b"retained secret", retain=True)
        spy = await join(listener, "device-1")
        with contextlib.suppress(BrokerRefused):
            await spy.subscribe(spied)
        await spy.subscribe(topics.task)
        await say(victim, topics.update("device-2", 1), b"secret")
        await say(victim, topics.status("device-2"), b"secret")
        await say(aggregator, topics.receipt("device-2"), b"secret")
        await say(aggregator, topics.task, b"for all")
        heard = topics_of(await everything(spy, {topics.task}))
        return {topic for topic in heard if topic.startswith(topics.prefix) or "/all/" not in topic}


# --- what must not: coming in -------------------------------------------------------------------------------------


class TestComingIn:
    async def test_without_an_account(
        self, broker: ConfiguredBroker, join: Joining, protocol: Protocol
    ) -> None:
        with pytest.raises(BrokerRefused):
            await join(broker.by_password(None, protocol=protocol), "device-1")

    @pytest.mark.parametrize("account", ["device-1", "aggregator", "nobody"])
    async def test_with_a_wrong_password(
        self, account: str, broker: ConfiguredBroker, join: Joining, protocol: Protocol
    ) -> None:
        with pytest.raises(BrokerRefused):
            await join(broker.by_password(account, "wrong", protocol=protocol), "device-1")

    async def test_with_a_name_but_no_password(self, broker: ConfiguredBroker) -> None:
        with pytest.raises(aiomqtt.MqttError):
            async with aiomqtt.Client(
                "127.0.0.1", broker.ports[PASSWORD], username="aggregator", tls_context=trusting(broker)
            ):
                pass

    async def test_with_a_certificate_of_another_authority(
        self, broker: ConfiguredBroker, join: Joining, tmp_path: Path, protocol: Protocol
    ) -> None:
        shutil.copy(broker.folder / "make_certificates.sh", tmp_path)
        script(tmp_path, "make_certificates.sh", "device", "device-1")
        stranger = broker.by_certificate(
            "device-1", certificates=tmp_path / "certificates", protocol=protocol
        )
        with pytest.raises(TransportError):
            await join(stranger, "device-1")

    async def test_with_no_certificate_but_a_password(self, broker: ConfiguredBroker, join: Joining) -> None:
        credentials = Credentials(
            "device-1", broker.password("device-1"), broker.folder / "certificates/ca.pem"
        )
        with pytest.raises(TransportError):
            await join(
                open_transport(f"mqtts://127.0.0.1:{broker.ports[CERTIFICATE]}", credentials), "device-1"
            )

    async def test_with_the_broker_s_own_certificate(self, broker: ConfiguredBroker, join: Joining) -> None:
        own = broker.folder / "certificates"
        credentials = Credentials(None, None, own / "ca.pem", own / "broker.pem", own / "broker.key")
        with pytest.raises(TransportError):
            await join(
                open_transport(f"mqtts://127.0.0.1:{broker.ports[CERTIFICATE]}", credentials), "broker"
            )

    async def test_a_user_name_beside_a_certificate_changes_nothing(
        self, broker: ConfiguredBroker, join: Joining, topics: Topics, protocol: Protocol
    ) -> None:
        witness = await join(broker.by_password("witness"), "witness")
        await witness.subscribe(f"{topics.prefix}/#")
        disguised = broker.by_certificate("device-1", user="device-2", protocol=protocol)
        with contextlib.suppress(BrokerRefused):
            await say(await join(disguised, "device-2"), topics.status("device-2"))
        await say(await join(disguised, "device-2"), topics.status("device-1"))
        assert topics_of(await hears(witness, topics.status("device-1"))) == {topics.status("device-1")}

    async def test_under_the_client_identifier_of_another(
        self, broker: ConfiguredBroker, join: Joining, topics: Topics, enter: Callable[[str], Transport]
    ) -> None:
        """Whoever can take a session over can throw its owner out, and wipe what is queued for it."""
        device = await join(broker.by_certificate("device-1"), "device-1")
        await device.subscribe(topics.receipt("device-1"))
        await join(enter("device-2"), "device-1")
        aggregator = await join(broker.by_password("aggregator"), "aggregator")
        await say(aggregator, topics.receipt("device-1"))
        assert topics_of(await hears(device, topics.receipt("device-1"))) == {topics.receipt("device-1")}

    @pytest.mark.parametrize(("version", "granted"), [("-tls1_1", 0), ("-tls1_2", 1), ("-tls1_3", 1)])
    @pytest.mark.parametrize("port", [PASSWORD, WEBSOCKET])
    def test_old_tls_is_refused(
        self, broker: ConfiguredBroker, port: int, version: str, granted: int
    ) -> None:
        done = subprocess.run(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{broker.ports[port]}", version, "-cipher",
             "DEFAULT@SECLEVEL=0"],
            input="", capture_output=True, text=True, check=False, timeout=20,
        )  # fmt: skip
        assert (done.returncode == 0) == granted, done.stderr

    def test_no_other_port_is_open(self, broker: ConfiguredBroker) -> None:
        opened = set(map(int, re.findall(r"listen socket on port (\d+)", broker.log())))
        assert opened == {broker.ports[CERTIFICATE], broker.ports[PASSWORD], broker.ports[WEBSOCKET]}
