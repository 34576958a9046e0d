"""How the devices of a fleet behave: when they are up, how fast they are, what they have to learn from, who attacks.

Descriptions only, and what follows from them for any device at any time. Nothing here runs anything.
"""

from fedmq.worlds.attacks import ATTACKS, Attack
from fedmq.worlds.availability import Availability, Spell
from fedmq.worlds.equipment import Attackers, Battery, Connection, Hardware
from fedmq.worlds.population import Population
from fedmq.worlds.shares import Data, Shares
from fedmq.worlds.world import WORLD_PURPOSES, WORLDS, World, world

__all__ = [
    "ATTACKS",
    "WORLDS",
    "WORLD_PURPOSES",
    "Attack",
    "Attackers",
    "Availability",
    "Battery",
    "Connection",
    "Data",
    "Hardware",
    "Population",
    "Shares",
    "Spell",
    "World",
    "world",
]
