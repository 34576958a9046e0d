"""Topic names and topic filters: what is valid, and which filter matches which topic (MQTT 5, section 4.7)."""

from __future__ import annotations

from typing import Final

from fedmq.errors import MisuseError

LONGEST: Final = 65_535
"""Most bytes of UTF-8 that a topic or a filter may take (MQTT 5, section 4.7.3)."""


def check_topic(topic: str) -> None:
    """Raise MisuseError unless `topic` can be published to."""
    _check_text(topic, "topic")
    if "+" in topic or "#" in topic:
        raise MisuseError(f"topic {topic!r} holds a wildcard: publish to one topic, subscribe to many")


def check_filter(text: str) -> None:
    """Raise MisuseError unless `text` can be subscribed to."""
    _check_text(text, "filter")
    levels = text.split("/")
    if any(("+" in level or "#" in level) and len(level) > 1 for level in levels) or "#" in levels[:-1]:
        raise MisuseError(
            f"filter {text!r} is not valid: + and # fill a whole level, and # only the last one"
        )


def matches(text: str, topic: str) -> bool:
    """Return whether the filter `text` matches `topic`; both are taken to be valid."""
    wanted, levels = text.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in {"+", "#"}:
        return False
    for index, want in enumerate(wanted):
        if want == "#":
            return True
        if index == len(levels) or want not in {"+", levels[index]}:
            return False
    return len(wanted) == len(levels)


def _check_text(text: str, what: str) -> None:
    if not text or "\0" in text or len(text.encode()) > LONGEST:
        raise MisuseError(
            f"{what} {text[:40]!r} is not valid: it takes 1 to {LONGEST} bytes of UTF-8, none of them zero"
        )
