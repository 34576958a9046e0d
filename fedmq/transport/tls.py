"""Encrypted links: the TLS settings of a client."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from fedmq.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


class _TidySocket(ssl.SSLSocket):
    """Closes itself when its handshake fails, which paho leaves to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - the spelling of what it stands for
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def client_context(ca_file: Path | None, cert_file: Path | None, key_file: Path | None) -> ssl.SSLContext:
    """Return the settings of a client that checks the broker's certificate, and shows one of its own where given.

    `ca_file` holds the authorities to trust, the system's where it is None. Raises ConfigError naming a file that
    cannot be used.
    """
    reading = ca_file
    try:
        context = ssl.create_default_context(cafile=ca_file)
        if cert_file is not None:
            reading = cert_file
            # An empty password makes an encrypted key an error, where OpenSSL would ask on the terminal and hang.
            context.load_cert_chain(cert_file, key_file, password="")
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"cannot use certificate file {reading}: {error}") from None
    context.sslsocket_class = _TidySocket
    return context
