"""Valid bytes made wrong: the ways in which bits rot, writers err and attackers try."""

from __future__ import annotations

from hypothesis import strategies as st

# Leading bytes with a length behind them, and lengths at the edges of what fits.
NASTY = (
    b"\xc0", b"\xc1", b"\xc2", b"\x80", b"\x90", b"\xa0", b"\xff", b"\x00",
    b"\xc4\xff", b"\xc6\xff\xff\xff\xff", b"\xc7\x08\x01", b"\xc9\xff\xff\xff\xff\x01", b"\xd4\x01\x00",
    b"\xca\x7f\xc0\x00\x00", b"\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00", b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00", b"\xdb\xff\xff\xff\xff", b"\xdc\xff\xff", b"\xdd\xff\xff\xff\xff",
    b"\xde\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xa1\xff", b"\xa3\xed\xa0\x80", b"\xa1\x00",
)  # fmt: skip


def overwrite(data: bytes, at: int, piece: bytes) -> bytes:
    return data[:at] + piece + data[at + len(piece) :]


def insert(data: bytes, at: int, piece: bytes) -> bytes:
    return data[:at] + piece + data[at:]


def replace_one(data: bytes, at: int, piece: bytes) -> bytes:
    return data[:at] + piece + data[at + 1 :]


def remove(data: bytes, at: int, piece: bytes) -> bytes:
    return data[:at] + data[at + len(piece) :]


def repeat(data: bytes, at: int, piece: bytes) -> bytes:
    return data[:at] + data[at : at + 4 * len(piece)] + data[at:]


WAYS = (overwrite, insert, replace_one, remove, repeat)


@st.composite
def mutants(draw: st.DrawFn, data: bytes) -> bytes:
    """Return `data` with one to four things done to it."""
    for _ in range(draw(st.integers(1, 4))):
        way = draw(st.sampled_from(WAYS))
        piece = draw(st.sampled_from(NASTY) | st.binary(min_size=1, max_size=4))
        data = way(data, draw(st.integers(0, len(data))), piece)
    return data
