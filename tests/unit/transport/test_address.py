from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fedmq.errors import ConfigError
from fedmq.transport.address import Address, Credentials, open_transport, parse_address

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mqtt://localhost", Address("mqtt", "localhost", 1883)),
        ("mqtts://b.example.org", Address("mqtts", "b.example.org", 8883)),
        ("mqtt://device-7@10.0.0.1:1884", Address("mqtt", "10.0.0.1", 1884, "device-7")),
        ("MQTT://Host/", Address("mqtt", "host", 1883)),
        ("ws://h:9001/broker", Address("ws", "h", 9001, path="/broker")),
        ("wss://h", Address("wss", "h", 443)),
        ("mqtt://[::1]:1883", Address("mqtt", "::1", 1883)),
    ],
)
def test_addresses(text: str, expected: Address) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "mqtt://broker.example.org:1883"),
        ("localhost", "does not begin with one of"),
        ("localhost:1883", "does not begin with one of"),
        ("mqtt:localhost", "does not begin with one of"),
        ("http://localhost", "does not begin with one of"),
        ("mqtt://", "names no host"),
        ("mqtt://:1883", "names no host"),
        ("mqtt://a b", "names no host"),
        ("mqtt://h:0", "no usable port"),
        ("mqtt://h:70000", "no usable port"),
        ("mqtt://h:port", "no usable port"),
        ("mqtt://h/path", "only ws:// and wss://"),
        ("mqtt://h?x=1", "leave it out"),
        ("ws://h/p#f", "leave it out"),
        ("mqtt://[::1", "cannot be read"),
    ],
)
def test_nonsense_is_explained(text: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        parse_address(text)


@pytest.mark.parametrize(
    "text", ["mqtt://user:hush@host", "mqtt://:hush@host", "http://u:hush@h", "mqtt://u:hush@h:99999"]
)
def test_passwords_in_addresses_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_address(text)
    assert "hush" not in str(caught.value)


def test_the_hint_names_the_better_way() -> None:
    with pytest.raises(ConfigError, match="password_file or the environment"):
        parse_address("mqtt://user:hush@host")


def test_secrets_are_never_shown() -> None:
    credentials = Credentials("device-7", "hush")
    transport = open_transport("mqtt://host", credentials)
    assert "hush" not in repr(credentials) + repr(transport) + repr(vars(transport)) + transport.address


def test_the_user_is_left_out_of_the_address_for_people() -> None:
    assert open_transport("mqtt://device-7@host", Credentials()).address == "mqtt://host:1883"
    assert str(parse_address("wss://u@[::1]/x")) == "wss://[::1]:443/x"


def test_two_different_users_are_one_too_many() -> None:
    open_transport("mqtt://a@host", Credentials("a"))
    with pytest.raises(ConfigError, match=r"'a'.*'b'"):
        open_transport("mqtt://a@host", Credentials("b"))


def test_a_password_needs_a_user() -> None:
    open_transport("mqtt://a@host", Credentials(password="hush"))
    with pytest.raises(ConfigError, match="no user name"):
        open_transport("mqtt://host", Credentials(password="hush"))


def test_certificates_need_an_encrypted_address(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="use mqtts:// or wss://"):
        open_transport("mqtt://host", Credentials(ca_file=tmp_path / "ca.pem"))


def test_a_key_needs_its_certificate(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="without cert_file"):
        open_transport("mqtts://host", Credentials(key_file=tmp_path / "key.pem"))


@pytest.mark.parametrize("name", ["ca_file", "cert_file"])
def test_files_that_cannot_be_used_are_named(tmp_path: Path, name: str) -> None:
    for path in (tmp_path / "missing.pem", tmp_path / "nonsense.pem"):
        if path.stem == "nonsense":
            path.write_text("not a certificate")
        files: dict[str, Any] = {name: path}
        with pytest.raises(ConfigError, match=path.name):
            open_transport("mqtts://host", Credentials(**files))
