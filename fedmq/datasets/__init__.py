"""Real data that comes with the package, and ways to deal it out to a fleet of devices.

Everything here needs NumPy only and reads nothing from the network.

>>> from fedmq.datasets import deal, smartwatch
>>> data = smartwatch()
>>> data.x.shape[1:], len(data.classes)
((100, 6), 7)
>>> len(deal("by_owner", data, devices=10))
10
"""

from fedmq.datasets.dataset import Dataset
from fedmq.datasets.digits import mnist
from fedmq.datasets.partition import (
    PARTITIONS,
    ByOwner,
    Dirichlet,
    Iid,
    Partition,
    QuantitySkew,
    Shards,
)
from fedmq.datasets.spelling import deal, parse
from fedmq.datasets.watch import smartwatch

__all__ = [
    "PARTITIONS",
    "ByOwner",
    "Dataset",
    "Dirichlet",
    "Iid",
    "Partition",
    "QuantitySkew",
    "Shards",
    "deal",
    "mnist",
    "parse",
    "smartwatch",
]
