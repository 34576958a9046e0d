"""How a device in virtual time gets a model: frame after frame over its link, or silence (`fedmq.device.fetching`)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from fedmq.device.fetching import PATIENCE_S
from fedmq.protocol import participation as pa

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedmq.protocol.frames import Step
    from fedmq.simulate.virtual.alarms import Alarms
    from fedmq.simulate.virtual.link import Link
    from fedmq.simulate.virtual.surroundings import Surroundings
    from fedmq.vectors import Vector

_KEY = "fetch"
_SILENCE = "silence"


class Fetching:
    """One device's way to the model: `model` is what it has; it `retries` where nothing came and it will ask anew."""

    def __init__(
        self,
        number: int,
        around: Surroundings,
        link: Link,
        alarms: Alarms,
        tell: Callable[[pa.ParticipantEvent], None],
    ) -> None:
        """Fetch for device `number`; `tell` takes what its machine is to hear."""
        self._number, self._around, self._tell = number, around, tell
        self._link, self._alarms = link, alarms
        self._bodies: set[Step] = set()
        self.model: Vector | None = None
        self.retries = False

    def begin(self, effect: pa.Fetch) -> None:
        """Fetch what the device has no frame of yet, in place of what it was fetching."""
        self.stop()
        self._link.drop(_KEY)
        self.retries = False
        if effect.fresh:
            self._around.hold(self._number, 0)
        self._next_frame(effect, self._around.aggregator.models.get(effect.version))

    def stop(self) -> None:
        """Wait no longer for what does not come."""
        self._alarms.cancel(_SILENCE)

    def forget(self) -> None:
        """Lose all that is not on a disk."""
        self._around.hold(self._number, 0)
        self._bodies.clear()
        self.model, self.retries = None, False

    def _next_frame(self, effect: pa.Fetch, model: Vector | None) -> None:
        step = next((step for step in effect.steps if step not in self._bodies), None)
        if step is None:
            self._fetched(effect, model)
            return
        nbytes = self._around.aggregator.frame_bytes(step)
        if nbytes is None or model is None:  # the federation has moved on: nothing comes
            silence = partial(self._nothing_came, effect.version)
            self._alarms.set(_SILENCE, self._around.clock.now + PATIENCE_S, silence)
            return
        self._link.fetch(_KEY, nbytes, partial(self._frame_came, effect, model, step))

    def _frame_came(self, effect: pa.Fetch, model: Vector, step: Step) -> None:
        self._bodies.add(step)
        self._next_frame(effect, model)

    def _fetched(self, effect: pa.Fetch, model: Vector | None) -> None:
        self._bodies.clear()
        self.model = model
        self._around.hold(self._number, effect.version)
        self._tell(pa.Fetched(effect.version))

    def _nothing_came(self, version: int) -> None:
        self.retries = True
        self._tell(pa.FetchFailed(version, f"no chunk came for {PATIENCE_S:.0f} s"))
