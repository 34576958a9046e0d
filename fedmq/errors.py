"""Every exception fedmq raises on purpose.

The tree says whose fault it is, so that a shell can decide without reading text::

    FedmqError
    ├── MisuseError          ours or the caller's: a bug, or an API used in the wrong order
    ├── ConfigError          the operator's: a file or an option that cannot be used
    ├── PeerError            the other side's: bytes or claims that cannot be accepted
    │   ├── MessageError     a message does not decode, or breaks a limit of the specification
    │   ├── DecodeError      an encoded vector does not decode to the model's shape
    │   └── Refused          well formed, but a guard or a rule will not take it
    ├── TransportError       the link's: no connection, or the broker said no
    │   ├── ConnectionLost   the link broke; connecting again is worth a try
    │   └── BrokerRefused    the broker refused one request; `code` is its MQTT reason code
    └── StoreError           the disk's: full, read-only, or its content is damaged

Each message is one sentence for a person: what was seen, what was wanted, what to do about it.
"""


class FedmqError(Exception):
    """Base of everything below; catch it to catch all that fedmq raises on purpose."""


class MisuseError(FedmqError):
    """The caller broke a rule of this API, or fedmq has a bug."""


class ConfigError(FedmqError):
    """A configuration file, option or user module cannot be used as it stands."""


class PeerError(FedmqError):
    """Something another party sent cannot be accepted; it costs one counter, never a crash."""


class MessageError(PeerError):
    """A message from the network does not decode, or is outside the specification's limits."""


class DecodeError(PeerError):
    """An encoded vector does not decode into finite bounds of time, memory and shape."""


class Refused(PeerError):
    """A well-formed update that a guard or a rule will not let near the model."""


class TransportError(FedmqError):
    """The link to the broker failed, or the broker would not do as asked."""


class ConnectionLost(TransportError):
    """The connection is gone; a new one may be tried."""


class BrokerRefused(TransportError):
    """The broker refused one request (a publish, a subscription or the connection itself)."""

    def __init__(self, sentence: str, *, code: int) -> None:
        """Keep the MQTT reason `code` (0x80 and above) beside the sentence."""
        super().__init__(sentence)
        self.code = code


class StoreError(FedmqError):
    """The disk is full, read-only or slow, or what stands on it is damaged."""
