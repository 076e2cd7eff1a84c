"""Measure what each revision does while it runs on a tenant's clone: time, locks, rows, write-ahead log, new files.

Every lock of a transaction is held to its end. So after each statement it is asked, from another connection, which
locks there are by now, and a lock counts from the beginning of the statement that has taken it to the commit. Where
statements stand for themselves, outside any transaction, nothing of them is left when they are through: there it is
asked again and again while they run. The time that asking takes is no part of what is measured.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.util import await_only

from orchestrator.databases.measuring import Held, Inside, Meter
from orchestrator.databases.postgresql.confinement import Confinement
from orchestrator.databases.sqlite.confinement import FileConfinement
from orchestrator.migration.recording import OWN, Recording

#: Seconds between two looks at the locks of a statement that stands for itself.
_LOOK = 0.02


@dataclass(frozen=True, slots=True)
class LockTaken:
    """A lock that a revision has taken on a table that was there before the migration."""

    table: str
    #: In PostgreSQL's own words: ``AccessExclusiveLock``.
    mode: str
    #: Milliseconds from the beginning of the statement that took it to the commit.
    held_ms: float


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A table that was written anew as a whole; or an index that was built, of a table that was there before."""

    table: str
    #: The index's name; ``None`` for the table itself.
    index: str | None
    #: Rows of the table, about; ``None`` where nobody has counted.
    rows: int | None
    #: Size of the table before, about.
    bytes: int


@dataclass(slots=True)
class RevisionMeasured:
    """What one revision did, in one direction."""

    revision: str
    duration_ms: float = 0.0
    #: Of it, milliseconds that the database was at work, or the way there.
    sql_ms: float = 0.0
    #: Milliseconds from the first statement to the commit.
    open_ms: float = 0.0
    locks: list[LockTaken] = field(default_factory=list)
    #: Rows inserted, updated and deleted, by table; under "" where it is not known which table's.
    written: dict[str, int] = field(default_factory=dict)
    #: Of them, updated and deleted in tables that were there before the migration: locked to the commit.
    changed: dict[str, int] = field(default_factory=dict)
    rewritten: list[Rewritten] = field(default_factory=list)
    #: What the server's write-ahead log grew by; ``None`` where that cannot be seen.
    wal_bytes: int | None = None
    #: Statements were run outside any transaction.
    outside: bool = False


