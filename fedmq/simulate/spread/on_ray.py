"""Shares on a Ray cluster: Ray finds machines for them, starts and watches them, and brings the user's files there.

Every machine has the same Python, with fedmq and what the user's module needs, as Ray wants it anyway.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fedmq.errors import ConfigError
from fedmq.simulate.crowd import Count, ShareLost
from fedmq.simulate.shares import enough
from fedmq.simulate.spread.actor import Actor
from fedmq.simulate.spread.order import orders
from fedmq.simulate.spread.words import FAILED
from fedmq.simulate.spread.work import sentence
from fedmq.transport.address import parse_address
from fedmq.version import __version__

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from types import ModuleType

    from fedmq.simulate.settings import FleetTable, SimulationSettings
    from fedmq.simulate.spread.order import Order, Place

log = logging.getLogger(__name__)

_ON_GPUS: Final = frozenset({"trainer", "tensorflow", "jax"})
"""Engines that may have use for a GPU."""

_IMPATIENCE_S: Final = 20.0
"""After how long we say that a share is still not there."""

_LEFT_BEHIND: Final = ("runs/", ".git/", ".venv/", "__pycache__/")
"""What lies beside a user's module and is not brought to other machines."""


class RayShare:
    """One share on Ray; see `fedmq.simulate.spread.crew.Part`."""

    def __init__(self, ray: ModuleType, order: Order, gpus: int) -> None:
        """Carry out `order` with a core and so many GPUs, once opened."""
        self.name: Final = f"share {order.share} of the devices"
        self._ray, self._line, self.gpus = ray, order.line(), gpus
        self._actor: Any = None

    async def open(self) -> None:
        """Have Ray start it, and wait until its devices are built. Raises ShareLost."""
        wanted = {"num_cpus": 1, "num_gpus": self.gpus, "scheduling_strategy": "SPREAD"}
        self._actor = self._ray.remote(Actor).options(**wanted).remote(self._line)
        asking = asyncio.ensure_future(self._ask("open"))
        try:
            if not (await asyncio.wait({asking}, timeout=_IMPATIENCE_S))[0]:
                log.warning(
                    "%s still waits for Ray to find it a place, or for its data: see `ray status`", self.name
                )
            version = await asking
        finally:
            asking.cancel()
        if version != __version__:
            raise ShareLost(
                f"{self.name} is on a machine with fedmq {version}, here it is {__version__}: install the same on both"
            )

    async def live(self) -> None:
        """Let its devices take part until the federation has ended. Raises ShareLost."""
        await self._ask("live")

    async def count(self) -> Count:
        """Return what its devices have sent and received until now. Raises ShareLost."""
        return Count.read(await self._ask("count"))

    async def close(self) -> None:
        """Have Ray end it."""
        if self._actor is not None:
            self._ray.kill(self._actor)

    async def _ask(self, method: str) -> Any:  # noqa: ANN401  # what JSON gives
        try:
            word, content = json.loads(await getattr(self._actor, method).remote()).popitem()
        except self._ray.exceptions.RayError as error:
            raise ShareLost(f"Ray has lost {self.name} ({sentence(error)})") from error
        if word == FAILED:
            raise ShareLost(f"{self.name} cannot go on: {content}")
        return content


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that we are connected to: the addresses of its machines, one each, and what they have in all."""

    ray: ModuleType
    machines: Sequence[str]
    resources: Mapping[str, float]

    def parts(self, settings: SimulationSettings, engine: str, place: Place) -> list[RayShare]:
        """Return the shares of a fleet. Raises ConfigError where there is no room, or no way to the broker."""
        require_reachable(place.address, self.machines)
        fleet, cores = settings.fleet, int(self.resources.get("CPU", 0))
        count = enough(fleet.devices, fleet.processes, least=min(len(self.machines), cores))
        if count > cores:
            raise ConfigError(
                f"{count} shares take a core each, and the Ray cluster has {cores}: take fewer processes"
            )
        gpus = int(engine in _ON_GPUS and self.resources.get("GPU", 0) >= count)
        return [RayShare(self.ray, order, gpus) for order in orders(settings, engine, count, place)]

    def __str__(self) -> str:
        found = Counter(self.machines)
        return ", ".join(
            f"{address} ({count} nodes)" if count > 1 else address for address, count in found.items()
        )


@contextmanager
def connected(fleet: FleetTable) -> Iterator[Cluster]:
    """Connect to the cluster at the fleet's address, or where Ray looks for one, or a new one here, for a block.

    Raises ConfigError where Ray is not installed, or does not let us in.
    """
    ray = _installed()
    try:
        ray.init(
            address=fleet.ray_address or None,
            runtime_env=_baggage(fleet),
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = fleet.ray_address or "here"
        raise ConfigError(
            f"there is no way into a Ray cluster at {where} ({sentence(error)}): see `ray status`"
        ) from error
    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        yield Cluster(ray, [node["NodeManagerAddress"] for node in nodes], ray.cluster_resources())
    finally:
        ray.shutdown()


def require_reachable(broker: str, machines: Collection[str]) -> None:
    """Raise ConfigError where `broker` listens on this machine's loopback, and there are other machines."""
    if len(set(machines)) > 1 and _is_loopback(parse_address(broker).host):
        raise ConfigError(
            f"the broker {broker} can be reached from this machine only, and the Ray cluster has {len(set(machines))}: "
            "run a broker that listens for all of them, and name it with --broker mqtt://this-machine:1883"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _baggage(fleet: FleetTable) -> dict[str, Any]:
    """Return what Ray brings along: the folder of the user's module, where that is named by its file."""
    if not fleet.module.endswith(".py"):
        return {}
    return {"working_dir": str(Path(fleet.module).absolute().parent), "excludes": list(_LEFT_BEHIND)}


def _installed() -> ModuleType:
    os.environ.setdefault(
        "RAY_USAGE_STATS_ENABLED", "0"
    )  # whoever wants to tell Ray's makers of a run may say 1
    try:
        import ray  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigError(
            f"Ray cannot be loaded ({error}): install it with pip install 'fedmq[ray]'"
        ) from error
    found: ModuleType = ray
    return found
