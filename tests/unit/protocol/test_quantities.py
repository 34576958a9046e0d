"""Numbers of bytes, read and written."""

from __future__ import annotations

import pytest

from fedmq.errors import ConfigError
from fedmq.protocol.quantities import read_bytes, spell_bytes


@pytest.mark.parametrize(
    ("text", "count"),
    [("2 MB", 2_000_000), ("1.5kB", 1500), (" 700 B ", 700), ("1 gb", 10**9), ("0.25 MB", 250_000)],
)
def test_a_text_is_read(text: str, count: int) -> None:
    assert read_bytes(text) == count


@pytest.mark.parametrize("text", ["", "2", "MB", "-2 MB", "2 MiB", "1e3 kB", "2 MB a day", "9" * 16 + " B"])
def test_what_is_no_number_of_bytes_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="a number of bytes was wanted, such as 1500"):
        read_bytes(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (123_456, "123 kB"),
        (2_500_000, "2.5 MB"),
        (3e9, "3.0 GB"),
    ],
)
def test_a_number_is_spelt(count: float, text: str) -> None:
    assert spell_bytes(count) == text
