"""Broker addresses and credentials, and the way from them to a `Transport`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from urllib.parse import SplitResult, urlsplit

from fedmq.errors import ConfigError
from fedmq.transport.mqtt import Endpoint, MqttTransport
from fedmq.transport.packets import MQTT_3_1_1, MQTT_5
from fedmq.transport.tls import client_context

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from fedmq.transport.interface import Transport

Protocol: TypeAlias = Literal["auto", 4, 5]

PORTS: Final = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
"""Schemes of an address and their usual ports."""

WEBSOCKET_PATH: Final = "/mqtt"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What proves us to the broker, and the broker to us. Never printed whole.

    `ca_file` holds the certificates that may have signed the broker's (the system's where absent); `cert_file` and
    `key_file` are our own.
    """

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed address, ``scheme://[user@]host[:port][/path]``; `str` gives it back with its port."""

    scheme: str
    host: str
    port: int
    username: str | None = None
    path: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"

    @property
    def encrypted(self) -> bool:
        """Whether the link runs over TLS."""
        return self.scheme in {"mqtts", "wss"}

    @property
    def websocket(self) -> bool:
        """Whether the link runs over a websocket."""
        return self.scheme in {"ws", "wss"}


def parse_address(text: str) -> Address:
    """Parse an address such as ``mqtts://device-7@broker.example.org:8883``. Raises ConfigError."""
    parts = _split(text)
    if parts.password is not None:
        raise ConfigError(
            "the broker address holds a password, which would end up in logs: "
            "leave it out and use password_file or the environment"
        )
    if parts.query or parts.fragment:
        raise ConfigError(f"broker address {_shown(text)} has a part after '?' or '#': leave it out")
    return Address(parts.scheme, _host(parts, text), _port(parts, text), parts.username, _path(parts, text))


def open_transport(address: str, credentials: Credentials, *, protocol: Protocol = "auto") -> Transport:
    """Return the transport to the broker at `address`; nothing is connected yet.

    `protocol` is the MQTT version: 5, 4 (which is 3.1.1), or "auto": 5 where the broker speaks it. Raises ConfigError
    for an address or credentials that cannot be used.
    """
    parsed = parse_address(address)
    if parsed.username and credentials.username and parsed.username != credentials.username:
        raise ConfigError(
            f"broker address {parsed} names user {parsed.username!r}, the settings name "
            f"{credentials.username!r}: give one of the two"
        )
    username = credentials.username or parsed.username
    if credentials.password is not None and username is None:
        raise ConfigError(f"there is a password for {parsed}, but no user name: give both")
    return MqttTransport(
        Endpoint(
            address=str(parsed),
            host=parsed.host,
            port=parsed.port,
            username=username,
            password=credentials.password,
            tls=_tls(parsed, credentials),
            websocket_path=(parsed.path or WEBSOCKET_PATH) if parsed.websocket else None,
        ),
        protocols={"auto": (MQTT_5, MQTT_3_1_1), 5: (MQTT_5,), 4: (MQTT_3_1_1,)}[protocol],
    )


def _split(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise ConfigError(f"broker address {_shown(text)} cannot be read: {error}") from None
    if parts.scheme not in PORTS or not text.lower().startswith(f"{parts.scheme}://"):
        raise ConfigError(
            f"broker address {_shown(text)} does not begin with one of "
            f"{', '.join(f'{scheme}://' for scheme in PORTS)}: write it like mqtt://broker.example.org:1883"
        )
    return parts


def _host(parts: SplitResult, text: str) -> str:
    if not parts.hostname or re.search(r"\s", parts.hostname):
        raise ConfigError(f"broker address {_shown(text)} names no host: write it like mqtt://localhost:1883")
    return parts.hostname


def _port(parts: SplitResult, text: str) -> int:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port is None:
        return PORTS[parts.scheme]
    if port == 0:
        raise ConfigError(f"broker address {_shown(text)} has no usable port: ports go from 1 to 65535")
    return port


def _path(parts: SplitResult, text: str) -> str:
    if parts.path in {"", "/"}:
        return ""
    if parts.scheme in {"mqtt", "mqtts"}:
        raise ConfigError(f"broker address {_shown(text)} has a path, which only ws:// and wss:// can have")
    return parts.path


def _tls(address: Address, credentials: Credentials) -> ssl.SSLContext | None:
    files = (credentials.ca_file, credentials.cert_file, credentials.key_file)
    if not address.encrypted:
        if any(files):
            raise ConfigError(
                f"certificate files are set, but {address} is not encrypted: use mqtts:// or wss://"
            )
        return None
    if credentials.key_file and not credentials.cert_file:
        raise ConfigError(f"key_file {credentials.key_file} is set without cert_file: give both, or neither")
    return client_context(*files)


def _shown(text: str) -> str:
    """Return `text` for an error message, without what may be a password."""
    return repr(re.sub(r"//[^/]*@", "//…@", text))
