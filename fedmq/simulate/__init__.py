"""Fleets on one machine: real MQTT sessions and real training, side by side in one process."""

from fedmq.simulate.settings import FleetTable, SimulationSettings
from fedmq.simulate.simulation import Simulation

__all__ = ["FleetTable", "Simulation", "SimulationSettings"]
