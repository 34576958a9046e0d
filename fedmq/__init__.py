"""Federated learning for fleets of IoT devices, over MQTT.

The names below are what most programs need; each is loaded when it is first used, so that ``import fedmq`` costs
nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from fedmq.version import __version__

if TYPE_CHECKING:
    from fedmq.aggregator.aggregator import Aggregator
    from fedmq.aggregator.settings import Encoding, Federation
    from fedmq.codecs import Codec, parse
    from fedmq.device.device import Device, Identity
    from fedmq.device.interface import Trained, Trainer
    from fedmq.protocol.policy import Policy, StopWhen
    from fedmq.rules import Rule, preset
    from fedmq.store.checkpoint import CheckpointFolder
    from fedmq.store.modelfile import StoredModel, load_model, save_model
    from fedmq.transport.address import Credentials, open_transport
    from fedmq.transport.memory import MemoryBroker
    from fedmq.transport.private import private_broker
    from fedmq.vectors import Layout, Variable

__all__ = [
    "Aggregator",
    "CheckpointFolder",
    "Codec",
    "Credentials",
    "Device",
    "Encoding",
    "Federation",
    "Identity",
    "Layout",
    "MemoryBroker",
    "Policy",
    "Rule",
    "StopWhen",
    "StoredModel",
    "Trained",
    "Trainer",
    "Variable",
    "__version__",
    "load_model",
    "open_transport",
    "parse",
    "preset",
    "private_broker",
    "save_model",
]

_HOMES = {
    "fedmq.aggregator.aggregator": ("Aggregator",),
    "fedmq.aggregator.settings": ("Encoding", "Federation"),
    "fedmq.codecs": ("Codec", "parse"),
    "fedmq.device.device": ("Device", "Identity"),
    "fedmq.device.interface": ("Trained", "Trainer"),
    "fedmq.protocol.policy": ("Policy", "StopWhen"),
    "fedmq.rules": ("Rule", "preset"),
    "fedmq.store.checkpoint": ("CheckpointFolder",),
    "fedmq.store.modelfile": ("StoredModel", "load_model", "save_model"),
    "fedmq.transport.address": ("Credentials", "open_transport"),
    "fedmq.transport.memory": ("MemoryBroker",),
    "fedmq.transport.private": ("private_broker",),
    "fedmq.vectors": ("Layout", "Variable"),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Load a public name from the module where it lives."""
    if name not in _MODULES:
        raise AttributeError(f"module 'fedmq' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
