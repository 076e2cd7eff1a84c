"""A process that has imported the orchestrator, and becomes a command's process each time it is asked for one.

A program, started by tests/warm_start.py: ``python warm_server.py SOCKET``. It ends when its stdin does. What a command
does from its first line to its exit code is its own; only its imports were made before.
"""

from __future__ import annotations

import faulthandler
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
from contextlib import suppress
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
#: What the engine does; with the lowest versions of the dependencies it is not installed.
_LATE_AND_EXTRA = ("dbos", "psycopg", "sqlalchemy.dialects.postgresql.psycopg")


def import_all() -> None:
    """Import what any command may."""
    # First, because it decides what Alembic imports.
    import_module("orchestrator.history")
    package = import_module("orchestrator")
    for module in pkgutil.walk_packages(package.__path__, "orchestrator."):
        if not any(part in module.name for part in _NOT_MODULES):
            with suppress(ImportError):  # it needs an extra that is not installed
                import_module(module.name)
    for name in _LATE:
        import_module(name)
    for name in _LATE_AND_EXTRA:
        with suppress(ImportError):
            import_module(name)


def serve(address: str) -> dict[str, Any] | None:
    """Wait for requests; returns one in the process that is to run it, and ``None`` in this one at its end."""
    asking: dict[int, socket.socket] = {}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        ended = _ends_of_children()
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([listener, ended, 0], [], [])
            if 0 in ready:
                Path(address).unlink()
                return None
            if ended in ready:
                os.read(ended, 64)
                _tell_ends(asking)
            if listener in ready:
                connection, _ = listener.accept()
                length, streams, _, _ = socket.recv_fds(connection, LENGTH, 3)
                request = connection.recv(int.from_bytes(length, "big"), socket.MSG_WAITALL)
                command = os.fork()
                if command == 0:
                    return {**marshal.loads(request), "streams": streams}
                for stream in streams:
                    os.close(stream)
                asking[command] = connection
                _tell(connection, command)


def _ends_of_children() -> int:
    """A descriptor that can be read from when a child has ended."""
    ended, signalled = os.pipe()
    os.set_blocking(signalled, False)
    signal.set_wakeup_fd(signalled)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return ended


def _tell_ends(asking: dict[int, socket.socket]) -> None:
    """Tell the askers how their commands have ended."""
    while asking:
        command, status = os.waitpid(-1, os.WNOHANG)
        if command == 0:
            return
        with asking.pop(command) as connection:
            _tell(connection, os.waitstatus_to_exitcode(status))


def _tell(connection: socket.socket, number: int) -> None:
    with suppress(OSError):  # whoever asked does not wait for it any more
        connection.sendall(b"%d\n" % number)


def become(request: dict[str, Any]) -> None:
    """Take over the streams, the directory, the variables and the arguments."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, stream in enumerate(request["streams"]):
        os.dup2(stream, number)
    os.closerange(3, 64)
    # Where a command stood that took too long: tests/warm_start.py aborts it.
    faulthandler.enable()
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
