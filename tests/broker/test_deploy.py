"""deploy/: compose file, Dockerfile and systemd units, held against each other and against what they name.

No container engine is needed: what the files say is checked here, and what they run is run by other means (the install
step in a fresh environment, the health checks against a real broker).
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a package of their own

from fedmq.config import AggregatorFile, load
from fedmq.protocol.messages import Beacon
from fedmq.transport.interface import Outgoing, Profile
from fedmq.wire.envelope import encode
from fedmq.wire.topics import Topics
from tests.broker.configured_broker import (
    BROKER_CONFIG,
    CERTIFICATE,
    PASSWORD,
    REPOSITORY,
    ConfiguredBroker,
    provision,
    script,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPLOY = REPOSITORY / "deploy"
SYSTEMD = DEPLOY / "systemd"
PI_UNIT = REPOSITORY / "devices/raspberry_pi/fedmq-device.service"
MEMORY_UNITS = {"k": 2**10, "m": 2**20, "g": 2**30, "K": 2**10, "M": 2**20, "G": 2**30}


def substituted(text: str, environment: dict[str, str] | None = None) -> str:
    """Fill in ``${NAME:-default}`` as compose does, and undo its doubled dollars."""
    known = environment or {}
    filled = re.sub(r"(?<!\$)\$\{(\w+):-([^}]*)\}", lambda found: known.get(found[1], found[2]), text)
    assert not re.search(r"(?<!\$)\$(?!\$)", filled), "a variable without a default"
    return filled.replace("$$", "$")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    read = yaml.safe_load(substituted((DEPLOY / "docker-compose.yml").read_text()))
    assert isinstance(read, dict)
    return read


def in_bytes(text: str) -> int:
    return int(text[:-1]) * MEMORY_UNITS[text[-1]]


def setting(option: str, path: Path = BROKER_CONFIG / "production.conf") -> str:
    found = re.search(rf"^{option} (.*)$", path.read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


class TestCompose:
    def test_it_has_the_shape_that_compose_reads(self, compose: dict[str, Any]) -> None:
        assert set(compose) == {"name", "x-hardened", "services", "volumes", "secrets"}
        known = {"image", "build", "user", "working_dir", "command", "ports", "volumes", "secrets", "tmpfs"}
        known |= {
            "mem_limit",
            "pids_limit",
            "ulimits",
            "healthcheck",
            "init",
            "depends_on",
            "stop_grace_period",
        }
        known |= set(compose["x-hardened"])
        for service in compose["services"].values():
            assert set(service) <= known
            assert set(service["healthcheck"]) == {"test", "interval", "timeout", "retries", "start_period"}
        assert all(set(secret) == {"file"} for secret in compose["secrets"].values())

    @pytest.mark.parametrize("service", ["broker", "aggregator"])
    def test_each_service_is_hardened(self, compose: dict[str, Any], service: str) -> None:
        one = compose["services"][service]
        assert one["read_only"] is True
        assert one["cap_drop"] == ["ALL"]
        assert one["security_opt"] == ["no-new-privileges:true"]
        assert one["restart"] == "unless-stopped"
        assert one["mem_limit"]
        assert one["pids_limit"]

    def test_nobody_is_root(self, compose: dict[str, Any]) -> None:
        assert compose["services"]["broker"]["user"] == "1883:1883"
        assert re.findall(r"^USER (.*)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE) == ["fedmq"]

    def test_whatever_is_used_is_declared_and_the_other_way_round(self, compose: dict[str, Any]) -> None:
        used_secrets, used_volumes = set(), set()
        for service in compose["services"].values():
            used_secrets |= {s if isinstance(s, str) else s["source"] for s in service["secrets"]}
            used_volumes |= {v.split(":")[0] for v in service["volumes"] if not v.startswith(".")}
        assert used_secrets == set(compose["secrets"])
        assert used_volumes == set(compose["volumes"])

    def test_every_mounted_file_is_in_the_repository_or_made_by_its_scripts(
        self, compose: dict[str, Any], state: Path
    ) -> None:
        sources = [v.split(":")[0] for s in compose["services"].values() for v in s["volumes"]]
        sources += [secret["file"] for secret in compose["secrets"].values()]
        files = [source for source in sources if source.startswith(".")]
        assert len(files) >= 10
        for file in files:
            inside = file.removeprefix("./state/")
            assert (state / inside if inside != file else DEPLOY / file).exists(), file

    def test_only_state_is_writable(self, compose: dict[str, Any]) -> None:
        for service in compose["services"].values():
            for volume in service["volumes"]:
                assert volume.endswith(":ro") or volume.split(":")[0] in compose["volumes"]

    def test_the_broker_finds_all_that_its_configuration_names(self, compose: dict[str, Any]) -> None:
        broker = compose["services"]["broker"]
        there = {v.split(":")[1] for v in broker["volumes"]}
        there |= {s["target"] for s in broker["secrets"] if isinstance(s, dict)}
        text = (BROKER_CONFIG / "production.conf").read_text()
        named = re.findall(r"^(?:\w*file|include_dir|persistence_location) (.*?)/?$", text, re.MULTILINE)
        assert len(named) >= 8
        assert {f"{broker['working_dir']}/{name}" for name in named} <= there
        assert f"{broker['working_dir']}/{broker['command'][-1]}" in there

    def test_ports_are_those_of_the_broker(self, compose: dict[str, Any]) -> None:
        inside = {int(port.split(":")[1]) for port in compose["services"]["broker"]["ports"]}
        listeners = re.findall(
            r"^listener (\d+)", (BROKER_CONFIG / "production.conf").read_text(), re.MULTILINE
        )
        assert inside == {int(port) for port in listeners} == {CERTIFICATE, PASSWORD}

    def test_the_container_has_more_memory_than_the_broker_takes(self, compose: dict[str, Any]) -> None:
        limit = int(setting("memory_limit"))
        assert in_bytes(compose["services"]["broker"]["mem_limit"]) > limit
        assert in_bytes(unit_value(SYSTEMD / "mosquitto.service.d/fedmq.conf", "MemoryMax")) > limit

    def test_the_example_environment_names_each_variable_with_its_default(self) -> None:
        text = (DEPLOY / "docker-compose.yml").read_text()
        wanted = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", text))
        lines = (DEPLOY / ".env.example").read_text().splitlines()
        given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
        assert given == wanted

    def test_the_aggregator_finds_all_that_its_file_names(self, compose: dict[str, Any]) -> None:
        aggregator = compose["services"]["aggregator"]
        there = {v.split(":")[1] for v in aggregator["volumes"]}
        there |= {s["target"] if isinstance(s, dict) else f"/run/secrets/{s}" for s in aggregator["secrets"]}
        read = tomllib.loads((DEPLOY / "federation.toml").read_text())
        assert aggregator["command"] == ["aggregate", "/etc/fedmq/federation.toml"]
        for name in (read["model"]["file"], read["broker"]["password_file"], read["broker"]["ca_file"]):
            assert str(Path("/etc/fedmq") / name) in there
        assert str(Path(read["federation"]["folder"]).parent) in there
        assert set(aggregator["healthcheck"]["test"][2:]) <= there

    def test_the_aggregator_calls_the_broker_by_its_service_s_name(self, compose: dict[str, Any]) -> None:
        address = load(DEPLOY / "federation.toml", AggregatorFile).broker.address
        assert address == f"mqtts://broker:{PASSWORD}"
        assert "broker" in compose["services"]

    def test_the_broker_s_certificate_is_good_for_that_name(self, state: Path) -> None:
        for name in ("broker", "localhost"):
            done = subprocess.run(
                ["openssl", "verify", "-CAfile", state / "certificates/ca.pem", "-verify_hostname", name,
                 state / "certificates/broker.pem"],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr

    @pytest.mark.skipif(
        shutil.which("docker") is None, reason="no docker client; what it reads is asserted above"
    )
    def test_docker_reads_it_as_well(self, state: Path) -> None:
        if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
            pytest.skip("this docker client has no compose; what it would read is asserted above")
        subprocess.run(
            ["docker", "compose", "-f", DEPLOY / "docker-compose.yml", "config", "--quiet"],
            check=True, env={**os.environ, "FEDMQ_STATE": str(state)},
        )  # fmt: skip


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What README.md says to make: each command of its list, run as it stands there."""
    folder = tmp_path_factory.mktemp("deploy")
    copy = shutil.copytree(DEPLOY, folder / "deploy", ignore=shutil.ignore_patterns("state"))
    for part in ("broker_config", "devices"):
        (folder / part).symlink_to(REPOSITORY / part)
    block = re.search(r"<!-- state -->\n+```\n(.*?)```", (DEPLOY / "README.md").read_text(), re.DOTALL)
    assert block is not None
    commands = block[1].replace("broker.example.org", "127.0.0.1").replace("sudo ", "true ")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(
        ["bash", "-euc", commands],
        cwd=copy,
        check=True,
        env={**os.environ, "PATH": path},
        capture_output=True,
    )
    return copy / "state"


