"""Configuration files: TOML into the very dataclasses that the aggregator and the device are made of."""

from fedmq.config.files import AggregatorFile, BrokerTable, DeviceFile
from fedmq.config.printing import to_toml
from fedmq.config.structure import load, structure

__all__ = ["AggregatorFile", "BrokerTable", "DeviceFile", "load", "structure", "to_toml"]
