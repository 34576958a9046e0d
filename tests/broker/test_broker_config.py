"""broker_config: both files started as they stand, what outlives a restart, and the scripts beside them."""

from __future__ import annotations

import asyncio
import re
import shutil
import ssl
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from fedmq.errors import BrokerRefused, TransportError
from fedmq.transport.address import Credentials, open_transport
from fedmq.transport.interface import Outgoing, Profile
from fedmq.wire.limits import PACKET_BYTES
from fedmq.wire.topics import Topics
from tests.broker.configured_broker import (
    BROKER_CONFIG,
    DEVICES,
    ConfiguredBroker,
    everything,
    hears,
    provision,
    run_script,
    script,
    topics_of,
)

if TYPE_CHECKING:
    from pathlib import Path

    from fedmq.transport.interface import Connection, Transport

pytestmark = pytest.mark.broker

TOPICS = Topics("watch")


@pytest.fixture(scope="session")
def provisioned(tmp_path_factory: pytest.TempPathFactory, _mosquitto_installed: None) -> Path:
    return provision(tmp_path_factory.mktemp("broker-template"))


@pytest.fixture
def folder(provisioned: Path, tmp_path: Path) -> Path:
    """A provisioned folder of the test's own."""
    shutil.copytree(provisioned, tmp_path / "broker")
    return tmp_path / "broker"


async def join(transport: Transport, name: str, *, durable: bool = False) -> Connection:
    return await transport.connect(Profile(f"fedmq-watch-{name}", durable=durable))


async def flood(connection: Connection, count: int, payload: bytes = b"update") -> None:
    """Publish `count` numbered updates, as one device each."""
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(connection.publish(Outgoing(TOPICS.update("device-1", number), payload)))


async def count_until(connection: Connection, topic: str) -> int:
    return len(topics_of(await everything(connection, {topic}))) - 1


class TestDevelopment:
    async def test_anyone_on_this_machine_may_do_everything(self, folder: Path) -> None:
        with ConfiguredBroker(folder, "development.conf") as broker:
            transport = open_transport(f"mqtt://127.0.0.1:{broker.ports[1883]}", Credentials(), protocol=5)
            one, other = await join(transport, "aggregator"), await join(transport, "device-1")
            await one.subscribe("#")
            await other.publish(Outgoing(TOPICS.status("device-1"), b"x"))
            assert topics_of(await hears(one, TOPICS.status("device-1"))) == {TOPICS.status("device-1")}
            assert one.limits.packet_bytes == PACKET_BYTES
            await one.close()
            await other.close()

    async def test_a_fleet_s_updates_wait_for_a_slow_aggregator(self, folder: Path) -> None:
        """With mosquitto's own settings, 1,000 of these would arrive, and all would be acknowledged."""
        with ConfiguredBroker(folder, "development.conf") as broker:
            transport = open_transport(f"mqtt://127.0.0.1:{broker.ports[1883]}", Credentials(), protocol=5)
            assert await updates_after_absence(transport, transport, 1_500) == 1_500

    def test_it_listens_on_loopback_only(self) -> None:
        text = (BROKER_CONFIG / "development.conf").read_text()
        assert re.findall(r"^listener .*$", text, re.MULTILINE) == ["listener 1883 127.0.0.1"]


async def updates_after_absence(aggregators: Transport, devices: Transport, count: int) -> int:
    """Return how many of `count` updates come to an aggregator that was away while they were sent."""
    aggregator = await join(aggregators, "aggregator", durable=True)
    await aggregator.subscribe(*TOPICS.aggregator_filters)
    await aggregator.close()
    device = await join(devices, "device-1")
    await flood(device, count)
    await device.publish(Outgoing(TOPICS.status("device-1"), b"last"))
    await device.close()
    aggregator = await join(aggregators, "aggregator", durable=True)
    try:
        return await count_until(aggregator, TOPICS.status("device-1"))
    finally:
        await aggregator.close()


def remove_account(folder: Path, name: str) -> None:
    subprocess.run(["mosquitto_passwd", "-D", "passwords", name], cwd=folder, check=True)


