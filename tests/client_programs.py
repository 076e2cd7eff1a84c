"""PostgreSQL's own programs, found on PATH first, behind scripts that hold them up or have them end badly."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from orchestrator.databases.server_binaries import find_client
from tests.servers import PostgresServer

_PLAIN = '#!/bin/sh\nexec {program} "$@"\n'
#: Opening a pipe with a name waits until somebody opens its other end.
_HELD = '#!/bin/sh\ncase "$*" in *--version*) ;; *) read -r go < {pipe};; esac\nexec {program} "$@"\n'


class Programs:
    """pg_dump, pg_restore and psql in a directory that PATH begins with."""

    def __init__(self, directory: Path, server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self._real = find_client(server.server_version // 10000).bindir
        self._directory = directory
        self._pipe = directory / "pipe"
        directory.mkdir()
        os.mkfifo(self._pipe)
        for name in ("pg_dump", "pg_restore", "psql"):
            self.script(name, _PLAIN)
        monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")

    def script(self, name: str, text: str) -> None:
        """Put a script in the place of a program; ``{program}`` in it is the real one."""
        path = self._directory / name
        path.write_text(text.replace("{program}", str(self._real / name)).replace("{pipe}", str(self._pipe)))
        path.chmod(0o755)

    @asynccontextmanager
    async def held(self, working: Awaitable[object]) -> AsyncIterator[asyncio.Future[object]]:
        """Begin something, and stop it where it starts pg_restore; it goes on at the end of the block."""
        self.script("pg_restore", _HELD)
        begun = asyncio.ensure_future(working)
        opened = asyncio.ensure_future(asyncio.to_thread(self._pipe.open, "w"))
        await asyncio.wait({begun, opened}, return_when=asyncio.FIRST_COMPLETED)
        if begun.done():
            # It never came to pg_restore: let go of the thread, and tell why.
            os.close(os.open(self._pipe, os.O_RDONLY | os.O_NONBLOCK))
            opened.result().close() if opened.done() else None
            await begun
        self.script("pg_restore", _PLAIN)
        with await opened as pipe:
            try:
                yield begun
            finally:
                pipe.write("go\n")
