"""Federated algorithms that need both halves: something at the aggregator, and something on each device.

One object owns both. The aggregator's configuration names it (``[algorithm] kind = "scaffold"``); devices hear of it
from the task and need no configuration. To add one, write one class and one row of `ALGORITHMS`.

What separates an algorithm from a rule: a rule works with whatever devices send, an algorithm also says how devices
train and what they send. Every algorithm works with every rule of four slots.
"""

from fedmq.algorithms.algorithm import MOST_LENGTHS, Algorithm, Kept, Plain
from fedmq.algorithms.clusters import Clusters
from fedmq.algorithms.differences import Differences
from fedmq.algorithms.feddyn import FedDyn
from fedmq.algorithms.fednova import FedNova
from fedmq.algorithms.fedprox import FedProx
from fedmq.algorithms.scaffold import Scaffold
from fedmq.algorithms.table import ALGORITHMS, told

__all__ = [
    "ALGORITHMS",
    "MOST_LENGTHS",
    "Algorithm",
    "Clusters",
    "Differences",
    "FedDyn",
    "FedNova",
    "FedProx",
    "Kept",
    "Plain",
    "Scaffold",
    "told",
]