@dataclass(slots=True)
class Measured(Recording):
    """A recording that also measures; see :attr:`revisions`."""

    meter: Meter | None = None
    #: Name of the version table, whose rows do not count.
    version_table: str = ""
    #: Keeps what is measured inside the clone.
    confinement: Confinement | FileConfinement | None = None
    revisions: list[RevisionMeasured] = field(default_factory=list)
    _aside_s: float = 0.0
    _began: float = 0.0
    #: When each revision of the running transaction sent its first statement in it.
    _opened: dict[str, float] = field(default_factory=dict)
    #: What there was before the first revision, and before the running one.
    _first: Inside | None = None
    _earlier: Inside | None = None
    _wal: int | None = None
    #: Rows that the running revision's statements say to have written.
    _rows: int = 0
    #: Locks of the running transaction: since when, and which revision has taken them.
    _held: dict[Held, tuple[float, RevisionMeasured]] = field(default_factory=dict)
    _sent_at: float = 0.0
    _looking: asyncio.Task[frozenset[Held]] | None = None
    _through: asyncio.Event | None = None
    _connection: Connection | None = None
    #: The running statement stands for itself.
    _bare: bool = False
    #: What it had locked when it was through.
    _at_end: frozenset[Held] = frozenset()

    @property
    def aside_ms(self) -> float:
        """Milliseconds that measuring itself took."""
        return self._aside_s * 1000

    def listen(self, connection: Connection) -> None:
        """Hear what is sent on ``connection`` from now on; the listeners end with it."""
        # Not super(): a dataclass with slots is a new class, which the compiler's cell does not know.
        Recording.listen(self, connection)
        assert self.meter is not None
        self.meter.unheard(OWN)
        self._connection = connection
        if isinstance(self.confinement, Confinement):
            self.confinement.aside = self._aside
            self.confinement.through = self._through_alone
            self.confinement.settling = self._settling
        if self.confinement is not None:
            self.confinement.listen(connection)

        def sends(_: Connection, __: Any, ___: str, ____: Any, state: Any, _____: bool) -> None:
            if self._running and not (state and state.execution_options.get(OWN)):
                self._sends()

        def sent(_: Connection, cursor: Any, statement: str, ___: Any, state: Any, ____: bool) -> None:
            if self._running and not (state and state.execution_options.get(OWN)):
                self._sent(cursor, statement)

        event.listen(connection, "before_cursor_execute", sends)
        event.listen(connection, "after_cursor_execute", sent)
        event.listen(connection, "commit", lambda _: self._released())
        event.listen(connection, "rollback", lambda _: self._released())

    def revision_begins(self, revision: str, heads: Collection[str]) -> None:
        """A revision is about to run."""
        Recording.revision_begins(self, revision, heads)
        self.revisions.append(RevisionMeasured(revision))
        self._earlier = None
        self._rows = 0
        self._began = self._now()

    def revision_ends(self, heads: Collection[str]) -> None:
        """A revision is through, its commit still to come: it has all its locks."""
        one = self.revisions[-1]
        one.duration_ms = (self._now() - self._began) * 1000
        if self._earlier is not None and self._connection is not None:
            with self._aside():
                self._compare(one, self._earlier, self._connection)
        Recording.revision_ends(self, heads)

    def finish(self) -> None:
        """The migration is through, or has failed."""
        self._released()
        if self.confinement is not None:
            self.confinement.end()

    def _now(self) -> float:
        return time.perf_counter() - self._aside_s

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """What is done here on our own account does not count."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._aside_s += time.perf_counter() - started

    def _sends(self) -> None:
        assert self.meter is not None
        assert self._connection is not None
        with self._aside():
            # Of a statement that has failed.
            await_only(self._seen())
            if self._earlier is None:
                self._earlier = self.meter.inside(self._connection)
                self._first = self._first or self._earlier
                self._wal = await_only(self.meter.outside(self._connection)).wal
            self._bare, self._at_end = self.meter.stands_for_itself(self._connection), frozenset()
            if self._bare:
                self._through = asyncio.Event()
                self._looking = asyncio.get_running_loop().create_task(self._look(self._through))
        self._sent_at = self._now()
        self._opened.setdefault(self.revisions[-1].revision, self._sent_at)

    def _sent(self, cursor: Any, statement: str) -> None:
        assert self.meter is not None
        assert self._connection is not None
        one, took = self.revisions[-1], self._now() - self._sent_at
        one.sql_ms += took * 1000
        if cursor.description is None and self.version_table not in statement:
            self._rows += max(cursor.rowcount, 0)
        with self._aside():
            if self._bare:
                one.outside = True
                for held in await_only(self._seen()) | self._at_end:
                    self._note(one, held, took)
                return
            for held in await_only(self.meter.outside(self._connection)).locks:
                self._held.setdefault(held, (self._sent_at, one))

    async def _look(self, through: asyncio.Event) -> frozenset[Held]:
        """What is locked while one statement runs."""
        assert self.meter is not None
        assert self._connection is not None
        seen: set[Held] = set()
        while not through.is_set():
            seen |= (await self.meter.outside(self._connection)).locks
            try:
                async with asyncio.timeout(_LOOK):
                    await through.wait()
            except TimeoutError:
                continue
        return frozenset(seen)

    def _through_alone(self) -> None:
        """A statement that stands for itself is through, and still holds all that it has locked."""
        assert self.meter is not None
        assert self._connection is not None
        with self._aside():
            seen = await_only(self._seen())
            self._at_end = seen | await_only(self.meter.outside(self._connection)).locks

    async def _seen(self) -> frozenset[Held]:
        if self._looking is None:
            return frozenset()
        assert self._through is not None
        self._through.set()
        looking, self._looking = self._looking, None
        return await looking

    @contextmanager
    def _settling(self) -> Iterator[None]:
        """What the transaction has put off to its commit is done now, while it holds its locks, and counts."""
        began = self._now()
        yield
        if self.revisions and self._connection is not None:
            assert self.meter is not None
            one, took = self.revisions[-1], (self._now() - began) * 1000
            one.sql_ms += took
            one.duration_ms += took
            with self._aside():
                for held in await_only(self.meter.outside(self._connection)).locks:
                    self._held.setdefault(held, (began, one))

    def _released(self) -> None:
        """The transaction ends, and with it all its locks."""
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        now = self._now()
        for held, (since, one) in self._held.items():
            self._note(one, held, now - since)
        for one in self.revisions:
            if one.revision in self._opened:
                one.open_ms = (now - self._opened[one.revision]) * 1000
        self._held.clear()
        self._opened.clear()

    def _note(self, one: RevisionMeasured, held: Held, seconds: float) -> None:
        """Keep a lock on what was there before: on what the migration itself has made, nobody else waits."""
        known = self._first.tables.get(held.table) if self._first is not None else None
        if known is not None and known.name.rpartition(".")[2] != self.version_table:
            one.locks.append(LockTaken(known.name, held.mode, seconds * 1000))

    def _compare(self, one: RevisionMeasured, before: Inside, connection: Connection) -> None:
        assert self.meter is not None
        assert self._first is not None
        after = self.meter.inside(connection)
        wal = await_only(self.meter.outside(connection)).wal
        if wal is not None and self._wal is not None:
            one.wal_bytes = wal - self._wal
        names = {oid: table.name for found in (before, after) for oid, table in found.tables.items()}
        one.written = self._more(before.written, after.written, names)
        there = {oid: table.name for oid, table in self._first.tables.items()}
        one.changed = self._more(before.changed, after.changed, there)
        if one.outside:
            # What was committed meanwhile the server counts, or has put aside by now: the statements' own word counts.
            one.written = {"": self._rows} if self._rows else {}
            one.changed = {}
        for oid, old in before.tables.items():
            new = after.tables.get(oid)
            if new is None or oid not in self._first.tables:
                continue
            if old.storage and new.storage != old.storage:
                one.rewritten.append(Rewritten(old.name, None, old.rows, old.bytes))
                continue
            built = [name for name, file in new.indexes.items() if file and old.indexes.get(name) != file]
            one.rewritten += [Rewritten(old.name, index, old.rows, old.bytes) for index in built]

    def _more(
        self, before: Mapping[int | None, int], after: Mapping[int | None, int], names: Mapping[int, str]
    ) -> dict[str, int]:
        """Rows by table, without the version table's; under "" those of tables that have no name in ``names``."""
        found: dict[str, int] = {}
        for oid, rows in after.items():
            # Without a table's name, Alembic's own row is among them.
            more = rows - before.get(oid, 0) - (oid is None)
            name = "" if oid is None else names.get(oid, "")
            if more > 0 and name.rpartition(".")[2] != self.version_table:
                found[name] = found.get(name, 0) + more
        return found


def to_the_end(revisions: Sequence[RevisionMeasured]) -> None:
    """Make of revisions that had a transaction each what they are in one: all locks are held until the last is done.

    Args:
        revisions: in the order in which they were run; changed in place.
    """
    later = 0.0
    for one in reversed(revisions):
        if one.outside:
            # It has committed what came before it.
            later = 0.0
            continue
        one.locks = [replace(lock, held_ms=lock.held_ms + later) for lock in one.locks]
        one.open_ms += later
        later = one.open_ms
