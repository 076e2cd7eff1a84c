"""Asks a warm start (tests/warm_start.py) for a command and lends it its own streams; also as a program, for shells.

As a program it stands for the command, so it imports next to nothing.
"""

from __future__ import annotations

import marshal
import os
import socket
import sys
from collections.abc import Mapping, Sequence

#: Bytes in front of a request that say how long it is.
LENGTH = 8


def begin(
    address: str, module: str, args: Sequence[str], cwd: str, env: Mapping[str, str], streams: Sequence[int]
) -> tuple[socket.socket, int]:
    """Let ``python -m MODULE ARGS`` begin.

    Args:
        address: the warm start's socket.
        module: what stands behind ``-m``.
        args: the command line after it.
        cwd: where the command runs.
        env: all of its variables.
        streams: descriptors for its stdin, stdout and stderr.

    Returns:
        What :func:`end` reads from, and the command's process id.
    """
    request = marshal.dumps({"module": module, "args": [*args], "cwd": cwd, "env": {**env}})
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(address)
        socket.send_fds(connection, [len(request).to_bytes(LENGTH, "big")], streams)
        connection.sendall(request)
        return connection, _number(connection)
    except BaseException:
        connection.close()
        raise


def end(connection: socket.socket, timeout: float | None = None) -> int:
    """The command's exit code, negative for the signal that ended it; TimeoutError after ``timeout`` seconds."""
    connection.settimeout(timeout)
    return _number(connection)


def _number(connection: socket.socket) -> int:
    """The server's next answer, a line."""
    line = b""
    while not line.endswith(b"\n"):
        more = connection.recv(1)
        if not more:
            raise ConnectionError("the warm start has ended")
        line += more
    return int(line)


if __name__ == "__main__":
    address, module, *args = sys.argv[1:]
    here = os.getcwd()  # noqa: PTH109 - importing pathlib takes longer than all of this
    connection, _ = begin(address, module, args, here, os.environ, (0, 1, 2))
    code = end(connection)
    # As a shell has it; and nothing here needs to be taken apart.
    os._exit(code if code >= 0 else 128 - code)
