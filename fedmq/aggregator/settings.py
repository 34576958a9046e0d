"""What an operator says about one federation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fedmq.aggregator.pairing import require_pair
from fedmq.aggregator.steering import Budget
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

    up: codec of the devices' updates. down: codec of the deltas between published models. keyframe_every: versions from
    one key-frame to the next; 1 publishes whole models only. key: codec of the key-frames, which are whole models, for
    devices that join or were away for long. first: codec of the first model, in which the federation then begins, with
    all that it loses; without it that is a key-frame like any other. chunk_bytes: longest payload of one MQTT message;
    the broker's own limit may make it shorter. budget: what a device may send and fetch.
    """

    up: Codec = field(default_factory=lambda: parse("float32"))
    down: Codec = field(default_factory=lambda: parse("float32"))
    keyframe_every: int = 1
    key: Codec = field(default_factory=lambda: parse("float32"))
    first: Codec | None = None
    chunk_bytes: int = limits.CHUNK_BYTES
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        """Raise ConfigError for a setting outside its range, or a codec that cannot do what is asked of it."""
        if not 1 <= self.keyframe_every <= limits.FRAMES:
            raise ConfigError(
                f"keyframe_every is {self.keyframe_every}; it must be from 1 to {limits.FRAMES}"
            )
        if not limits.LEAST_PACKET_BYTES <= self.chunk_bytes <= limits.PACKET_BYTES:
            span = f"from {limits.LEAST_PACKET_BYTES} to {limits.PACKET_BYTES}"
            raise ConfigError(f"chunk_bytes is {self.chunk_bytes}; it must be {span}")
        if self.down.feedback is not None:
            raise ConfigError(
                f"the published model goes out as `{self.down}`: leave `feedback` out there, where each difference is "
                "taken from the model that devices have, and so makes good what was lost of the one before"
            )
        self._require_codecs()
        self.budget.require(self.up, self.down)

    @property
    def models(self) -> str:
        """How models travel, in a few words."""
        if self.keyframe_every == 1:
            return f"{self.key}"
        return f"{self.down}, and {self.key} each {self.keyframe_every} versions"

    def _require_codecs(self) -> None:
        if self.keyframe_every == 1 and not self.down.exact:
            raise ConfigError(
                f"down is `{self.down}`, for what separates one model from the next, but with keyframe_every = 1 each "
                "model travels whole: say how in key, or choose another keyframe_every"
            )
        if not self.key.stable:
            raise ConfigError(
                f"key is `{self.key}`, which does not leave what it has decoded once as it is: take `half`, `exact` or "
                "`safe`, so that devices that join hold the same bits as those that are there"
            )
        for name, codec in (("down", self.down), ("first", self.first)):
            if codec is not None and not codec.reproducible:
                raise ConfigError(
                    f"{name} is `{codec}`, which may decode to other bits on another machine, where all devices must "
                    "hold the same: take one without a rotation"
                )


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

        So it does for an algorithm that cannot govern the rule, or is told devices by a setting that is given as well,
        and for updates in a codec that the rule has no use for.
        """
        check_name(self.name, "federation")
        require_pair(self.rule, self.algorithm, self.encoding.up)
        if self.algorithm.feeds_back and self.encoding.up.feedback is not None:
            raise ConfigError(
                f"updates travel as `{self.encoding.up}`, and {self.algorithm} makes good itself what codecs lose: "
                "leave `feedback` out"
            )
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
