from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmq.errors import MisuseError
from fedmq.transport.filters import check_filter, check_topic, matches
from fedmq.transport.topictree import FilterTree, TopicTree

levels = st.sampled_from(["", "a", "b", "$x", "long level"])
topics = st.lists(levels, min_size=1, max_size=5).map("/".join).filter(bool)
filters = st.builds(
    lambda body, end: "/".join([*body, *end]),
    st.lists(st.one_of(levels, st.just("+")), min_size=1, max_size=4),
    st.sampled_from([[], ["#"]]),
).filter(bool) | st.just("#")


@pytest.mark.parametrize(
    ("text", "topic", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/c", False),
        ("a", "a/b", False),
        ("a/b", "a", False),
        ("+", "a", True),
        ("+", "a/b", False),
        ("+/+", "/a", True),
        ("/+", "/a", True),
        ("+", "/a", False),
        ("a/+", "a/", True),
        ("a/+", "a", False),
        ("#", "a/b/c", True),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("a/+/#", "a", False),
        ("a/#", "ab", False),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("$SYS/#", "$SYS/x", True),
        ("a/+", "a/$x", True),
    ],
)
def test_matching_follows_the_specification(text: str, topic: str, *, expected: bool) -> None:
    assert matches(text, topic) is expected


@given(st.lists(filters, min_size=1, max_size=8, unique=True), topics)
def test_the_tree_of_filters_agrees_with_matching_one_by_one(texts: list[str], topic: str) -> None:
    tree = FilterTree()
    for text in texts:
        tree.add(text, text)
    assert sorted(tree.match(topic)) == sorted(text for text in texts if matches(text, topic))


@given(st.lists(filters, min_size=2, max_size=8, unique=True), topics)
def test_what_was_discarded_leaves_nothing_behind(texts: list[str], topic: str) -> None:
    tree, kept = FilterTree(), texts[: len(texts) // 2]
    for text in [*kept, *texts]:
        tree.add(text, text)
    for text in texts[len(kept) :]:
        tree.discard(text, text)
    assert sorted(tree.match(topic)) == sorted(text for text in kept if matches(text, topic))
    for text in kept:
        tree.discard(text, text)
    assert repr(tree._root) == repr(FilterTree()._root)


def test_discarding_what_is_not_there_changes_nothing() -> None:
    tree = FilterTree()
    tree.add("a/b", "one")
    tree.discard("a/c", "one")
    tree.discard("x/y", "one")
    tree.discard("a/b", "two")
    assert tree.match("a/b") == ["one"]


@given(st.lists(topics, min_size=1, max_size=8, unique=True), filters)
def test_the_tree_of_topics_finds_what_matches(names: list[str], text: str) -> None:
    tree: TopicTree[str] = TopicTree()
    for name in names:
        tree.put(name, name)
    assert sorted(tree.find(text)) == sorted((name, name) for name in names if matches(text, name))
    for name in names:
        tree.put(name, None)
    assert not list(tree.find("#"))
    assert not tree._root.below


@pytest.mark.parametrize("topic", ["", "a/+", "#", "a\0b", "x" * 65_536, "ä" * 40_000])
def test_topics_that_cannot_be_published_to(topic: str) -> None:
    with pytest.raises(MisuseError):
        check_topic(topic)


@pytest.mark.parametrize("text", ["", "a+", "+a/b", "a/#/b", "##", "a/b#", "\0"])
def test_filters_that_cannot_be_subscribed_to(text: str) -> None:
    with pytest.raises(MisuseError):
        check_filter(text)


@given(topics, filters)
def test_good_ones_pass(topic: str, text: str) -> None:
    check_topic(topic)
    check_filter(text)
    check_filter(topic)
