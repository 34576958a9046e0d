"""The two files that people write: an aggregator's and a device's, table by table."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fedmq.aggregator.encodings import DEFAULT, ENCODINGS
from fedmq.aggregator.settings import Encoding, Federation
from fedmq.algorithms import Algorithm, Plain
from fedmq.device.interface import ModuleName
from fedmq.device.metering import LinkTable
from fedmq.errors import ConfigError
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.rules import AnyRule, preset
from fedmq.store.archive import KeepUpdates
from fedmq.transport.address import Credentials, open_transport

if TYPE_CHECKING:
    from fedmq.transport.interface import Transport

PASSWORD_VARIABLE = "FEDMQ_PASSWORD"  # noqa: S105 - the variable's name
"""Environment variable that holds the broker password where no password_file is named."""


@dataclass(frozen=True, slots=True)
class BrokerTable:
    """``[broker]``: where the broker is, and what proves us to it.

    address: ``mqtt://host:port``, ``mqtts://`` for TLS, ``ws://`` and ``wss://`` for websockets.
    protocol: ``auto`` tries MQTT 5 first; 5 or 4 (MQTT 3.1.1) insist.
    """

    address: str = "mqtt://localhost:1883"
    user: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    protocol: Literal["auto", 4, 5] = "auto"

    def open(self) -> Transport:
        """Return the transport to this broker. Raises ConfigError."""
        credentials = Credentials(self.user, self._password(), self.ca_file, self.cert_file, self.key_file)
        return open_transport(self.address, credentials, protocol=self.protocol)

    def _password(self) -> str | None:
        if self.password_file is None:
            return os.environ.get(PASSWORD_VARIABLE)
        try:
            return self.password_file.read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            raise ConfigError(f"cannot read password_file {self.password_file}: {error.strerror}") from None


@dataclass(frozen=True, slots=True)
class ModelTable:
    """``[model]``: where the first model comes from; one of the two.

    module: the user's Python module with a function ``model()``; it is run once, in a process of its own.
    file: a model file that ``fedmq init`` made, for an aggregator without the training framework.
    personal: patterns of layers that stay on the devices, the same as in these' trainer options.
    """

    module: ModuleName | None = None
    file: Path | None = None
    trainer: str = "keras"
    personal: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise ConfigError unless exactly one is given, or for layers that a file has settled already."""
        if (self.module is None) == (self.file is None):
            raise ConfigError(
                "wants either `module` (your Python file) or `file` (from `fedmq init`), one of the two"
            )
        if self.personal and self.file is not None:
            raise ConfigError(
                "personal goes with `module`; for a `file`, name layers as `fedmq init --personal`"
            )


@dataclass(frozen=True, slots=True)
class FederationTable:
    """``[federation]``: its name, and the folder in which the aggregator keeps its checkpoints and journal."""

    name: str
    folder: Path


@dataclass(frozen=True, slots=True)
class AggregatorFile:
    """What ``fedmq aggregate`` reads."""

    federation: FederationTable
    model: ModelTable
    broker: BrokerTable = field(default_factory=BrokerTable)
    rounds: Policy = field(default_factory=Policy)
    stop: StopWhen = field(default_factory=StopWhen)
    rule: AnyRule = field(default_factory=lambda: preset("fedavg"))
    encoding: Encoding = ENCODINGS[DEFAULT]
    training: dict[str, bool | int | float | str] = field(default_factory=dict)
    store: KeepUpdates = field(default_factory=KeepUpdates)
    algorithm: Algorithm = field(default_factory=Plain)

    def __post_init__(self) -> None:
        """Raise ConfigError where the tables do not go together."""
        self.settings()

    def settings(self) -> Federation:
        """Return the federation that the file describes. Raises ConfigError."""
        return Federation(
            self.federation.name,
            self.rule,
            self.rounds,
            self.stop,
            self.encoding,
            self.training,
            self.algorithm,
        )


@dataclass(frozen=True, slots=True)
class DeviceTable:
    """``[device]``: which federation, and under what name.

    name: the host's name where none is given. folder: where the outbox lives.
    stay: wait for another run when the federation has ended, as a service should.
    """

    federation: str
    folder: Path
    name: str = ""
    stay: bool = False

    @property
    def device(self) -> str:
        """The device's name."""
        return self.name or socket.gethostname()


@dataclass(frozen=True, slots=True)
class TrainerTable:
    """``[trainer]``: who trains, on what.

    module: the user's Python module with ``model()`` and ``data(device)``.
    kind: ``keras``, ``litert``, ``numpy``, or the dotted name of a function ``package.module:build`` of one's own.
    options: what that engine takes, such as ``threads`` or ``personal`` layers.
    """

    module: ModuleName
    kind: str = "keras"
    options: dict[str, bool | int | float | str | list[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeviceFile:
    """What ``fedmq device`` reads."""

    device: DeviceTable
    trainer: TrainerTable
    broker: BrokerTable = field(default_factory=BrokerTable)
    link: LinkTable = field(default_factory=LinkTable)
