"""Fleets in virtual time."""

from fedmq.simulate.virtual.simulation import VirtualSimulation

__all__ = ["VirtualSimulation"]