class TestProduction:
    async def test_a_fleet_s_updates_wait_for_an_absent_aggregator(self, folder: Path) -> None:
        with ConfiguredBroker(folder, "production.conf") as broker:
            arrived = await updates_after_absence(
                broker.by_certificate("aggregator"), broker.by_password("device-1"), 1_500
            )
        assert arrived == 1_500

    async def test_the_queue_s_limit_is_what_lets_them_wait(self, folder: Path) -> None:
        usual = [("max_queued_messages 0", "max_queued_messages 1000")]
        with ConfiguredBroker(folder, "production.conf", usual) as broker:
            aggregators, devices = broker.by_certificate("aggregator"), broker.by_password("device-1")
            aggregator = await join(aggregators, "aggregator", durable=True)
            await aggregator.subscribe(*TOPICS.aggregator_filters)
            await aggregator.close()
            device = await join(devices, "device-1")
            await flood(device, 1_500)
            aggregator = await join(aggregators, "aggregator", durable=True)
            await everything(aggregator, {TOPICS.update("device-1", number) for number in range(1_000)})
            await device.publish(Outgoing(TOPICS.status("device-1"), b"last"))
            assert await count_until(aggregator, TOPICS.status("device-1")) == 0
            await aggregator.close()
            await device.close()

    async def test_what_waits_survives_a_restart(self, folder: Path) -> None:
        with ConfiguredBroker(folder, "production.conf") as broker:
            device = await join(broker.by_certificate("device-1"), "device-1", durable=True)
            await device.subscribe(*TOPICS.device_filters("device-1"))
            await device.close()
            aggregator = await join(broker.by_certificate("aggregator"), "aggregator")
            await aggregator.publish(Outgoing(TOPICS.task, b"task", retain=True))
            await aggregator.publish(Outgoing(TOPICS.receipt("device-1"), b"receipt"))
            await aggregator.close()
            broker.restart()
            device = await join(broker.by_certificate("device-1"), "device-1", durable=True)
            assert device.limits.session_present
            assert TOPICS.receipt("device-1") in topics_of(await hears(device, TOPICS.receipt("device-1")))
            await device.close()
            late = await join(broker.by_certificate("device-2"), "device-2")
            await late.subscribe(TOPICS.task)
            assert [message.payload for message in await everything(late, {TOPICS.task})] == [b"task"]
            await late.close()

    async def test_memory_has_an_end_and_the_broker_outlives_it(self, folder: Path) -> None:
        smaller = [("memory_limit 1073741824", "memory_limit 4000000")]
        with ConfiguredBroker(folder, "production.conf", smaller) as broker:
            aggregator = await join(broker.by_certificate("aggregator"), "aggregator", durable=True)
            await aggregator.subscribe(*TOPICS.aggregator_filters)
            await aggregator.close()
            device = await join(broker.by_password("device-1"), "device-1")
            with pytest.raises(ExceptionGroup, match="unhandled"):
                await flood(device, 100, bytes(100_000))
            aggregator = await join(broker.by_certificate("aggregator"), "aggregator", durable=True)
            await everything(aggregator, {TOPICS.update("device-1", 0)})
            await aggregator.close()

    async def test_a_lost_device_is_kept_out(self, folder: Path) -> None:
        with ConfiguredBroker(folder, "production.conf") as broker:
            lost = broker.by_certificate("lost-device")
            await (await join(lost, "lost-device")).close()
            kept = shutil.copytree(folder / "certificates", folder / "stolen")
            script(folder, "make_certificates.sh", "revoke", "lost-device")
            broker.restart()
            with pytest.raises(TransportError):
                await join(broker.by_certificate("lost-device", certificates=kept), "lost-device")
            await (await join(broker.by_certificate("device-1"), "device-1")).close()

    async def test_either_of_two_lines_keeps_the_nameless_out(self, folder: Path) -> None:
        """A session named after its account is refused where there is none, too; each line must hold alone."""
        for line in ("use_username_as_clientid true", "allow_anonymous false"):
            weaker = line.replace("false", "true") if line.endswith("false") else ""
            with ConfiguredBroker(folder, "production.conf", [(line, weaker)]) as broker:
                with pytest.raises(BrokerRefused):
                    await join(broker.by_password(None), "device-1")
                await (await join(broker.by_password("device-1"), "device-1")).close()

    async def test_accounts_come_and_go_without_a_restart(self, folder: Path) -> None:
        with ConfiguredBroker(folder, "production.conf") as broker:
            script(folder, "add_account.sh", "device-3")
            broker.reload()
            await (await join(broker.by_password("device-3"), "device-3")).close()
            remove_account(folder, "device-3")
            broker.reload()
            with pytest.raises(BrokerRefused):
                await join(broker.by_password("device-3"), "device-3")


