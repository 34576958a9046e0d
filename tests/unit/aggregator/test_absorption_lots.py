"""Large updates are read back one at a time, however many wait: memory does not hang on their number."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fedmq.aggregator.absorption import Absorption
from fedmq.protocol import coordination as co
from fedmq.protocol.messages import Facts, Update

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedmq.aggregator.modelling import Answer


@dataclass
class Source:
    number: int
    noted: list[str]

    def read(self) -> Update:
        self.noted.append(f"read {self.number}")
        return Update(b"run-one.", bytes([self.number]) * 8, 1, b"layout..", Facts(1), {})


@dataclass
class Model:
    at_once: int
    noted: list[str]

    def absorb_all(self, answers: Sequence[Answer]) -> list[None]:
        self.noted += [f"absorbed {answer.update.update[0]}" for answer in answers]
        return [None] * len(answers)


@pytest.mark.parametrize(
    ("at_once", "order"),
    [(1, "r0 a0 r1 a1 r2 a2"), (2, "r0 r1 a0 a1 r2 a2"), (9, "r0 r1 r2 a0 a1 a2")],
)
async def test_no_more_are_read_than_are_decoded_together(at_once: int, order: str) -> None:
    noted: list[str] = []
    events: list[co.CoordinatorEvent] = []
    parcels = {
        f"device-{n}": SimpleNamespace(device=f"device-{n}", round=1, update=bytes([n]) * 8) for n in range(3)
    }
    intake: Any = SimpleNamespace(
        parcel=lambda device, *_: parcels[device],
        source=lambda parcel: Source(parcel.update[0], noted),
    )
    model: Any = Model(at_once, noted)

    def dispatch(event: co.CoordinatorEvent) -> Sequence[co.CoordinatorEffect]:
        events.append(event)
        return []

    with ThreadPoolExecutor(1) as worker:
        absorption = Absorption(intake, model, dispatch, worker)
        for parcel in parcels.values():
            absorption.absorb(co.Absorb(parcel.device, parcel.round, parcel.update))
        working = asyncio.create_task(absorption.absorb_forever())
        while len(events) < len(parcels):
            await asyncio.sleep(0)
        working.cancel()
    assert " ".join(each[0] + each[-1] for each in noted) == order
    assert [event.device for event in events if isinstance(event, co.Absorbed)] == list(parcels)
