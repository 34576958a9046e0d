"""A simulated fleet in several processes, on this machine or on those of a Ray cluster.

Each process has a share of the devices, with their data, and runs the code that a fleet in one process runs. It hears
what to do as JSON, says as JSON what came of it, and everything else goes over MQTT as it does between machines. So
nothing is pickled here, and a run's result does not depend on how it is spread.
"""

from fedmq.simulate.spread.crew import Crew, gathered
from fedmq.simulate.spread.order import Place

__all__ = ["Crew", "Place", "gathered"]
