"""What an operator says about one federation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fedmq.algorithms import Algorithm, Plain
from fedmq.codecs import Codec, parse
from fedmq.errors import ConfigError
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.rules import AnyRule, preset
from fedmq.wire import limits
from fedmq.wire.topics import check_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedmq.protocol.messages import Setting


@dataclass(frozen=True, slots=True)
class Encoding:
    """How vectors travel.

    up: codec of the devices' updates. down: codec of the published model. keyframe_every: each so many versions the
    whole model is published, in between only what changed; 1 publishes whole models only. chunk_bytes: longest payload
    of one MQTT message; the broker's own limit may make it shorter.
    """

    up: Codec = field(default_factory=lambda: parse("float32"))
    down: Codec = field(default_factory=lambda: parse("float32"))
    keyframe_every: int = 1
    chunk_bytes: int = limits.CHUNK_BYTES

    def __post_init__(self) -> None:
        """Raise ConfigError for a setting outside its range."""
        if not 1 <= self.keyframe_every <= limits.FRAMES:
            raise ConfigError(
                f"keyframe_every is {self.keyframe_every}; it must be from 1 to {limits.FRAMES}"
            )
        if not limits.LEAST_PACKET_BYTES <= self.chunk_bytes <= limits.PACKET_BYTES:
            span = f"from {limits.LEAST_PACKET_BYTES} to {limits.PACKET_BYTES}"
            raise ConfigError(f"chunk_bytes is {self.chunk_bytes}; it must be {span}")


@dataclass(frozen=True, slots=True)
class Federation:
    """One model being learned by one fleet: name, rule, rounds, encoding, algorithm, and what the trainers are told."""

    name: str
    rule: AnyRule = field(default_factory=lambda: preset("fedavg"))
    policy: Policy = field(default_factory=Policy)
    stop: StopWhen = field(default_factory=StopWhen)
    encoding: Encoding = field(default_factory=Encoding)
    training: Mapping[str, Setting] = field(default_factory=dict)
    algorithm: Algorithm = field(default_factory=Plain)

    def __post_init__(self) -> None:
        """Raise ConfigError for a name that cannot stand in a topic, or more settings than a task can carry.

        So it does for an algorithm that cannot govern the rule, or is told devices by a setting that is given as well.
        """
        check_name(self.name, "federation")
        self.algorithm.govern(self.rule)
        twice = sorted(self.training.keys() & self.algorithm.telling.keys())
        if twice:
            raise ConfigError(
                f"training sets {twice[0]}, which {self.algorithm} tells devices too: leave one out"
            )
        if len(self.telling) > limits.SETTINGS:
            raise ConfigError(
                f"{len(self.telling)} training settings are given; a task carries {limits.SETTINGS} at most"
            )

    @property
    def telling(self) -> Mapping[str, Setting]:
        """What tasks tell devices: the training settings, and what the algorithm adds."""
        return {**self.training, **self.algorithm.telling}
