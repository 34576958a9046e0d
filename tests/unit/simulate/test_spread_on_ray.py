"""Fleets on Ray: what is asked of it, what is refused, and where it is installed, a run on a cluster of three nodes."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import subprocess
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fedmq.errors import ConfigError
from fedmq.simulate.crowd import Count, ShareLost
from fedmq.simulate.play import play, world_settings
from fedmq.simulate.spread import Place, gathered, on_ray
from fedmq.simulate.spread.actor import Actor
from fedmq.simulate.spread.on_ray import Cluster, RayShare, require_reachable
from fedmq.simulate.spread.order import orders
from fedmq.store.modelfile import load_model
from fedmq.version import __version__
from tests.unit.simulate.toy import MODULE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fedmq.simulate import SimulationSettings

TOML = """
name = "cluster"
[fleet]
module = "mine.py"
devices = 9
trainer = "numpy"
baselines = false
[rounds]
min_devices = 9
quorum = 9
[stop]
rounds = 2
"""
NOWHERE = Place("mqtt://127.0.0.1:9", private=True)


@pytest.fixture
def settings(tmp_path: Path) -> SimulationSettings:
    (tmp_path / "mine.py").write_text(MODULE)
    (tmp_path / "world.toml").write_text(TOML)
    return world_settings(str(tmp_path / "world.toml"), {"on": "ray"})


class FakeRayError(Exception):
    """What Ray raises in one of its many ways."""


class FakeRay(ModuleType):
    """Answers for Ray, and remembers what it was asked."""

    exceptions = SimpleNamespace(RayError=FakeRayError)

    def __init__(self, **answers: Any) -> None:  # noqa: ANN401  # texts, or an error to be raised
        super().__init__("ray")
        self.answers, self.asked, self.killed = answers, dict[str, Any](), 0

    def remote(self, actor: type) -> FakeRay:
        assert actor is Actor
        return self

    def options(self, **wanted: Any) -> SimpleNamespace:  # noqa: ANN401
        self.asked |= wanted
        return SimpleNamespace(remote=self._actor)

    def kill(self, _: object) -> None:
        self.killed += 1

    def _actor(self, line: str) -> SimpleNamespace:
        self.asked |= {"line": line}
        return SimpleNamespace(
            **{name: SimpleNamespace(remote=self._method(answer)) for name, answer in self.answers.items()}
        )

    @staticmethod
    def _method(answer: object) -> Any:  # noqa: ANN401
        async def asked() -> object:
            await asyncio.sleep(0.01)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return asked


def share(settings: SimulationSettings, ray: FakeRay, gpus: int = 0) -> RayShare:
    return RayShare(ray, orders(settings, "trainer", 2, NOWHERE)[0], gpus)


async def test_ray_is_asked_for_a_place_and_then_the_actor_for_the_rest(settings: SimulationSettings) -> None:
    count = {"bytes_up": 3, "bytes_down": 4, "memory": {"devices 1 of 2 on 10.0.0.7": 50.0}}
    ray = FakeRay(
        open=json.dumps({"ready": __version__}), live='{"ended": null}', count=json.dumps({"count": count})
    )
    one = share(settings, ray, gpus=1)
    await one.open()
    await one.live()
    assert await one.count() == Count.read(count)
    await one.close()
    assert ray.killed == 1
    assert (ray.asked["num_cpus"], ray.asked["num_gpus"], ray.asked["scheduling_strategy"]) == (
        1,
        1,
        "SPREAD",
    )
    assert ray.asked["line"] == orders(settings, "trainer", 2, NOWHERE)[0].line()


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ('{"ready": "0.0.1"}', r"fedmq 0\.0\.1, here it is .*: install the same on both"),
        ('{"failed": "there is no file"}', "share 1 of 2 of the devices cannot go on: there is no file"),
        (
            FakeRayError("the node\ndied"),
            r"Ray has lost share 1 of 2 of the devices \(FakeRayError: the node died\)",
        ),
    ],
)
async def test_what_goes_wrong_on_a_cluster_is_one_sentence(
    settings: SimulationSettings, answer: object, sentence: str
) -> None:
    with pytest.raises(ShareLost, match=sentence):
        await share(settings, FakeRay(open=answer)).open()


async def test_a_share_without_a_place_is_told_of(
    settings: SimulationSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(on_ray, "_IMPATIENCE_S", 0.0)
    await share(settings, FakeRay(open=json.dumps({"ready": __version__}))).open()
    assert "still waits for Ray to find it a place" in caplog.text


async def test_an_actor_answers_with_a_sentence_when_it_cannot(
    settings: SimulationSettings, tmp_path: Path
) -> None:
    actor = Actor(orders(settings, "trainer", 1, NOWHERE)[0].line())
    with pytest.raises(RuntimeError, match="open"):
        await actor.count()
    assert json.loads(await actor.live()) == {"failed": "RuntimeError: open() comes first"}


@pytest.mark.parametrize(
    ("wanted", "machines", "cores", "gpus", "found"),
    [
        (0, 1, 2, 0, (1, 0)),
        (0, 3, 8, 0, (3, 0)),
        (4, 3, 8, 4, (4, 1)),
        (4, 3, 8, 2, (4, 0)),
        (0, 3, 2, 0, (2, 0)),
    ],
)
def test_a_share_for_each_machine_and_a_gpu_where_there_are_enough(
    settings: SimulationSettings, wanted: int, machines: int, cores: int, gpus: int, found: tuple[int, int]
) -> None:
    chosen = replace(settings, fleet=replace(settings.fleet, processes=wanted))
    cluster = Cluster(FakeRay(), ["10.0.0.1"] * machines, {"CPU": float(cores), "GPU": float(gpus)})
    parts = cluster.parts(chosen, "jax", NOWHERE)
    assert (len(parts), parts[0].gpus) == found
    assert all(part.gpus == 0 for part in cluster.parts(chosen, "numpy", NOWHERE))


def test_a_cluster_that_is_too_small(settings: SimulationSettings) -> None:
    chosen = replace(settings, fleet=replace(settings.fleet, processes=4))
    with pytest.raises(ConfigError, match="4 shares take a core each, and the Ray cluster has 2"):
        Cluster(FakeRay(), ["10.0.0.1"], {"CPU": 2.0}).parts(chosen, "trainer", NOWHERE)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "[::1]"])
def test_a_broker_that_other_machines_cannot_reach(host: str) -> None:
    address = f"mqtt://{host}:1883"
    require_reachable(address, ["10.0.0.1", "10.0.0.1"])
    require_reachable("mqtt://10.0.0.1:1883", ["10.0.0.1", "10.0.0.2"])
    require_reachable("mqtt://broker.example.org:1883", ["10.0.0.1", "10.0.0.2"])
    with pytest.raises(ConfigError, match="from this machine only, and the Ray cluster has 2: run a broker"):
        require_reachable(address, ["10.0.0.1", "10.0.0.2"])


def test_a_cluster_tells_its_machines() -> None:
    assert str(Cluster(FakeRay(), ["10.0.0.1", "10.0.0.2", "10.0.0.1"], {})) == "10.0.0.1 (2 nodes), 10.0.0.2"


async def test_without_ray_the_extra_is_named(
    settings: SimulationSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'fedmq\[ray\]'"):
        async with gathered(settings, "trainer", NOWHERE):
            pytest.fail("it cannot have begun")


# --- the real thing ---------------------------------------------------------------------------------------------------

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")

CLUSTER = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
for _ in range(2):
    cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of three nodes with a core each, in a process of its own."""
    nodes = subprocess.Popen(
        [sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert nodes.stdout is not None
    yield next(line for line in nodes.stdout if ":" in line).strip()
    nodes.communicate(timeout=60)


@needs_ray
@pytest.mark.slow
@pytest.mark.broker
@pytest.mark.timeout(300)
def test_a_run_on_a_cluster_is_the_run_in_one_process(
    settings: SimulationSettings, address: str, tmp_path: Path
) -> None:
    play(
        replace(settings, fleet=replace(settings.fleet, on="here")),
        tmp_path / "one",
        broker=None,
        as_json=True,
    )
    rows = simulate(tmp_path, "--ray-address", address)
    assert [row["accepted"] for row in rows[:-1]] == [9, 9]
    assert sum(name.startswith("devices ") for name in rows[-1]["memory_mb"]) == 3
    here, there = (load_model(tmp_path / name / "model.fedmq") for name in ("one", "run"))
    assert here.vector.tobytes() == there.vector.tobytes()


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_a_cluster_cannot_do_is_said(settings: SimulationSettings, address: str, tmp_path: Path) -> None:
    told = simulate(tmp_path, "--ray-address", address, "--processes", "4", fails=True)
    assert told == "fedmq: 4 shares take a core each, and the Ray cluster has 3: take fewer processes"
    only_there = 'import sys\n    assert "ray" not in sys.modules, "not in an actor"\n    generator = '
    (tmp_path / "mine.py").write_text(MODULE.replace("generator = ", only_there))
    told = simulate(tmp_path, "--ray-address", address, fails=True)
    assert re.match("fedmq: share . of 3 of the devices cannot go on: AssertionError: not in an actor", told)


def simulate(folder: Path, *arguments: str, fails: bool = False) -> Any:  # noqa: ANN401  # what was printed
    """Run the world on Ray in a process of its own, whose warnings are not ours."""
    command = [
        sys.executable,
        "-m",
        "fedmq.cli",
        "simulate",
        str(folder / "world.toml"),
        "--on",
        "ray",
        "--json",
    ]
    done = subprocess.run(
        [*command, *arguments, "--out", str(folder / "run")], capture_output=True, text=True, check=False
    )
    assert done.returncode == int(fails), done.stderr
    return done.stderr.splitlines()[-1] if fails else [json.loads(line) for line in done.stdout.splitlines()]
