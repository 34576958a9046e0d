"""Which frames stand, version after version; and what an encoding must not say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from fedmq.aggregator.board import Board
from fedmq.aggregator.downlink import MOST_EARLIER, Downlink
from fedmq.aggregator.settings import Encoding
from fedmq.codecs import parse
from fedmq.errors import ConfigError
from fedmq.protocol.frames import Step
from fedmq.protocol.messages import Frame
from fedmq.store.checkpoint import CheckpointFolder, State
from fedmq.transport.interface import Outgoing, Profile
from fedmq.transport.memory import MemoryBroker
from fedmq.wire import limits
from fedmq.wire.envelope import decode

if TYPE_CHECKING:
    from pathlib import Path

    from fedmq.store.checkpoint import Weights
    from fedmq.vectors import Vector

RUN, SIZES = b"run-0001", (3000, 40)


def encoding(
    down: str = "int8 | lzma", every: int = 4, key: str = "half", first: str | None = None
) -> Encoding:
    return Encoding(
        down=parse(down),
        keyframe_every=every,
        key=parse(key),
        first=first and parse(first),  # type: ignore[arg-type]
    )


def vector(seed: int = 0) -> Vector:
    return np.random.default_rng(seed).normal(size=sum(SIZES)).astype(np.float32)


def moved(weights: Weights, share: float = 0.01) -> Vector:
    """Return the model with a share of its numbers changed."""
    random = np.random.default_rng(weights.version)
    where = random.random(sum(SIZES)) < share
    return (weights.vector + where * random.normal(size=sum(SIZES))).astype(np.float32)


def go_on(downlink: Downlink, weights: Weights, count: int = 1, share: float = 0.01) -> Weights:
    for _ in range(count):
        weights = downlink.then(weights, weights.version + 1, moved(weights, share), {})
    return weights


def steps(weights: Weights) -> list[tuple[str, int]]:
    return [("key" if each.step.key else "delta", each.step.version) for each in weights.frames]


def test_the_first_model_stays_what_it_is_though_it_travels_in_half() -> None:
    weights = Downlink(encoding(), RUN, SIZES).first(vector())
    assert weights.vector.tobytes() == vector().tobytes()
    assert weights.replica.tobytes() == parse("half").rounded(vector(), SIZES).tobytes()
    assert steps(weights) == [("key", 1)]


@pytest.mark.parametrize("codec", ["int4", "int2", "rotate | eden"])
def test_a_first_model_with_a_codec_of_its_own_is_what_that_makes_of_it(codec: str) -> None:
    weights = Downlink(encoding(first=codec), RUN, SIZES).first(vector())
    assert weights.vector is weights.replica
    assert len(weights.frames[0].body) < vector().nbytes / 7
    assert decode(weights.frames[0].body, Frame).codec == codec
    assert weights.replica.tobytes() != vector().tobytes()


def test_an_exact_key_frame_takes_no_copy() -> None:
    weights = Downlink(encoding(key="exact"), RUN, SIZES).first(vector())
    assert weights.vector is weights.replica


def test_only_whole_models_where_no_deltas_are_wanted() -> None:
    downlink = Downlink(encoding("float32", every=1), RUN, SIZES)
    weights = go_on(downlink, downlink.first(vector()), 3)
    assert steps(weights) == [("key", 4)]
    assert [step for step, _ in weights.gone] == [Step(3, key=True)]


def test_deltas_stand_since_the_key_frame_and_before_it_while_they_are_of_use() -> None:
    downlink = Downlink(encoding(), RUN, SIZES)
    weights = go_on(downlink, downlink.first(vector()), 3)
    assert steps(weights) == [("key", 1), ("delta", 2), ("delta", 3), ("delta", 4)]
    weights = go_on(downlink, weights)
    assert steps(weights) == [("key", 5), ("delta", 2), ("delta", 3), ("delta", 4), ("delta", 5)]
    assert [step for step, _ in weights.gone] == [Step(1, key=True)]
    assert [decode(each.body, Frame).rounded for each in weights.frames] == [
        "",
        "",
        "",
        "",
        str(parse("half")),
    ]
    dear = go_on(downlink, weights, 4, share=1.0)
    assert steps(dear)[0] == ("key", 9)
    total = sum(len(each.body) for each in dear.frames[1:])
    assert total < len(dear.frames[0].body) < total + 2 * len(dear.frames[-1].body)


def test_a_delta_as_long_as_the_key_frame_is_of_no_use() -> None:
    downlink = Downlink(encoding("float32", every=2, key="float32"), RUN, SIZES)
    weights = go_on(downlink, downlink.first(vector()), 2)
    assert steps(weights) == [("key", 3)]
    assert steps(go_on(downlink, weights)) == [("key", 3), ("delta", 4)]


def test_not_more_deltas_stand_than_a_manifest_can_tell() -> None:
    downlink = Downlink(encoding("deadzone(9) | bitmap | lzma", every=100, key="float32"), RUN, (100_000,))
    weights = downlink.first(np.zeros(100_000, np.float32))
    for version in range(2, 405):
        weights = downlink.then(weights, version, weights.vector, {})
        assert len(weights.frames) <= 1 + limits.FRAMES
        if weights.frames[0].step.version == version:
            assert len(weights.frames) <= 1 + MOST_EARLIER


def test_a_gap_in_the_versions_begins_anew() -> None:
    downlink = Downlink(encoding(), RUN, SIZES)
    weights = go_on(downlink, downlink.first(vector()))
    assert steps(downlink.then(weights, 9, weights.vector, {})) == [("key", 9)]


def test_codecs_may_change_on_the_way() -> None:
    downlink = Downlink(encoding(), RUN, SIZES)
    weights = go_on(downlink, downlink.first(vector()))
    downlink.down = parse("deadzone(2) | bitmap | lzma")
    weights = go_on(downlink, weights)
    assert [each.codec for each in weights.frames] == [str(parse("half")), "int8 | lzma", str(downlink.down)]


def test_a_restart_goes_on_with_the_chain(tmp_path: Path) -> None:
    downlink = Downlink(encoding(), RUN, SIZES)
    weights = go_on(downlink, downlink.first(vector()), 5)
    CheckpointFolder(tmp_path).save(State(RUN, b"s" * 16, b"layout-1"), weights)
    found = CheckpointFolder(tmp_path).load()
    assert found is not None
    again, straight = (go_on(Downlink(encoding(), RUN, SIZES), each, 3) for each in (found[1], weights))
    assert (again.frames, again.gone, again.digest) == (straight.frames, straight.gone, straight.digest)
    assert again.replica.tobytes() == straight.replica.tobytes()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"key": "int8(stochastic)"}, "does not leave what it has decoded once as it is: take `half`"),
        ({"key": "rotate | eden"}, "does not leave what"),
        (
            {"down": "rotate | int8"},
            "down is `rotate | int8`, which may decode to other bits on another machine",
        ),
        ({"first": "rotate | int8"}, "first is `rotate | int8`, which may decode"),
        ({"every": 1}, "with keyframe_every = 1 each model travels whole: say how in key"),
    ],
)
def test_an_encoding_that_devices_could_not_agree_on_is_refused(
    changes: dict[str, object], says: str
) -> None:
    with pytest.raises(ConfigError, match=says.replace("|", r"\|").replace("(", r"\(").replace(")", r"\)")):
        encoding(**changes)  # type: ignore[arg-type]


def test_an_encoding_says_how_models_travel() -> None:
    assert encoding("float32", every=1, key="float16").models == "float16"
    assert encoding("int8", every=7, key="float16").models == "int8, and float16 each 7 versions"


async def test_what_an_earlier_process_left_is_taken_down_unless_it_is_put_up_again() -> None:
    board = Board()
    board.take_down(["a", "b"])
    await board.put([Outgoing("a", b"again", retain=True)])
    assert board.topics() == ["a"]
    broker = MemoryBroker()
    link = await broker.connect(Profile("aggregator"))
    await link.publish(Outgoing("b", b"left over", retain=True))
    await board.attach(link)
    assert broker.retained("#") == {"a": b"again"}