# --- the scripts ------------------------------------------------------------------------------------------------------


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestCertificates:
    def test_keys_are_for_their_owner_only(self, folder: Path) -> None:
        keys = list((folder / "certificates").rglob("*.key"))
        assert {key.stem for key in keys} == {
            "ca",
            "broker",
            *DEVICES,
            "lost-device",
            "aggregator",
            "monitor",
        }
        assert {mode(key) for key in keys} == {0o600}
        assert mode(folder / "certificates/authority") == 0o700
        assert mode(folder / "certificates/ca.pem") == 0o644

    def test_running_it_again_changes_nothing(self, folder: Path) -> None:
        def contents() -> dict[Path, bytes]:
            files = (path for path in (folder / "certificates").rglob("*") if path.is_file())
            return {path: path.read_bytes() for path in files}

        before = contents()
        script(folder, "make_certificates.sh", "broker", "broker.example.org")
        script(folder, "make_certificates.sh", "device", *DEVICES)
        assert contents() == before

    def test_a_deleted_certificate_is_made_again_for_the_same_key(self, folder: Path) -> None:
        certificate, key = (folder / f"certificates/clients/device-1.{end}" for end in ("pem", "key"))
        old, old_key = certificate.read_bytes(), key.read_bytes()
        certificate.unlink()
        script(folder, "make_certificates.sh", "device", "device-1")
        assert certificate.read_bytes() != old
        assert key.read_bytes() == old_key

    def test_python_s_strictest_check_takes_them(self, folder: Path) -> None:
        """What Python 3.13 asks for by default."""
        certificates = folder / "certificates"
        for purpose, name in (("sslserver", "broker"), ("sslclient", "clients/device-1")):
            script_said = self._verify(folder, purpose, certificates / f"{name}.pem")
            assert script_said.returncode == 0, script_said.stderr
        ssl.create_default_context(cafile=certificates / "ca.pem").verify_flags |= ssl.VERIFY_X509_STRICT

    def test_a_device_s_certificate_cannot_play_the_broker_nor_the_other_way_round(
        self, folder: Path
    ) -> None:
        certificates = folder / "certificates"
        assert self._verify(folder, "sslserver", certificates / "clients/device-1.pem").returncode != 0
        assert self._verify(folder, "sslclient", certificates / "broker.pem").returncode != 0

    def test_a_device_s_certificate_cannot_sign_others(self, folder: Path) -> None:
        certificate = folder / "certificates/clients/device-1.pem"
        text = subprocess.run(
            ["openssl", "x509", "-in", certificate, "-noout", "-text"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert "CA:FALSE" in text
        assert "Certificate Sign" not in text

    def _verify(self, folder: Path, purpose: str, certificate: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", "certificates/ca.pem", certificate],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def test_another_set_of_hosts_is_not_passed_over(self, folder: Path) -> None:
        done = run_script(folder, "make_certificates.sh", "broker", "other.example.org")
        assert done.returncode == 1
        assert "is for DNS:localhost,IP:127.0.0.1,DNS:broker.example.org: delete it" in done.stderr

    def test_addresses_and_names_are_told_apart(self, tmp_path: Path) -> None:
        shutil.copy(BROKER_CONFIG / "make_certificates.sh", tmp_path)
        script(tmp_path, "make_certificates.sh", "-d", "c", "broker", "b.example", "10.0.0.5", "fd00::5")
        text = subprocess.run(
            ["openssl", "x509", "-in", tmp_path / "c/broker.pem", "-noout", "-ext", "subjectAltName"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        for entry in (
            "DNS:localhost",
            "IP Address:127.0.0.1",
            "DNS:b.example",
            "IP Address:10.0.0.5",
            "FD00:",
        ):
            assert entry.lower() in text.lower()

    @pytest.mark.parametrize(
        ("arguments", "code", "sentence"),
        [
            ([], 2, "a command is missing"),
            (["frobnicate"], 2, "no command 'frobnicate'"),
            (["broker"], 2, "wants the names or addresses"),
            (["broker", "a b"], 1, "'a b' is neither"),
            (["device"], 2, "wants the names of devices"),
            (["device", "../up"], 1, "'../up' cannot be a device's name"),
            (["device", "a" * 65], 1, "cannot be a device's name"),
            (["device", "fine", "aggregator"], 1, "'aggregator' is not free"),
            (["-D", "soon", "device", "fine"], 2, "not 'soon'"),
            (["revoke", "stranger"], 1, "no certificate"),
        ],
    )
    def test_misuse_is_one_sentence_and_makes_nothing(
        self, arguments: list[str], code: int, sentence: str, tmp_path: Path
    ) -> None:
        shutil.copy(BROKER_CONFIG / "make_certificates.sh", tmp_path)
        done = run_script(tmp_path, "make_certificates.sh", *arguments)
        assert done.returncode == code
        assert sentence in done.stderr.splitlines()[0]
        assert not (tmp_path / "certificates").exists()

    def test_an_authority_without_its_key_is_not_replaced(self, folder: Path) -> None:
        (folder / "certificates/authority/ca.key").unlink()
        done = run_script(folder, "make_certificates.sh", "device", "device-9")
        assert done.returncode == 1
        assert "bring the key here" in done.stderr


class TestAccounts:
    def test_a_password_is_stored_hashed_and_handed_out_once(self, folder: Path) -> None:
        password = (folder / "device-1.password").read_text().strip()
        assert len(password) == 32
        assert password not in (folder / "passwords").read_text()
        assert mode(folder / "device-1.password") == mode(folder / "passwords") == 0o600

    def test_an_account_that_is_there_gets_a_new_password_and_the_others_keep_theirs(
        self, folder: Path
    ) -> None:
        before = dict(line.split(":", 1) for line in (folder / "passwords").read_text().splitlines())
        script(folder, "add_account.sh", "device-1")
        after = dict(line.split(":", 1) for line in (folder / "passwords").read_text().splitlines())
        assert before.pop("device-1") != after.pop("device-1")
        assert before == after

    @pytest.mark.parametrize("name", ["a:b", "", "../up", "+", "#"])
    def test_a_name_that_cannot_be_changes_nothing(self, name: str, folder: Path) -> None:
        before = (folder / "passwords").read_bytes()
        done = run_script(folder, "add_account.sh", "device-9", name)
        assert done.returncode == 1
        assert "cannot be an account" in done.stderr
        assert (folder / "passwords").read_bytes() == before


def test_secrets_never_reach_git(folder: Path) -> None:
    (folder / "extra/own.conf").touch()
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    status = subprocess.run(
        ["git", "status", "--porcelain", "-uall"], cwd=folder, capture_output=True, text=True, check=True
    ).stdout
    seen = {line[3:] for line in status.splitlines()}
    shipped = {str(path.relative_to(BROKER_CONFIG)) for path in BROKER_CONFIG.rglob("*") if path.is_file()}
    assert seen <= shipped
    assert "production.conf" in seen


def test_every_line_is_explained() -> None:
    readme = (BROKER_CONFIG / "README.md").read_text()
    for path in [*BROKER_CONFIG.glob("*.conf"), *BROKER_CONFIG.glob("extra/*.example")]:
        for line in path.read_text().splitlines():
            option = line.split(" ")[0]
            assert option in {"", "#"} or f"`{option}" in readme, f"{path.name}: {option}"
