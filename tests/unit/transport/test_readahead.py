from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmq.transport.readahead import ReadAhead
from tests.unit.transport.test_packets import length_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, ReadAhead]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    near.settimeout(0.0)
    with near, far:
        yield far, ReadAhead(near, largest=2_000_000)


def packet(body: bytes, command: int = 0x30) -> bytes:
    return bytes([command]) + length_bytes(len(body)) + body


def drain(reader: ReadAhead) -> list[bytes]:
    """Read as aiomqtt does: on and on while there is something pending; then wait for the socket again."""
    found: list[bytes] = []
    while True:
        try:
            one = reader.packet()
        except BlockingIOError:
            return found
        if one is not None:
            found.append(bytes(one.body))
        if reader.pending() == 0:
            return found


class Scripted:
    """A socket that gives out what it has in pieces of the sizes it is told."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._socket = socket.socket()
        self.data, self.sizes = data, sizes
        self.asked = 0

    def recv(self, room: int) -> bytes:
        self.asked += 1
        if not self.data:
            raise BlockingIOError
        size = min(room, self.sizes.pop() if self.sizes else room)
        piece, self.data = self.data[:size], self.data[size:]
        return piece


@given(
    st.lists(st.binary(max_size=400) | st.just(bytes(300_000)), max_size=6),
    st.lists(st.integers(1, 200), max_size=20),
)
def test_packets_come_whole_however_they_were_cut(bodies: list[bytes], sizes: list[int]) -> None:
    sock = Scripted(b"".join(packet(body) for body in bodies), sizes)
    with sock._socket:
        reader, found = ReadAhead(sock, largest=400_000), []
        while sock.data:
            asked = sock.asked
            found += drain(reader)
            assert sock.asked <= asked + 1  # others get their turn between two system calls
        assert found == bodies
        assert reader.pending() == 0


def test_many_small_packets_take_one_system_call(ends: tuple[socket.socket, ReadAhead]) -> None:
    far, reader = ends
    far.sendall(b"".join(packet(bytes([n])) for n in range(100)))
    assert drain(reader) == [bytes([n]) for n in range(100)]


def test_an_empty_packet_and_its_command(ends: tuple[socket.socket, ReadAhead]) -> None:
    far, reader = ends
    far.sendall(packet(b"", 0xD0))
    found = reader.packet()
    assert found is not None
    assert (found.command, bytes(found.body)) == (0xD0, b"")


def test_a_packet_beyond_the_limit_is_refused_before_it_is_stored(
    ends: tuple[socket.socket, ReadAhead],
) -> None:
    far, reader = ends
    far.sendall(b"\x30" + length_bytes(2_000_000))
    with pytest.raises(ValueError, match="2,000,004 bytes, where 2,000,000 are allowed"):
        reader.packet()


def test_a_length_without_end_is_refused(ends: tuple[socket.socket, ReadAhead]) -> None:
    far, reader = ends
    far.sendall(b"\x30\xff\xff\xff\xff\xff")
    with pytest.raises(ValueError, match="four bytes"):
        reader.packet()


def test_the_other_side_closes(ends: tuple[socket.socket, ReadAhead]) -> None:
    far, reader = ends
    far.close()
    with pytest.raises(ConnectionError):
        reader.packet()


def test_shut_ends_both_directions_and_can_be_repeated(ends: tuple[socket.socket, ReadAhead]) -> None:
    far, reader = ends
    reader.shut()
    assert far.recv(1) == b""
    reader.close()
    reader.shut()
    assert reader.fileno() == -1


def test_a_websocket_that_took_nothing_is_asked_again(ends: tuple[socket.socket, ReadAhead]) -> None:
    _, reader = ends
    assert reader.send(memoryview(b"all")) == 3
    reader._sock = type("Full", (), {"send": lambda self, data: 0})()
    with pytest.raises(BlockingIOError):
        reader.send(b"x")


def test_part_of_a_packet_is_heard_too(ends: tuple[socket.socket, ReadAhead]) -> None:
    far, reader = ends
    reader.heard = 0.0
    with pytest.raises(BlockingIOError):
        reader.packet()
    assert reader.heard == 0.0, "nothing came"
    far.sendall(packet(b"slowly")[:3])
    assert reader.packet() is None
    assert time.monotonic() - reader.heard < 60


def test_the_buffer_is_large_only_while_much_comes(ends: tuple[socket.socket, ReadAhead]) -> None:
    far, reader = ends
    lengths = [len(reader._buffer)]
    for size in (10, 400_000, 10):
        far.sendall(packet(bytes(size)))
        found, longest = list[bytes](), 0
        while not found:
            found = drain(reader)
            longest = max(longest, len(reader._buffer))
        assert [len(body) for body in found] == [size]
        lengths += [longest, len(reader._buffer)]
    assert (lengths[1], lengths[5]) == (8_192, 8_192)
    assert lengths[3] > 200_000
    assert lengths[::2] == [8_192] * 4, "nobody waits with a large one"
