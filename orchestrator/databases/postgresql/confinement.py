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

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import asyncpg
from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.util import await_only

from orchestrator.databases.failures import shortened
from orchestrator.databases.postgresql.concurrently import CONCURRENTLY, LEADING
from orchestrator.databases.postgresql.copying.clone_needs import REACHING
from orchestrator.databases.postgresql.copying.meter import stands_for_itself
from orchestrator.databases.postgresql.script import literal
from orchestrator.errors import DatabaseError

#: What ends a transaction, and of that what commits it.
_ENDING = re.compile(
    LEADING + r"(?:(COMMIT|END)|ROLLBACK|ABORT)\b(?!\s+(?:(?:WORK|TRANSACTION)\s+)?(?:TO|PREPARED)\b)",
    re.IGNORECASE | re.DOTALL,
)
#: It has to come before any question in its transaction, and writes nothing.
_ISOLATES = re.compile(LEADING + r"SET\s+TRANSACTION\b", re.IGNORECASE | re.DOTALL)
#: What is about transactions, or the session.
_AROUND = re.compile(
    LEADING
    + r"(?:BEGIN|START|(?:COMMIT|ROLLBACK)(?!\s+PREPARED)|END|ABORT|SAVEPOINT|RELEASE|SET|RESET|SHOW|DISCARD)\b",
    re.IGNORECASE | re.DOTALL,
)
#: What runs only outside transactions, and stays in its database.
_STAYS = re.compile(
    f"{LEADING}(?:{CONCURRENTLY}"
    r"|(?:VACUUM|CLUSTER|REINDEX\s*(?:\([^)]*\)\s*)?(?:INDEX|TABLE|SCHEMA)"
    r"|ALTER\s+TABLE\b[^;']*\bDETACH\s+PARTITION\b[^;']*\bFINALIZE)\b)",
    re.IGNORECASE | re.DOTALL,
)
#: No other database's; so only where that is the migration's own.
_REINDEXES_ALL = re.compile(LEADING + r"REINDEX\s*(?:\([^)]*\)\s*)?DATABASE\b", re.IGNORECASE | re.DOTALL)
#: What may end transactions by itself; the name of what is called.
_CALLS = re.compile(LEADING + r"(?:DO\b|CALL\s+(?:[^\s(]*\.)?\"?([^\s(\".]+)\"?\s*\()", re.IGNORECASE | re.DOTALL)
_ENDS = re.compile(r"\b(?:COMMIT|ROLLBACK)\b", re.IGNORECASE)
#: It puts SQL together, of which nobody can tell what it does.
_EXECUTES = re.compile(r"\bEXECUTE\b", re.IGNORECASE)
#: What such a body may have done by then, SQL that it puts together apart.
_MAY_REACH = re.compile(
    r"\b(?:GRANT|REVOKE|OWNED|COPY|dblink\w*"
    r"|(?:CREATE|ALTER|DROP|ON)\s+(?:ROLE|USER|GROUP|DATABASE|TABLESPACE|SUBSCRIPTION|SYSTEM|SERVER|FOREIGN|EXTENSION))\b",
    re.IGNORECASE,
)
_BODIES = "SELECT coalesce(string_agg(prosrc, ' '), '') FROM pg_proc WHERE proname = $1 AND prokind = 'p'"
#: Files and programs of the server's host; a transaction that the server keeps for whoever comes.
_HOST = re.compile(
    "^" + LEADING + r"(?:COPY\b.*\b(?:PROGRAM|TO)\s*E?'|PREPARE\s+TRANSACTION\b)"
    r"|\b(?:lo_export|pg_file_(?:write|unlink|rename|sync))\s*\(",
    re.IGNORECASE | re.DOTALL,
)
#: The server runs these only outside transactions; a procedure has ended one.
_NOT_IN_TRANSACTION = frozenset({"25001", "2D000"})
_ITS_PARTS = "write the loop in Python: in an autocommit block each op.execute() commits by itself"
#: The transaction has failed, and can only be rolled back.
_FAILED = "25P02"
#: Catalogs of the server, but for the one that says who owns what.
_SHARED = (
    *("pg_authid", "pg_auth_members", "pg_database", "pg_db_role_setting", "pg_parameter_acl", "pg_replication_origin"),
    *("pg_shdescription", "pg_shseclabel", "pg_subscription", "pg_tablespace"),
)
#: Counted by the backend itself, as it goes; what a savepoint takes back counts, too.
_WRITTEN = f"""
    SELECT c.oid::regclass::text AS name, pg_stat_get_xact_tuples_inserted(c.oid)
        + pg_stat_get_xact_tuples_updated(c.oid) + pg_stat_get_xact_tuples_deleted(c.oid) AS rows
    FROM (SELECT to_regclass('pg_catalog.' || name)::oid FROM unnest(ARRAY[{", ".join(map(literal, _SHARED))}]) name)
        c (oid)
    WHERE c.oid IS NOT NULL
    UNION ALL SELECT 'does what nobody counts (track_counts is off)', NULL WHERE current_setting('track_counts') = 'off'
"""


#: Transactions that may begin on the server while one of ours is under way; older rows' numbers are farther off.
_MEANWHILE = 100_000_000


