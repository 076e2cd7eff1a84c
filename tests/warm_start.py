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
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
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
