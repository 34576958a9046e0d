"""Links that are slow, late and cut: nearly everybody's update lands, and few bytes travel twice.

Each update goes in many chunks over a link so slow that sending it takes a good part of a minute; a fifth of all
connections is reset each minute, wherever they are just then.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fedmq.aggregator.settings import Encoding, Federation
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.transport.mosquitto import Mosquitto
from tests.chaos.fleet import DEFAULTS, NAME, fleet, names, wide
from tests.chaos.ledger import Audit
from tests.chaos.row import Row
from tests.chaos.weather import Forecast, Weather

GOAL_SHARE: Final = 0.99
GOAL_AGAIN: Final = 0.15


@dataclass(frozen=True, slots=True)
class Links:
    """How bad the links are, and what goes over them: updates of `numbers` float32 in chunks of `chunk_bytes`."""

    devices: int
    rounds: int
    numbers: int
    chunk_bytes: int
    deadline_s: float
    forecast: Forecast


LONG: Final = Links(
    devices=100,
    rounds=3,
    numbers=40_000,
    chunk_bytes=8_000,
    deadline_s=240.0,
    forecast=Forecast(latency_s=0.1, jitter_s=0.05, bandwidth=4_000, cut=0.2),
)
"""An update is 160 kB in 20 chunks, and takes 40 s to send; as long does the model take to come."""
QUICK: Final = Links(
    devices=30,
    rounds=1,
    numbers=16_000,
    chunk_bytes=4_096,
    deadline_s=30.0,
    forecast=Forecast(latency_s=0.02, jitter_s=0.02, bandwidth=32_000, cut=0.98),
)
"""As bad, with everything a good deal faster: an update takes two seconds, and a link lasts a quarter of a minute."""


@dataclass(frozen=True, slots=True)
class Passage:
    """What came of it, over all rounds. `ideal` and `sent` are bytes of updates, without those of MQTT."""

    expected: int
    landed: int
    ideal: int
    sent: int
    cuts: int
    seconds: float
    found: Audit

    @property
    def share(self) -> float:
        """How much of the cohort landed."""
        return self.landed / self.expected

    @property
    def again(self) -> float:
        """How many bytes went again for each that had to."""
        return self.sent / self.ideal - 1


async def run(*, quick: bool, seed: int) -> Row:
    """Have rounds go over bad links."""
    links = QUICK if quick else LONG
    seen = await passage(links, seed)
    cut = links.forecast.cut
    return Row(
        promise=f"bad links: the cohort lands while {cut:.0%} of the connections are cut each minute",
        figure=f"{seen.share:.1%} of {seen.expected:,} updates landed by their deadline, {seen.again:.1%} of the bytes "
        f"were sent again; {seen.cuts} cuts in {seen.seconds:.0f} s; {seen.found.said or 'none lost, none twice'}",
        goal=f"{GOAL_SHARE:.0%} land, at most {GOAL_AGAIN:.0%} of the bytes sent again; no violation",
        met=seen.share >= GOAL_SHARE and seen.again <= GOAL_AGAIN and not seen.found.violations,
        figures={
            "landed_share": seen.share,
            "again_share": seen.again,
            "cuts": float(seen.cuts),
            "seconds": seen.seconds,
            "violations": float(len(seen.found.violations)),
        },
    )


async def passage(links: Links, seed: int) -> Passage:
    """Run the rounds and count what passed. The aggregator's own link is good.

    A round waits for everybody until its deadline: else it might close, with all verdicts given to those who are there,
    just when somebody's link is down, and it would be luck what had landed by then.
    """
    policy = Policy(
        min_devices=links.devices,
        quorum=links.devices,
        soft_deadline_s=links.deadline_s,
        hard_deadline_s=links.deadline_s,
    )
    encoding = Encoding(chunk_bytes=links.chunk_bytes)
    federation = Federation(NAME, policy=policy, encoding=encoding, stop=StopWhen(rounds=links.rounds))
    layout = wide(links.numbers)
    with tempfile.TemporaryDirectory(prefix="fedmq-chaos-") as folder:
        async with (
            Mosquitto([*DEFAULTS, f"max_packet_size {links.chunk_bytes}"]) as broker,
            Weather(broker.port, links.forecast, seed=seed) as weather,
            fleet(
                federation,
                Path(folder),
                lambda name: broker.address if name == "aggregator" else weather.address,
                layout=layout,
            ) as running,
        ):
            running.start_aggregator()
            for name in names(links.devices):
                running.start_device(name)
            patience_s = (links.rounds + 1) * links.deadline_s * 2
            await running.until(lambda: len(running.reports) == links.rounds, patience_s, "every round's end")
            landed = sum(report.accepted for report in running.reports)
            sent, found = running.sent.nbytes, running.audit()
            return Passage(
                expected=links.devices * links.rounds,
                landed=landed,
                ideal=found.trained * layout.size * 4,
                sent=sent,
                cuts=weather.seen.cuts,
                seconds=sum(report.seconds for report in running.reports),
                found=found,
            )
