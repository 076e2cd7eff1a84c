"""A real TCP proxy before a PostgreSQL server that goes wrong at a known moment.

It understands as much of the protocol as tells one request from the next
(https://www.postgresql.org/docs/current/protocol-message-formats.html): a fault is set for the so-many-eth request
after which a client waits for an answer. So every point at which a client can lose its server can be named, and come
back to.
"""

from __future__ import annotations

import enum
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit

#: Codes that stand where a start-up message has its version: SSLRequest, GSSENCRequest, CancelRequest.
_ANSWERED_BY_A_BYTE = {80877103, 80877104}
_CANCEL = 80877102
#: Frontend messages after which the client waits: Query, Sync, Flush.
_ASKING = b"QSH"
#: How the server's answer to a Query or a Sync ends: ReadyForQuery, but for its last byte.
_READY = b"Z\x00\x00\x00\x05"


class Cut(enum.Enum):
    """What the server has to do with a request whose connection is cut."""

    #: It never hears of it.
    BEFORE = "before"
    #: It acts, and its answer is lost.
    AFTER = "after"


class FaultyNetwork:
    """The proxy; a context manager. Its own threads serve any number of connections."""

    def __init__(self, server: str) -> None:
        """For the server at the address ``server``."""
        parts = urlsplit(server)
        self._server = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lines: list[_Line] = []
        self._lock = threading.Lock()
        self._at: int | None = None
        self._cut = Cut.BEFORE
        self._with: Callable[[], None] = lambda: None
        #: What each request so far has said, over all connections, in their order; prepared ones say nothing.
        self.requests: list[str] = []
        #: Set when the fault has happened.
        self.fired = threading.Event()

    def url(self, url: str) -> str:
        """The address ``url`` by way of this proxy."""
        port = self._listener.getsockname()[1]
        parts = urlsplit(url)
        user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
        return parts._replace(netloc=f"{user}127.0.0.1:{port}").geturl()

    def fail_at(self, number: int, cut: Cut, also: Callable[[], None] = lambda: None) -> None:
        """Cut the connection that makes request ``number`` from now on (0 is the next), and do ``also`` first."""
        with self._lock:
            self._at, self._cut, self._with = len(self.requests) + number, cut, also
            self.fired.clear()

    def cut_all(self) -> None:
        """Cut every connection now."""
        for line in list(self._lines):
            line.cut()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # Closing alone does not wake a thread that waits in accept().
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut_all()
        for line in self._lines:
            line.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._server)
            except OSError:
                client.close()
                continue
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._lines.append(_Line(self, client, server))

    def _asked(self, message: bytes) -> Cut | None:
        """A request goes by. Returns what is to happen to its connection."""
        with self._lock:
            number = len(self.requests)
            text = message[5:-1].decode("utf-8", "replace") if message[:1] == b"Q" else ""
            self.requests.append(text)
            if number != self._at:
                return None
            cut, also = self._cut, self._with
        if cut is Cut.BEFORE:
            also()
        return cut

    def _done(self) -> None:
        if self._cut is Cut.AFTER:
            self._with()
        self.fired.set()


class _Line:
    """One connection: two threads, one for each direction."""

    def __init__(self, network: FaultyNetwork, client: socket.socket, server: socket.socket) -> None:
        self._network, self._client, self._server = network, client, server
        #: What the client has asked last is answered, and nobody is to hear of it.
        self._deaf = threading.Event()
        self._asked = b""
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._forth, self._back)]
        for thread in self._threads:
            thread.start()

    def cut(self) -> None:
        """Close both ends at once."""
        for end in (self._client, self._server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def join(self) -> None:
        """Wait until both directions have ended."""
        for thread in self._threads:
            thread.join()

    def _forth(self) -> None:
        with suppress(OSError):
            self._start()
            while True:
                kind = self._take(1)
                message = kind + self._body()
                cut = self._network._asked(message) if kind in _ASKING else None
                if cut is Cut.BEFORE:
                    break
                if cut is Cut.AFTER:
                    self._asked = kind
                    self._deaf.set()
                self._server.sendall(message)
                if kind == b"X":
                    # A goodbye is no fault: the server closes when it has done.
                    return
            self.cut()
            self._network._done()
            return
        self.cut()

    def _back(self) -> None:
        end = b""
        with suppress(OSError):
            while data := self._server.recv(65536):
                end = (end + data)[-6:]
                if not self._deaf.is_set():
                    self._client.sendall(data)
                elif self._asked == b"H" or end[:5] == _READY:
                    self.cut()
                    self._network._done()
                    return
        self.cut()

    def _start(self) -> None:
        """The messages before the first one that has a kind."""
        while True:
            message = self._body()
            self._server.sendall(message)
            code = struct.unpack("!i", message[4:8])[0]
            if code == _CANCEL:
                raise OSError("a request to cancel has no more to it")
            if code not in _ANSWERED_BY_A_BYTE:
                return

    def _body(self) -> bytes:
        length = self._take(4)
        return length + self._take(struct.unpack("!i", length)[0] - 4)

    def _take(self, size: int) -> bytes:
        taken = b""
        while len(taken) < size:
            more = self._client.recv(size - len(taken))
            if not more:
                raise OSError("the client has gone")
            taken += more
        return taken