# --- the image ----------------------------------------------------------------------------------------------------


def dockerfile_steps() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions with their arguments, continued lines joined."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines]


class TestDockerfile:
    def test_it_copies_what_is_there_and_nothing_else_is_sent_to_the_build(self) -> None:
        copies = [shlex.split(rest)[:-1] for step, rest in dockerfile_steps() if step == "COPY"]
        sources = {source for copied in copies for source in copied if not source.startswith(("--", "/opt"))}
        assert all((REPOSITORY / source).exists() for source in sources), sources
        ignored, *allowed = [
            line
            for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
            if not line.startswith("#")
        ]
        assert ignored == "*"
        assert {line[1:] for line in allowed if line.startswith("!")} == sources

    def test_it_takes_a_python_that_fedmq_supports(self) -> None:
        bases = {rest.split()[0] for step, rest in dockerfile_steps() if step == "FROM"}
        assert bases == {"python:3.13-slim"}
        project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
        assert "Programming Language :: Python :: 3.13" in project["classifiers"]

    def test_its_command_is_one_of_fedmq(self) -> None:
        steps = dict(dockerfile_steps())
        assert (steps["ENTRYPOINT"], steps["CMD"]) == (
            '["fedmq"]',
            '["aggregate", "/etc/fedmq/federation.toml"]',
        )

    @pytest.mark.slow
    @pytest.mark.install
    @pytest.mark.timeout(600)
    def test_its_install_step_gives_an_aggregator_without_a_framework(self, tmp_path: Path) -> None:
        """Run the RUN lines of the first stage in a folder that holds what COPY brings."""
        source, prefix = tmp_path / "source", tmp_path / "opt"
        source.mkdir()
        for step, rest in dockerfile_steps():
            *copied, target = shlex.split(rest)
            if step == "COPY" and not copied[0].startswith("--"):
                for name in copied:
                    self._copy(REPOSITORY / name, source / target)
            if step == "RUN" and "/opt/fedmq" in rest:
                command = rest.replace("/opt/fedmq", str(prefix)).replace(
                    "python -m venv", f"{sys.executable} -m venv"
                )
                subprocess.run(["bash", "-euc", command], cwd=source, check=True, capture_output=True)
        program = prefix / "bin/fedmq"
        checked = subprocess.run(
            [program, "aggregate", "--check", self._readable(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "federation  watch" in checked.stdout, checked.stderr
        listed = subprocess.run(
            [prefix / "bin/pip", "list"], capture_output=True, text=True, check=True
        ).stdout
        assert "tensorflow" not in listed
        assert "keras" not in listed

    def _copy(self, what: Path, target: Path) -> None:
        if what.is_dir():
            shutil.copytree(what, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.mkdir(exist_ok=True)
            shutil.copy(what, target)

    def _readable(self, folder: Path) -> Path:
        """Return the example with a password and a certificate that exist here."""
        shutil.copy(BROKER_CONFIG / "make_certificates.sh", folder)
        script(folder, "make_certificates.sh", "-d", ".", "broker", "broker")
        (folder / "password").write_text("secret\n")
        text = (
            (DEPLOY / "federation.toml").read_text().replace("/run/secrets/aggregator_password", "password")
        )
        (folder / "federation.toml").write_text(text)
        return folder / "federation.toml"


# --- systemd ----------------------------------------------------------------------------------------------------------

UNITS = {
    "aggregator": (SYSTEMD / "fedmq-aggregator.service", 1.5),
    "device": (PI_UNIT, 1.8),
    "mosquitto": (SYSTEMD / "mosquitto.service.d/fedmq.conf", 1.6),
}
"""Units with the highest exposure (0 to 10, by systemd's own measure) that each may have."""

DEBIAN_UNIT = """\
[Unit]
Description=Mosquitto MQTT Broker
After=network.target
Wants=network.target

[Service]
Type=notify
NotifyAccess=main
ExecStart=/usr/sbin/mosquitto -c /etc/mosquitto/mosquitto.conf
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
ExecStartPre=/bin/mkdir -m 740 -p /var/log/mosquitto

[Install]
WantedBy=multi-user.target
"""
"""What Debian's package ships, shortened."""


def unit_values(path: Path, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", path.read_text(), re.MULTILINE)


def unit_value(path: Path, key: str) -> str:
    *_, last = unit_values(path, key)
    return last


def systemd_analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed; the units' content is asserted above")
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(params=list(UNITS))
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, float]:
    """A unit as systemd would load it, its programs replaced by one that is on this machine."""
    path, exposure = UNITS[request.param]
    if path.suffix == ".conf":
        (tmp_path / "mosquitto.service").write_text(DEBIAN_UNIT)
        (tmp_path / "mosquitto.service.d").mkdir()
        installed = tmp_path / "mosquitto.service.d" / path.name
    else:
        installed = tmp_path / path.name
    text = re.sub(r"^(ExecStart=)/\S+", r"\1/bin/true", path.read_text(), flags=re.MULTILINE)
    installed.write_text(text)
    return (tmp_path / "mosquitto.service" if path.suffix == ".conf" else installed), exposure


class TestUnits:
    def test_systemd_has_nothing_to_say_against_it(self, unit: tuple[Path, float]) -> None:
        done = systemd_analyze("verify", "--man=no", unit[0])
        assert (done.returncode, done.stderr) == (0, "")

    def test_it_is_exposed_no_more_than_this(self, unit: tuple[Path, float]) -> None:
        path, exposure = unit
        done = systemd_analyze("security", "--offline=true", "--no-pager", path)
        found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
        assert found is not None, done.stderr
        assert float(found[1]) <= exposure

    @pytest.mark.parametrize("name", list(UNITS))
    def test_what_must_never_be_missing(self, name: str) -> None:
        path, _ = UNITS[name]
        wanted = {
            "NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "CapabilityBoundingSet": "",
            "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
        }  # fmt: skip
        assert {key: unit_value(path, key) for key in wanted} == wanted
        assert unit_value(path, "Restart") in {"always", "on-failure"}
        assert unit_value(path, "MemoryMax")

    def test_the_password_goes_by_credential(self) -> None:
        path, _ = UNITS["aggregator"]
        name, source = unit_value(path, "LoadCredential").split(":")
        read = tomllib.loads((SYSTEMD / "federation.toml").read_text())["broker"]
        assert read["password_file"] == f"/run/credentials/{path.name}/{name}"
        assert source == "/etc/fedmq/aggregator.password"
        assert unit_value(path, "DynamicUser") == "yes"
        assert tomllib.loads((SYSTEMD / "federation.toml").read_text())["federation"]["folder"].startswith(
            f"/var/lib/{unit_value(path, 'StateDirectory')}/"
        )

    def test_the_broker_starts_the_production_configuration_in_its_own_folder(self) -> None:
        path, _ = UNITS["mosquitto"]
        assert unit_values(path, "ExecStart") == ["", "/usr/sbin/mosquitto -c production.conf"]
        assert (
            unit_value(path, "WorkingDirectory")
            in (REPOSITORY / "docs/how-to/deploy-mosquitto.md").read_text()
        )

    def test_each_service_starts_a_command_of_fedmq(self) -> None:
        from click.testing import CliRunner

        from fedmq.cli import main

        for name in ("aggregator", "device"):
            program, command, _ = unit_value(UNITS[name][0], "ExecStart").split()
            assert program == "/opt/fedmq/bin/fedmq"
            assert CliRunner().invoke(main, [command, "--help"]).exit_code == 0


class TestExampleFederation:
    @pytest.mark.parametrize("path", [DEPLOY / "federation.toml", SYSTEMD / "federation.toml"])
    def test_it_loads(self, path: Path) -> None:
        read = load(path, AggregatorFile)
        assert read.settings().name == "watch"
        assert read.broker.user == "aggregator"
        assert read.rounds.min_devices >= read.rounds.quorum > 1

    def test_both_are_one_federation(self) -> None:
        one, other = (tomllib.loads((folder / "federation.toml").read_text()) for folder in (DEPLOY, SYSTEMD))
        assert set(one.pop("broker")) == set(other.pop("broker"))
        assert one == other

    def test_the_account_is_the_one_that_the_access_list_knows(self) -> None:
        users = re.findall(r"^user (.*)$", (BROKER_CONFIG / "acl").read_text(), re.MULTILINE)
        assert users == ["aggregator", "monitor"]


# --- the health checks, against a real broker -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def broker(
    tmp_path_factory: pytest.TempPathFactory, _mosquitto_installed: None
) -> Iterator[ConfiguredBroker]:
    folder = provision(tmp_path_factory.mktemp("broker"))
    script(folder, "add_account.sh", "monitor")
    with ConfiguredBroker(folder, "production.conf") as running:
        yield running


@pytest.mark.broker
class TestHealth:
    def test_the_broker_s(self, broker: ConfiguredBroker, compose: dict[str, Any]) -> None:
        kind, command = compose["services"]["broker"]["healthcheck"]["test"]
        assert kind == "CMD-SHELL"
        here = command.replace("/run/secrets/monitor_password", f"{broker.folder}/monitor.password")
        for working, port in ((True, broker.ports[PASSWORD]), (False, broker.ports[CERTIFICATE])):
            done = subprocess.run(
                ["sh", "-c", here.replace(f"-p {PASSWORD}", f"-p {port}")], cwd=broker.folder, capture_output=True,
                text=True, check=False, timeout=20,
            )  # fmt: skip
            assert (done.returncode == 0) is working, done.stderr

    async def test_the_aggregator_s(self, broker: ConfiguredBroker, tmp_path: Path) -> None:
        settings, topics = self._settings(broker, tmp_path), Topics("watch")
        assert await self._check(settings, broker) == (1, "no word from the aggregator within 1 s\n")

        def beacon(*, alive: bool) -> Outgoing:
            return Outgoing(topics.beacon, encode(Beacon(alive, bytes(8), 1)), retain=True)

        connection = await broker.by_password("aggregator").connect(
            Profile("fedmq-watch-aggregator", durable=False)
        )
        try:
            await connection.publish(beacon(alive=True))
            assert await self._check(settings, broker) == (0, "")
            await connection.publish(beacon(alive=False))
            assert await self._check(settings, broker) == (
                1,
                "the aggregator is not connected to the broker\n",
            )
            # It came by another account: the aggregator's own session is as it was.
            await connection.publish(beacon(alive=True))
        finally:
            await connection.close()

    def _settings(self, broker: ConfiguredBroker, folder: Path) -> Path:
        text = (DEPLOY / "federation.toml").read_text()
        text = text.replace("mqtts://broker:8884", f"mqtts://127.0.0.1:{broker.ports[PASSWORD]}")
        text = text.replace('"ca.pem"', f'"{broker.folder}/certificates/ca.pem"')
        (folder / "federation.toml").write_text(text)
        return folder / "federation.toml"

    async def _check(self, settings: Path, broker: ConfiguredBroker) -> tuple[int | None, str]:
        program = (
            (DEPLOY / "check_aggregator.py").read_text().replace("PATIENCE_S = 10.0", "PATIENCE_S = 1.0")
        )
        (settings.parent / "check.py").write_text(program)
        process = await asyncio.create_subprocess_exec(
            sys.executable, settings.parent / "check.py", settings, broker.folder / "monitor.password",
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, words = await process.communicate()
        return process.returncode, words.decode()
