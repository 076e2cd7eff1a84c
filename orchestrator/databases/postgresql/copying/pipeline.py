"""Programs of PostgreSQL's at work, on a thread of their own: what they write goes through us.

Through us, because then they end when we are killed: whoever writes into a pipe that nobody reads is ended by the
kernel, and psql without a COMMIT at the end of its input leaves the server to roll back.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import IO, Any, TypeVar

from orchestrator.databases.libpq import Login
from orchestrator.databases.own_thread import on_own_thread
from orchestrator.errors import BackupError
from orchestrator.fleet.secrets import mask

#: Bytes that are moved at once.
CHUNK = 1 << 18
#: Lines that are told of what a program complained about.
_TOLD = 5
#: From here on a complaint repeats rows.
_ROWS = re.compile(r"^(?:DETAIL|CONTEXT|.*\bCOPY .*, line \d+)\b.*", re.MULTILINE | re.DOTALL)
#: PostgreSQL's words (in its own language, which programs are told to use) for what may pass by itself.
_PASSING = ("lock timeout", "deadlock detected", "too many clients", "starting up", "shutting down")

_T = TypeVar("_T")


@dataclass(slots=True)
class Program:
    """One program under way."""

    name: str
    process: subprocess.Popen[bytes]
    complaints: IO[bytes]

    def told(self) -> str:
        """What it complained about, for people: without rows, without secrets."""
        self.complaints.seek(0)
        text = self.complaints.read().decode(errors="replace")
        lines = [line for line in mask(_ROWS.sub("", text)).splitlines() if line.strip()]
        return "\n".join(lines[:_TOLD]) or f"exit code {self.process.returncode}"

    def failed(self) -> BackupError:
        """The error that it ended with."""
        told = self.told()
        return BackupError(f"{self.name} failed: {told}", passing=any(word in told for word in _PASSING))


@dataclass(slots=True)
class Pipeline:
    """Programs that belong together, and are cut off together."""

    _running: list[Program] = field(default_factory=list)
    _cut: bool = False
    _lock: Lock = field(default_factory=Lock)

    async def run(self, work: Callable[[Pipeline], _T]) -> _T:
        """Run ``work`` on a thread of its own; cancelled, its programs are killed first."""
        return await on_own_thread(lambda: self._to_its_end(work), self.cut)

    def start(self, name: str, command: Sequence[str], login: Login | None = None, **streams: Any) -> Program:
        """Start a program; what it writes to stderr is kept aside.

        Args:
            name: for messages.
            command: its path and arguments; none of them is secret.
            login: how it comes into its database.
            streams: ``stdin`` and ``stdout`` for Popen; without, it has none.
        """
        complaints = tempfile.TemporaryFile()  # noqa: SIM115  closed with its program
        with self._lock, (login or Login({})).environment() as (environment, inherited):
            if self._cut:
                complaints.close()
                raise BackupError(f"{name} was cut off")
            process = subprocess.Popen(
                command,
                stderr=complaints,
                # In English, for whoever searches for what they say.
                env={**environment, "LC_ALL": "C"},
                pass_fds=inherited,
                # A session of its own: Ctrl-C in the terminal is for us, who let running tenants finish.
                start_new_session=True,
                **{"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **streams},
            )
            program = Program(name, process, complaints)
            self._running.append(program)
        return program

    def cut(self) -> None:
        """Kill what runs, and start nothing more."""
        with self._lock:
            self._cut = True
            for program in self._running:
                program.process.kill()

    def _to_its_end(self, work: Callable[[Pipeline], _T]) -> _T:
        """Do the work; none of its programs outlives it."""
        try:
            return work(self)
        finally:
            for program in self._running:
                program.process.kill()
                for stream in (program.process.stdin, program.process.stdout, program.complaints):
                    # What psql did not read any more cannot be flushed either.
                    with suppress(BrokenPipeError):
                        if stream is not None:
                            stream.close()
                program.process.wait()
