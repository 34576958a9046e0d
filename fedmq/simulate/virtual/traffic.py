"""What went over the air, and what else is counted from round to round. Bytes are MQTT payloads."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(slots=True)
class Traffic:
    """Counts since the beginning.

    `bytes_calls` is the part of `bytes_down` that goes to every device, whether a task invites it or not: tasks and
    manifests. `cuts` are links that broke with something on them; `trained` trainings that led to an update; `dropped`
    updates that their devices threw away because the round was over. `greeting` is how many bytes stand retained for a
    device that connects.
    """

    bytes_up: int = 0
    bytes_down: int = 0
    bytes_calls: int = 0
    cuts: int = 0
    trained: int = 0
    dropped: int = 0
    greeting: int = 0

    def carried(self, up: int, down: int) -> None:
        """Count what one device sent or got."""
        self.bytes_up += up
        self.bytes_down += down

    def called(self, nbytes: int, devices: int) -> None:
        """Count what the broker sent to many."""
        self.bytes_calls += nbytes * devices
        self.bytes_down += nbytes * devices

    def greeted(self, devices: int = 1) -> None:
        """Count what devices get that connect."""
        self.called(self.greeting, devices)

    def copy(self) -> Traffic:
        """Return the counts as they stand."""
        return replace(self)
