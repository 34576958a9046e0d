"""Buffered reading in paho's place: one system call for as many packets as have arrived, and one copy for each."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import Any, Final, NamedTuple

_BUFFER: Final = 256 * 1024
"""Bytes read at once: a 100 kB chunk takes one call, and others get their turn within a fraction of a millisecond."""

_IDLE_BUFFER: Final = 8 * 1024
"""Bytes read at once while little comes: a fleet's sessions wait most of the time, each with its buffer."""

_LENGTH_BYTES: Final = 4
"""Most bytes of a packet's remaining length (MQTT 5, section 1.5.5)."""


class Packet(NamedTuple):
    """One MQTT packet: its first byte, and all after the fixed header, valid until the next one is asked for."""

    command: int
    body: memoryview


class ReadAhead:
    """Stands between paho and its socket (plain, TLS, or paho's own websocket wrapper).

    aiomqtt asks for packets for as long as `pending` is not zero. The socket itself is read at most once until
    `pending` has said zero, so a fast sender cannot hold the event loop. `largest` bounds a packet, and so the buffer.
    `heard` is when (`time.monotonic`) the last bytes came, of a whole packet or not.
    """

    def __init__(self, sock: Any, *, largest: int) -> None:  # noqa: ANN401 - paho has no type for all three
        self._sock = sock
        self._direct = isinstance(sock, socket.socket)
        self._raw: socket.socket = sock if self._direct else sock._socket  # noqa: SLF001 - paho's wrapper hides it
        self._raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._largest = largest
        self._buffer = memoryview(bytearray(_IDLE_BUFFER))
        self._start = self._stop = 0
        self._wanted = 0
        self.heard = time.monotonic()
        self._filled = self._more = self._full = False

    def packet(self) -> Packet | None:
        """Return the next packet, or None where it has not arrived whole.

        Raises BlockingIOError or another OSError as the socket does, ConnectionError when the peer has closed, and
        ValueError for a packet that is longer than it may be.
        """
        found = self._parse()
        if found is None and not self._filled:
            self._fill()
            found = self._parse()
        self._more = found is not None
        return found

    def pending(self) -> int:
        """Return how many bytes there are to look at without asking the kernel."""
        if self._more and self._start < self._stop:
            return self._stop - self._start
        self._filled = False
        if self._start >= self._stop and not self._full and len(self._buffer) > _IDLE_BUFFER:
            self._buffer, self._start, self._stop = memoryview(bytearray(_IDLE_BUFFER)), 0, 0
        # TLS may have decrypted more than it gave.
        return int(self._sock.pending()) if hasattr(self._sock, "pending") else 0

    def _parse(self) -> Packet | None:
        buffer, at, length = self._buffer, self._start + 1, 0
        if at < self._stop and buffer[at] < 0x80:  # noqa: PLR2004 - a short packet, as nearly all are
            return self._cut_out(at + 1, buffer[at])
        for place in range(_LENGTH_BYTES):
            if at >= self._stop:
                self._wanted = at + 1 - self._start
                return None
            byte = buffer[at]
            at += 1
            length |= (byte & 0x7F) << 7 * place
            if byte < 0x80:  # noqa: PLR2004 - the bit that says "one more byte"
                return self._cut_out(at, length)
        raise ValueError("a packet's length takes more than four bytes")

    def _cut_out(self, at: int, length: int) -> Packet | None:
        self._wanted = at + length - self._start
        if self._wanted > self._largest:
            raise ValueError(f"a packet of {self._wanted:,} bytes, where {self._largest:,} are allowed")
        if at + length > self._stop:
            return None
        command = self._buffer[self._start]
        self._start = at + length
        return Packet(command, self._buffer[at : self._start])

    def _fill(self) -> None:
        self._make_room()
        room = min(len(self._buffer), self._start + max(_BUFFER, self._wanted))
        if self._direct:
            count = self._sock.recv_into(self._buffer[self._stop : room])
        else:
            piece = self._sock.recv(room - self._stop)
            count = len(piece)
            self._buffer[self._stop : self._stop + count] = piece
        if count == 0:
            raise ConnectionError("closed by the other side")
        self.heard = time.monotonic()
        self._stop += count
        self._full, self._filled = self._stop == len(self._buffer), True

    def _make_room(self) -> None:
        """Move what is left to the front of a buffer that takes the packet that it begins."""
        if self._start == self._stop and not self._full and self._wanted <= len(self._buffer):
            self._start = self._stop = 0
            return
        left, size = self._buffer[self._start : self._stop], self._room()
        if size != len(self._buffer):
            self._buffer = memoryview(bytearray(size))
        elif left and self._start + self._wanted <= size:
            return
        self._buffer[: len(left)] = left
        self._start, self._stop = 0, len(left)

    def _room(self) -> int:
        """Return how long the buffer is to be: as the packet wants it, and large while what comes fills it."""
        size = len(self._buffer)
        if self._full:
            size = max(size, _BUFFER)
        return size if self._wanted <= size else self._wanted + _IDLE_BUFFER

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Send what the kernel takes of `data`; return how much that was.

        Raises BlockingIOError for nothing: paho's websocket says 0 when it wants the same data again, and paho's queue
        would drop it.
        """
        count = int(self._sock.send(data))
        if not count and data:
            raise BlockingIOError
        return count

    def shut(self) -> None:
        """End the connection in both directions; the event loop then finds it closed."""
        with contextlib.suppress(OSError):
            self._raw.shutdown(socket.SHUT_RDWR)

    def twin(self) -> socket.socket:
        """Return a second handle to the connection, without TLS: it stays until both are closed. Raises OSError."""
        return socket.socket(fileno=os.dup(self.fileno()))

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def fileno(self) -> int:
        """Return the descriptor, for the event loop."""
        return int(self._sock.fileno())

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001 - the socket interface's own spelling
        """Set the socket's mode."""
        self._sock.setblocking(flag)