def ours(row: str) -> str:
    """SQL that says whether the running transaction has made or changed a row that it sees.

    The maker of a row that is visible and is still under way is ourselves; savepoints have later numbers. ``age()`` may
    count from where the server was before this transaction had a number: it tells no more than that a row is not older.
    """
    later = f"(({row}.xmin::text::bigint - txid_current()) & 4294967295)"
    return (
        f"age({row}.xmin) <= 0 AND CASE WHEN {later} > {_MEANWHILE} THEN false"
        # To others these have not begun, and nobody may ask for their status.
        f" WHEN txid_current() + {later} >= txid_snapshot_xmax(txid_current_snapshot()) THEN true"
        f" ELSE txid_status(txid_current() + {later}) = 'in progress' END"
    )


#: What is this database's own in catalogs that all share, and how that is told: it goes with it.
_OF_THIS = (
    ("pg_database", "d.oid", "d"),
    ("pg_db_role_setting", "s.setdatabase", "s"),
    ("pg_shdescription", "CASE WHEN n.classoid = 'pg_database'::regclass THEN n.objoid ELSE 0 END", "n"),
)
_HERE = "(SELECT oid FROM pg_database WHERE datname = current_database())"
_OWN_ROWS = " UNION ALL ".join(
    f"SELECT '{catalog}' WHERE EXISTS (SELECT FROM {catalog} {row} WHERE {of} = {_HERE} AND {ours(row)})"
    f" AND NOT EXISTS (SELECT FROM {catalog} {row} WHERE {of} <> {_HERE} AND {ours(row)})"
    for catalog, of, row in _OF_THIS
)
#: Extensions that reach other servers bring a wrapper, or are known by name.
_WAYS_OUT = f"""
    UNION ALL SELECT 'makes the foreign data wrapper ' || o.fdwname, NULL
    FROM pg_foreign_data_wrapper o WHERE {ours("o")}
    UNION ALL SELECT 'makes the foreign server ' || o.srvname, NULL FROM pg_foreign_server o WHERE {ours("o")}
    UNION ALL SELECT 'makes the foreign table ' || o.ftrelid::regclass, NULL FROM pg_foreign_table o WHERE {ours("o")}
    UNION ALL SELECT 'makes the extension ' || o.extname, NULL FROM pg_extension o
    WHERE {ours("o")} AND o.extname IN ({", ".join(map(literal, sorted(REACHING)))})
"""


class Beyond(DatabaseError):
    """A migration was about to do what would not be gone with its place; that was not done.

    Args:
        what: the statement, without its values, and what is wrong with it.
    """

    def __init__(self, message: str, *, hint: str | None, what: str) -> None:
        super().__init__(message, hint=hint)
        self.what = what


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
            if getattr(error.orig, "sqlstate", None) == _FAILED:
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
        return bool(_STAYS.match(statement) or (self.alone and _REINDEXES_ALL.match(statement)))

    def _run(self, context: Any, statement: str, run: Callable[[], None]) -> bool:
        """Run a statement, if it may be run; says whether it was."""
        if self._is_own(context):
            return False
        if not self.lenient and _HOST.search(statement):
            raise self._beyond(
                f"{shortened(statement)} (it reaches the server's files or programs, or outlives its session)"
            )
        connection = context.root_connection
        raw = _raw(connection)
        if not stands_for_itself(connection):
            self._within(connection, statement, run)
            return True
        if _AROUND.match(statement) or self._known_to_stay(statement):
            return False
        if (calls := _CALLS.match(statement)) is not None:
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
        if (ends := _ENDING.match(statement)) is not None:
            if ends[1] is not None:
                # As text it is no commit of SQLAlchemy's, of which anybody would be told.
                self._commits(connection)
            run()
            # With AND CHAIN the next one has begun.
            self._before.pop(raw, None)
            return
        if _ISOLATES.match(statement):
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
            if getattr(error, "sqlstate", None) in _NOT_IN_TRANSACTION:
                why = "it runs only outside transactions, where nothing can be taken back"
                hint = _ITS_PARTS if _CALLS.match(statement) else ""
                raise self._beyond(f"{shortened(statement)} ({why})", hint) from error
            raise

    def _body(self, raw: asyncpg.Connection, statement: str, called: str | None) -> str:
        with self.aside():
            return statement if called is None else await_only(raw.fetchval(_BODIES, called))

    def _works_in_parts(self, body: str) -> bool:
        """Whether it commits by itself, to change many rows for example, and does no more as far as its text tells."""
        if _ENDS.search(body) is None or _MAY_REACH.search(body) is not None:
            return False
        return self.at_its_word or _EXECUTES.search(body) is None

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
        ways = _WAYS_OUT if self.closed and not self.lenient else ""
        rows = await _counted(raw, ways)
        found = [what for what, count in rows.items() if count is None]
        before = self._before.get(raw, {})
        written = {name for name, count in rows.items() if count is not None and count != before.get(name, 0)}
        if self.alone and written & {catalog for catalog, *_ in _OF_THIS}:
            written -= {name for (name,) in await raw.fetch(_OWN_ROWS)}
        return [*found, *(f"writes to {name}" for name in sorted(written))]

    def _beyond(self, what: str, hint: str = "") -> Beyond:
        error = Beyond(
            f"this revision does what would stay when its {self.place} is gone, and that was not done: {what}",
            hint=self.hint or hint or None,
            what=what,
        )
        self.refused = self.refused or error
        return error


def _raw(connection: Connection) -> asyncpg.Connection:
    return connection.connection.driver_connection


async def _counted(raw: asyncpg.Connection, more: str = "") -> dict[str, int | None]:
    return {row["name"]: row["rows"] for row in await raw.fetch(_WRITTEN + more)}
