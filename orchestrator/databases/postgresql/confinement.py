"""Keeps what a migration does inside a place that will be gone: a tenant's clone, or a tenant of nobody's.

A database, and a schema still more, is not all that SQL reaches: roles and other databases stay when it is dropped, and
a foreign server or a program of the host is not in it at all. No list of statements can tell, because a function or a
DO block does it too. So after each statement the server is asked what this transaction has written to the catalogs that
all databases share, and which ways out it has made; a transaction that has done either ends there. What would stand for
itself is given a transaction for that. Not what PostgreSQL runs only outside one and what is known to stay in its
database: indexes that are built beside the application, VACUUM and the like.

Two things leave no trace in a catalog: files and programs of the host. Those are told by the statement's words, so not
where a function says them; no role but a superuser and whom it has named may use them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import asyncpg
from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.util import await_only

from orchestrator.databases.beyond import Beyond
from orchestrator.databases.failures import shortened
from orchestrator.databases.postgresql.copying.meter import stands_for_itself
from orchestrator.databases.postgresql.outreach import (
    AROUND,
    BODIES,
    CALLS,
    ENDING,
    ENDS,
    EXECUTES,
    FAILED,
    HOST,
    ISOLATES,
    ITS_PARTS,
    MAY_REACH,
    NOT_IN_TRANSACTION,
    OF_ALL,
    OF_THIS,
    OWN_ROWS,
    STAYS,
    WAYS_OUT,
    WRITTEN,
)


@dataclass(slots=True)
class Confinement:
    """Watches all that an engine's connections send; :meth:`listen`, and :meth:`end` when the migration is through."""

    #: Execution option of statements that are no part of the migration.
    own: str
    #: The place is a database; settings and rights of its own go with it.
    alone: bool = True
    #: Whether ways out of the database must not be made, either.
    closed: bool = True
    #: What it is, for people, and what to do where something is refused.
    place: str = "scratch tenant"
    hint: str = ""
    #: SQL that a body puts together, and commits, is taken to do no more than the words in that body say.
    at_its_word: bool = False
    #: The operator says that statements may work outside: only what is seen in a transaction anyway is refused.
    lenient: bool = False
    #: What is done here on our own account does not count for whoever measures.
    aside: Callable[[], AbstractContextManager[None]] = nullcontext
    #: Told that a statement is through that stands for itself, before its transaction is committed.
    through: Callable[[], None] = lambda: None
    #: Asked before a transaction is committed; what it raises keeps it from being.
    committing: Callable[[Connection], None] = lambda _: None
    #: Asked of text that runs where nothing can be taken back: what it would do to others beside it, if anything.
    beside: Callable[[Connection, str], str | None] = lambda _, __: None
    #: Around what a transaction has put off to its commit.
    settling: Callable[[], AbstractContextManager[None]] = nullcontext
    #: What was not done; the first.
    refused: Beyond | None = None
    #: Statements that ran outside a transaction, and of which nobody has seen whether they stayed.
    unseen: list[str] = field(default_factory=list)
    #: What a connection's backend had counted when its running transaction began. What earlier ones have written may be
    #: in it, or may have been put aside by the server meanwhile; within a transaction it puts nothing aside.
    _before: dict[asyncpg.Connection, dict[str, int | None]] = field(default_factory=dict)
    _ending: list[Callable[[], None]] = field(default_factory=list)

    def listen(self, connection: Connection) -> None:
        """Watch ``connection``, and any other one of its engine, from now on. In a migration's greenlet."""
        engine = connection.engine

        def execute(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
            return self._run(context, statement, lambda: cursor.execute(statement, parameters))

        def many(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
            return self._run(context, statement, lambda: cursor.executemany(statement, parameters))

        def bare(cursor: Any, statement: str, context: Any) -> bool:
            return self._run(context, statement, lambda: cursor.execute(statement))

        for name, listener in (("do_execute", execute), ("do_executemany", many), ("do_execute_no_params", bare)):
            event.listen(engine, name, listener)
            self._ending.append(partial(event.remove, engine, name, listener))

        def before(other: Connection, _: Any, statement: str, __: Any, context: Any, ___: bool) -> None:
            if not self._is_own(context) and self._known_to_stay(statement) and stands_for_itself(other):
                self._stays_here(other, statement, statement)

        # What says CONCURRENTLY another listener may send itself, and then nobody after it is asked.
        event.listen(engine, "before_cursor_execute", before)
        self._ending.append(partial(event.remove, engine, "before_cursor_execute", before))

        def other_commits(other: Connection) -> None:
            if other is not connection:
                self._committed(other)

        event.listen(connection, "commit", self._committed)
        event.listen(engine, "commit", other_commits)
        event.listen(engine, "rollback", self._rolls_back)
        self._ending.append(partial(event.remove, engine, "commit", other_commits))
        self._ending.append(partial(event.remove, connection, "commit", self._committed))
        self._ending.append(partial(event.remove, engine, "rollback", self._rolls_back))

    def end(self) -> None:
        """Watch no longer, before the engine serves somebody else."""
        while self._ending:
            # One that cannot be removed must not keep the others.
            with suppress(Exception):
                self._ending.pop()()
        self._before.clear()

    def _begins(self, connection: Connection, raw: asyncpg.Connection) -> None:
        """A transaction is about to send its first statement, or has sent nothing that writes."""
        if not raw.is_in_transaction():
            self._before.pop(raw, None)
            # The driver begins one with the first that it is given.
            connection.exec_driver_sql("SELECT 1", execution_options={self.own: True})
        if raw not in self._before:
            self._before[raw] = await_only(_counted(raw))

    def _rolls_back(self, connection: Connection) -> None:
        if not connection.closed and not connection.invalidated:
            self._before.pop(_raw(connection), None)

    def _committed(self, connection: Connection) -> None:
        """SQLAlchemy is about to commit; it takes the transaction for ended, also where this raises."""
        try:
            self._commits(connection)
        except BaseException:
            with suppress(Exception):
                connection.connection.rollback()
            raise

    def _commits(self, connection: Connection) -> None:
        """A transaction is about to be committed: what it has put off to then is done now, and looked at."""
        raw = _raw(connection)
        if not raw.is_in_transaction():
            return
        try:
            with self.aside():
                self._begins(connection, raw)
            with self.settling():
                self._settle(connection)
        except asyncpg.InFailedSQLTransactionError:
            return  # COMMIT will roll it back
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) == FAILED:
                return
            raise
        self._look(raw, "what it had put off to the commit")
        self.committing(connection)
        self._before.pop(raw, None)

    def _settle(self, connection: Connection) -> None:
        connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE", execution_options={self.own: True})

    def _is_own(self, context: Any) -> bool:
        return context is not None and bool(context.execution_options.get(self.own))

    def _known_to_stay(self, statement: str) -> bool:
        """Whether it is the kind that runs only outside transactions, and does nothing beyond its database."""
        return self.alone if OF_ALL.match(statement) else STAYS.match(statement) is not None

    def _run(self, context: Any, statement: str, run: Callable[[], None]) -> bool:
        """Run a statement, if it may be run; says whether it was."""
        if self._is_own(context):
            return False
        if not self.lenient and HOST.search(statement):
            raise self._beyond(
                f"{shortened(statement)} (it reaches the server's files or programs, or outlives its session)"
            )
        connection = context.root_connection
        raw = _raw(connection)
        if not stands_for_itself(connection):
            self._within(connection, statement, run)
            return True
        if AROUND.match(statement) or self._known_to_stay(statement):
            return False
        if (calls := CALLS.match(statement)) is not None:
            body = self._body(raw, statement, calls[1])
            if self._works_in_parts(body):
                self._stays_here(connection, statement, f"{statement} {body}")
                return False
            if self.lenient:
                self.unseen.append(shortened(statement))
                return False
        self._contained(connection, statement, run)
        return True

    def _stays_here(self, connection: Connection, statement: str, text: str) -> None:
        """What is known to stay in its database: others there may be concerned all the same."""
        with self.aside():
            found = self.beside(connection, text)
        if found is not None:
            raise self._beyond(f"{shortened(statement)} (it {found}, where nothing can be taken back)")

    def _within(self, connection: Connection, statement: str, run: Callable[[], None]) -> None:
        """Run a statement in the transaction that there is, or that the driver begins with it."""
        raw = _raw(connection)
        if (ends := ENDING.match(statement)) is not None:
            if ends[1] is not None:
                # As text it is no commit of SQLAlchemy's, of which anybody would be told.
                self._commits(connection)
            run()
            # With AND CHAIN the next one has begun.
            self._before.pop(raw, None)
            return
        if ISOLATES.match(statement):
            run()
            return
        with self.aside():
            self._begins(connection, raw)
        run()
        self._look(raw, shortened(statement))

    def _contained(self, connection: Connection, statement: str, run: Callable[[], None]) -> None:
        """Run what would stand for itself in a transaction of its own, where it can still be taken back."""
        raw = _raw(connection)
        with self.aside():
            await_only(raw.execute("BEGIN"))
            self._before[raw] = await_only(_counted(raw))
        try:
            run()
            # Here and not at COMMIT: it may do more, and fail, and that is the driver's error as any other.
            self._settle(connection)
            self._look(raw, shortened(statement))
            self.through()
            self.committing(connection)
            await_only(raw.execute("COMMIT"))
        except BaseException as error:
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                await_only(raw.execute("ROLLBACK"))
            if getattr(error, "sqlstate", None) in NOT_IN_TRANSACTION:
                why = "it runs only outside transactions, where nothing can be taken back"
                hint = ITS_PARTS if CALLS.match(statement) else ""
                raise self._beyond(f"{shortened(statement)} ({why})", hint) from error
            raise

    def _body(self, raw: asyncpg.Connection, statement: str, called: str | None) -> str:
        with self.aside():
            return statement if called is None else await_only(raw.fetchval(BODIES, called))

    def _works_in_parts(self, body: str) -> bool:
        """Whether it commits by itself, to change many rows for example, and does no more as far as its text tells."""
        if ENDS.search(body) is None or MAY_REACH.search(body) is not None:
            return False
        return self.at_its_word or EXECUTES.search(body) is None

    def _look(self, raw: asyncpg.Connection, what: str) -> None:
        with self.aside():
            try:
                found = await_only(self._seen(raw))
            except asyncpg.InFailedSQLTransactionError:
                return  # nothing of it can be committed
            if not found:
                return
            # Whoever catches what is raised here must not be able to commit it.
            with suppress(asyncpg.PostgresError):
                await_only(raw.execute("SELECT 1/0"))
        raise self._beyond(f"{what} (it {', '.join(found)})")

    async def _seen(self, raw: asyncpg.Connection) -> list[str]:
        ways = WAYS_OUT if self.closed and not self.lenient else ""
        rows = await _counted(raw, ways)
        found = [what for what, count in rows.items() if count is None]
        before = self._before.get(raw, {})
        written = {name for name, count in rows.items() if count is not None and count != before.get(name, 0)}
        if self.alone and written & {catalog for catalog, *_ in OF_THIS}:
            written -= {name for (name,) in await raw.fetch(OWN_ROWS)}
        return [*found, *(f"writes to {name}" for name in sorted(written))]

    def _beyond(self, what: str, hint: str = "") -> Beyond:
        error = Beyond(what, place=self.place, hint=self.hint or hint or None)
        self.refused = self.refused or error
        return error


def _raw(connection: Connection) -> asyncpg.Connection:
    return connection.connection.driver_connection


async def _counted(raw: asyncpg.Connection, more: str = "") -> dict[str, int | None]:
    return {row["name"]: row["rows"] for row in await raw.fetch(WRITTEN + more)}
