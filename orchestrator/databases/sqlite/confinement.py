"""Keeps what a migration does inside a file that will be gone: a tenant's clone, or a tenant of nobody's.

SQL reaches another file by ATTACH alone, or by VACUUM INTO, which attaches one, too. SQLite asks whoever has set an
authorizer, whatever says it (its documentation: "Compile-Time Authorization Callbacks", SQLITE_ATTACH), with the file's
name where that is written out.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.engine import AdaptedConnection

from orchestrator.databases.beyond import Beyond
from orchestrator.databases.failures import shortened

#: Databases that are gone with the connection; a plain VACUUM has one, too.
_OF_THE_CONNECTION = frozenset({"", ":memory:"})


@dataclass(slots=True)
class FileConfinement:
    """Watches all connections of an engine; :meth:`listen`, and :meth:`end` when the migration is through."""

    #: What it is, for people, and what to do where something is refused.
    place: str = "scratch tenant"
    hint: str = ""
    #: The operator says that statements may work outside.
    lenient: bool = False
    #: What was not done; the first.
    refused: Beyond | None = None
    #: Statements that reached another file, where that is allowed.
    unseen: list[str] = field(default_factory=list)
    #: What is being run.
    _statement: str = ""
    _over: bool = False
    _ending: list[Callable[[], None]] = field(default_factory=list)

    def listen(self, connection: Connection) -> None:
        """Watch ``connection``, and any other one of its engine, from now on. In a migration's greenlet."""
        engine = connection.engine
        self._authorize(connection.connection.dbapi_connection)

        def sends(_: Connection, __: Any, statement: str, ___: Any, ____: Any, _____: bool) -> None:
            self._statement = statement

        def opened(raw: Any, _: Any) -> None:
            self._authorize(raw)

        for name, listener in (("before_cursor_execute", sends), ("connect", opened)):
            event.listen(engine, name, listener)
            self._ending.append(partial(event.remove, engine, name, listener))

    def end(self) -> None:
        """Watch no longer."""
        self._over = True
        while self._ending:
            # One that cannot be removed must not keep the others.
            with suppress(Exception):
                self._ending.pop()()

    def _authorize(self, raw: Any) -> None:
        assert isinstance(raw, AdaptedConnection)
        # In the thread that has the connection; aiosqlite has a method of its own for it only of late.
        raw.run_async(lambda driver: driver._execute(driver._conn.set_authorizer, self._may))

    def _may(self, action: int, file: str | None, *_: str | None) -> int:
        """Asked by SQLite while it reads a statement; a name that is computed comes as none."""
        if action != sqlite3.SQLITE_ATTACH or file in _OF_THE_CONNECTION or self._over:
            return sqlite3.SQLITE_OK
        said = shortened(self._statement)
        if self.lenient:
            if said not in self.unseen:
                self.unseen.append(said)
            return sqlite3.SQLITE_OK
        self.refused = self.refused or Beyond(
            f"{said} (it reaches another file)", place=self.place, hint=self.hint or None
        )
        return sqlite3.SQLITE_DENY
