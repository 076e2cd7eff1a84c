"""A process that has imported the orchestrator, and becomes a command's process each time it is asked for one.

A program, started by tests/warm_start.py: ``python warm_server.py SOCKET``. It ends when its stdin does. What a command
does from its first line to its exit code is its own; only its imports were made before.
"""

from __future__ import annotations

import gc
import marshal
import os
import pkgutil
import runpy
import select
import signal
import socket
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

LENGTH = 8  # as in warm_client, which is no module to this program

#: Imported by nobody: programs, and files that Alembic runs.
_NOT_MODULES = (".__main__", ".templates", ".migrations")
#: What SQLAlchemy, Alembic and asyncpg import when they are used.
_LATE = (
    "aiosqlite",
    "alembic.autogenerate",
    "alembic.command",
    "alembic.config",
    "asyncpg",
    "logging.config",
    "mako.template",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.dialects.sqlite.aiosqlite",
    "sqlalchemy.ext.asyncio",
)


def import_all() -> None:
    """Import what any command may."""
    # First, because it decides what Alembic imports.
    import_module("orchestrator.history")
    package = import_module("orchestrator")
    for module in pkgutil.walk_packages(package.__path__, "orchestrator."):
        if not any(part in module.name for part in _NOT_MODULES):
            import_module(module.name)
    for name in _LATE:
        import_module(name)


def serve(address: str) -> dict[str, Any] | None:
    """Wait for requests; returns one in the process that is to run it, and ``None`` in this one at its end."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        # Whoever waits for a command's end is a child of ours, and nobody waits for him.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([listener, 0], [], [])
            if 0 in ready:
                Path(address).unlink()
                return None
            connection, _ = listener.accept()
            if os.fork() == 0:
                return _answer(connection)
            connection.close()


def _answer(connection: socket.socket) -> dict[str, Any]:
    """Fork the command; this process tells the asker of its beginning and its end, and is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, streams, _, _ = socket.recv_fds(connection, LENGTH, 3)
    request = connection.recv(int.from_bytes(length, "big"), socket.MSG_WAITALL)
    command = os.fork()
    if command == 0:
        return {**marshal.loads(request), "streams": streams}
    for stream in streams:
        os.close(stream)
    connection.sendall(b"%d\n" % command)
    _, status = os.waitpid(command, 0)
    connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def become(request: dict[str, Any]) -> None:
    """Take over the streams, the directory, the variables and the arguments."""
    for number, stream in enumerate(request["streams"]):
        os.dup2(stream, number)
    os.closerange(3, 64)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    # A test run in the background of a shell has it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # As python -m has it.
    sys.path.insert(0, request["cwd"])
    sys.argv = [request["module"], *request["args"]]


if __name__ == "__main__":
    # The directory of this file: its neighbours are nobody's modules.
    del sys.path[0]
    gc.disable()
    import_all()
    # What is there now is no garbage; a command that looks for some would only copy the pages.
    gc.freeze()
    gc.enable()
    asked = serve(sys.argv[1])
    if asked is not None:
        become(asked)
        runpy.run_module(asked["module"], run_name="__main__", alter_sys=True)
