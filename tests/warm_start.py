"""Starts ``python -m orchestrator`` and ``python -m alembic`` without their imports, which are most of a short command.

One process imports everything and is forked for each command (tests/warm_server.py). The command has a process, a
directory, variables, streams and an exit code of its own, as ever. Tests about the start itself, about signals, kills
and terminals start Python; with TEST_COLD_START=1 all do, and CI runs the documentation so.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import IO

from tests import warm_client

#: What may be started so.
MODULES = ("orchestrator", "alembic")
_HERE = Path(__file__).parent
#: Variables that Python itself reads when it starts.
_PYTHONS = ("PYTHON", "LC_", "LANG")


class WarmStart:
    """The process that commands are forked from; ends with this one, whatever becomes of it."""

    def __init__(self) -> None:
        """Start it, and wait until it has imported everything: about a second."""
        self._directory = Path(tempfile.mkdtemp(prefix="orchestrator-warm-"))
        #: Its socket.
        self.address = str(self._directory / "socket")
        self._process = subprocess.Popen(
            [sys.executable, str(_HERE / "warm_server.py"), self.address],
            env={**os.environ, "NO_COLOR": "1", "PYTHONPATH": str(_HERE.parent)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n", "the warm start does not start"

    def stop(self) -> None:
        """End it; commands under way go on."""
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def run(
        self, module: str, args: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """``subprocess.run`` of ``python -m MODULE ARGS``, with nothing on stdin, and both outputs captured."""
        command = [sys.executable, "-m", module, *args]
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, Path(os.devnull).open() as nothing:
            streams = (nothing.fileno(), out.fileno(), err.fileno())
            connection, pid = warm_client.begin(self.address, module, args, str(cwd), env, streams)
            with closing(connection):
                try:
                    code = warm_client.end(connection, timeout)
                except TimeoutError:
                    # Its threads' stacks go to its stderr (warm_server.py), and whoever reads of it sees both.
                    os.kill(pid, signal.SIGABRT)
                    warm_client.end(connection)
                    expired = subprocess.TimeoutExpired(command, timeout)
                    expired.add_note(_text(out) + _text(err))
                    raise expired from None
                except BaseException:
                    os.kill(pid, signal.SIGKILL)
                    raise
            return subprocess.CompletedProcess(command, code, _text(out), _text(err))

    def start(self, module: str, args: Sequence[str], cwd: Path, env: Mapping[str, str]) -> Started:
        """``subprocess.Popen`` of ``python -m MODULE ARGS``, with nothing on stdin and stdout, stderr to be read."""
        said, say = os.pipe()
        with Path(os.devnull).open("r+") as nothing:
            streams = (nothing.fileno(), nothing.fileno(), say)
            begun = warm_client.begin(self.address, module, args, str(cwd), env, streams)
        os.close(say)
        return Started(*begun, os.fdopen(said))


class Started:
    """A command that goes on meanwhile: as much of :class:`subprocess.Popen` as tests of workers need.

    Args:
        connection: from :func:`tests.warm_client.begin`.
        pid: the command's.
        stderr: what it says.
    """

    def __init__(self, connection: socket.socket, pid: int, stderr: IO[str]) -> None:
        self.pid = pid
        self.stderr = stderr
        #: Its exit code, negative for the signal that ended it; ``None`` until it has ended.
        self.returncode: int | None = None
        self._connection = connection
        self._ended = threading.Event()
        threading.Thread(target=self._wait, daemon=True).start()

    def poll(self) -> int | None:
        """Its exit code, if it has ended."""
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Its exit code; TimeoutExpired where it goes on after so many seconds."""
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired("a command", timeout)
        assert self.returncode is not None, "the warm start has ended"
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it has not ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """As the kernel does where memory is short."""
        self.send_signal(signal.SIGKILL)

    def _wait(self) -> None:
        with closing(self._connection), suppress(OSError):
            self.returncode = warm_client.end(self._connection)
        self._ended.set()


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode().replace("\r\n", "\n").replace("\r", "\n")


@functools.cache
def warm_start() -> WarmStart:
    """The one of this process, started when it is first asked for; ``clean_environment`` in conftest.py stops it."""
    return WarmStart()


def stop() -> None:
    """End what :func:`warm_start` has started, if anything."""
    if warm_start.cache_info().currsize:
        warm_start().stop()
        warm_start.cache_clear()


def serves(interpreter: str, args: Sequence[str], env: Mapping[str, str]) -> bool:
    """Whether ``INTERPRETER ARGS`` with ``env`` beside the inherited variables is the same when it is started so."""
    return (
        not _cold()
        and interpreter == sys.executable
        and args[0] == "-m"
        and args[1] in MODULES
        and not any(name.startswith(_PYTHONS) for name in env)
    )


def script(module: str) -> str:
    """A shell script that is the command ``MODULE``."""
    if _cold():
        return f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n'
    client = f'"{sys.executable}" -I -S "{_HERE / "warm_client.py"}" "{warm_start().address}"'
    return f'#!/bin/sh\nexec {client} {module} "$@"\n'


def _cold() -> bool:
    return os.environ.get("TEST_COLD_START", "") not in ("", "0")
