"""Topics there and back, and topics that nobody should have sent."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmq.errors import ConfigError, MessageError, MisuseError
from fedmq.protocol.frames import Step
from fedmq.wire import limits
from fedmq.wire.topics import QueryTopic, StatusTopic, Topics, UpdateTopic, check_name

if TYPE_CHECKING:
    from collections.abc import Callable

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
numbers = st.integers(0, limits.NUMBER)
chunks = st.integers(0, limits.CHUNKS - 1)
WATCH = Topics("watch")


def test_the_tree_is_as_specified() -> None:
    assert WATCH.task == "fedmq/v1/watch/all/task"
    assert WATCH.manifest == "fedmq/v1/watch/all/model"
    assert WATCH.frame(Step(42, key=True), 0) == "fedmq/v1/watch/all/model/42/0"
    assert WATCH.frame(Step(42), 0) == "fedmq/v1/watch/all/delta/42/0"
    assert WATCH.beacon == "fedmq/v1/watch/all/status"
    assert WATCH.report == "fedmq/v1/watch/all/report"
    assert WATCH.update("pi-3", 7) == "fedmq/v1/watch/up/pi-3/update/7"
    assert WATCH.update("pi-3", 7, 0) == "fedmq/v1/watch/up/pi-3/update/7/0"
    assert WATCH.query("pi-3", 7) == "fedmq/v1/watch/up/pi-3/query/7"
    assert WATCH.status("pi-3") == "fedmq/v1/watch/up/pi-3/status"
    assert WATCH.receipt("pi-3") == "fedmq/v1/watch/down/pi-3/receipt"


def test_who_subscribes_to_what() -> None:
    assert WATCH.aggregator_filters == (
        "fedmq/v1/watch/up/+/status",
        "fedmq/v1/watch/up/+/update/+",
        "fedmq/v1/watch/up/+/update/+/+",
        "fedmq/v1/watch/up/+/query/+",
    )
    assert WATCH.device_filters("pi-3") == (
        "fedmq/v1/watch/down/pi-3/receipt",
        "fedmq/v1/watch/all/status",
        "fedmq/v1/watch/all/model",
        "fedmq/v1/watch/all/task",
    )
    assert WATCH.frame_filter(Step(42, key=True)) == "fedmq/v1/watch/all/model/42/+"
    assert WATCH.frame_filter(Step(42)) == "fedmq/v1/watch/all/delta/42/+"


# --- there and back ---------------------------------------------------------------------------------------------------


@given(names, names, numbers, st.none() | chunks)
def test_an_update_topic_is_read_as_it_was_made(
    federation: str, device: str, round_: int, chunk: int | None
) -> None:
    topics = Topics(federation)
    assert topics.parse_up(topics.update(device, round_, chunk)) == UpdateTopic(device, round_, chunk)


@given(names, names, numbers)
def test_a_query_topic_is_read_as_it_was_made(federation: str, device: str, round_: int) -> None:
    topics = Topics(federation)
    assert topics.parse_up(topics.query(device, round_)) == QueryTopic(device, round_)


@given(names, names)
def test_a_status_topic_is_read_as_it_was_made(federation: str, device: str) -> None:
    topics = Topics(federation)
    assert topics.parse_up(topics.status(device)) == StatusTopic(device)


@given(st.builds(Step, numbers, key=st.booleans()), chunks)
def test_a_frame_topic_is_read_as_it_was_made(step: Step, chunk: int) -> None:
    assert WATCH.parse_frame(WATCH.frame(step, chunk)) == (step, chunk)


# --- hostile topics ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tail",
    [
        "",
        "/",
        "pi-3",
        "pi-3/",
        "pi-3/status/",
        "pi-3/status/1",
        "pi-3/Status",
        "/status",
        "+/status",
        "#",
        "pi-3/#",
        "pi-3/update",
        "pi-3/update/",
        "pi-3/update/+",
        "pi-3/update/7/+",
        "pi-3/update/7/",
        "pi-3/update//0",
        "pi-3/update/7/0/0",
        "pi-3/update/-1",
        "pi-3/update/+7",
        "pi-3/query",
        "pi-3/query/",
        "pi-3/query/+",
        "pi-3/query/7/0",
        "pi-3/query/07",
        "/query/7",
        "pi-3/update/07",
        "pi-3/update/7.0",
        "pi-3/update/1e3",
        "pi-3/update/0x7",
        "pi-3/update/ 7",
        "pi-3/update/7\n",
        "pi-3/update/1_000",
        "pi-3/update/\u0667",  # an Arabic seven, which int() takes
        "pi-3/update/\uff17",  # a full-width one
        "pi-3/update/²",
        f"pi-3/update/{limits.NUMBER + 1}",
        f"pi-3/update/{10**15}",
        "pi-3/update/" + "9" * 5000,
        f"pi-3/update/7/{limits.CHUNKS}",
        "pi-3/update/7/\u0667",
        "pi 3/status",
        "pi\x00/status",
        "pi\n/status",
        "é/status",
        "-pi/status",
        ".pi/status",
        "../status",
        "$SYS/status",
        "x" * 65 + "/status",
        "x" * 60_000 + "/status",
    ],
)
def test_refuses_a_topic_that_means_nothing(tail: str) -> None:
    with pytest.raises(MessageError) as refused:
        WATCH.parse_up(f"fedmq/v1/watch/up/{tail}")
    assert len(str(refused.value)) < 500
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "/",
        "fedmq",
        "fedmq/v1/watch",
        "fedmq/v1/watch/up",
        "fedmq/v1/other/up/pi-3/status",
        "fedmq/v1/Watch/up/pi-3/status",
        "fedmq/v1/watch2/up/pi-3/status",
        "fedmq/v2/watch/up/pi-3/status",
        "/fedmq/v1/watch/up/pi-3/status",
        "fedmq/v1/watch/down/pi-3/receipt",
        "fedmq/v1/watch/all/task",
        "fedmq/v1/watch/+/pi-3/status",
    ],
)
def test_refuses_a_topic_of_another_place(topic: str) -> None:
    with pytest.raises(MessageError):
        WATCH.parse_up(topic)


@given(
    st.text(max_size=80)
    | st.lists(st.sampled_from(["pi", "update", "status", "7", "", "+", "\u0667"])).map("/".join)
)
def test_any_topic_is_understood_or_refused(tail: str) -> None:
    with contextlib.suppress(MessageError):
        WATCH.parse_up(f"fedmq/v1/watch/up/{tail}")


@pytest.mark.parametrize(
    "topic",
    [
        "fedmq/v1/watch/all/model",
        "fedmq/v1/watch/all/model/",
        "fedmq/v1/watch/all/model/1",
        "fedmq/v1/watch/all/model/1/",
        "fedmq/v1/watch/all/model/1/2/3",
        "fedmq/v1/watch/all/model/01/2",
        "fedmq/v1/watch/all/model/+/0",
        "fedmq/v1/watch/all/model/\u0667/0",
        f"fedmq/v1/watch/all/model/{limits.NUMBER + 1}/0",
        f"fedmq/v1/watch/all/model/1/{limits.CHUNKS}",
        "fedmq/v1/watch/all/models/1/0",
        "fedmq/v1/watch/all/delta",
        "fedmq/v1/watch/all/delta/1",
        "fedmq/v1/watch/all/delta/01/2",
        "fedmq/v1/watch/all/report/1/0",
        "fedmq/v1/other/all/model/1/0",
        "fedmq/v1/watch/all/task",
    ],
)
def test_other_topics_are_no_frames(topic: str) -> None:
    assert WATCH.parse_frame(topic) is None


# --- names ------------------------------------------------------------------------------------------------------------

BAD = ["", "+", "#", "a/b", "a b", "-a", ".a", "_a", "$a", "é", "a\n", "a\x00", "x" * 65, "\u0667"]


@pytest.mark.parametrize("name", BAD)
def test_refuses_a_name_that_cannot_stand_in_a_topic(name: str) -> None:
    with pytest.raises(ConfigError, match="device name"):
        check_name(name, "device")
    with pytest.raises(ConfigError, match="federation name"):
        Topics(name)
    for make in (WATCH.status, WATCH.receipt, lambda device: WATCH.update(device, 1)):
        with pytest.raises(ConfigError, match="device name"):
            make(name)


@pytest.mark.parametrize("name", ["a", "9", "Pi-3", "a.b_c-d", "x" * 64])
def test_takes_a_plain_name(name: str) -> None:
    assert check_name(name, "device") == name


@pytest.mark.parametrize("number", [-1, limits.NUMBER + 1])
def test_writes_no_number_that_nobody_would_read(number: int) -> None:
    makes: tuple[Callable[[int], str], ...] = (
        lambda n: WATCH.frame_filter(Step(n)),
        lambda n: WATCH.frame(Step(n, key=True), 0),
        lambda n: WATCH.update("pi", n),
        lambda n: WATCH.update("pi", 1, n),
    )
    for make in makes:
        with pytest.raises(MisuseError, match="cannot stand in a topic"):
            make(number)


def test_the_longest_topic_is_well_inside_what_mqtt_takes() -> None:
    longest = Topics("x" * 64).update("y" * 64, limits.NUMBER, limits.CHUNKS - 1)
    assert len(longest) < 200
