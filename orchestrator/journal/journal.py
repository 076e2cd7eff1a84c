"""The journal: runs, their attempts on tenants, their events. Recording never waits and never fails a run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL

from orchestrator.errors import JournalError
from orchestrator.fleet.secrets import mask
from orchestrator.journal import following, writing
from orchestrator.journal.faults import explained
from orchestrator.journal.pending import Pending
from orchestrator.journal.pulse import Pulse
from orchestrator.journal.questions import Questions
from orchestrator.journal.records import (
    AttemptRecord,
    EventRecord,
    RevisionRecord,
    RunRecord,
    StepRecord,
    alive,
)
from orchestrator.journal.store import Store
from orchestrator.statuses import RunStatus

__all__ = ["Journal", "alive", "default_url"]

#: Directory beside tenants.yaml for the journal and whatever else a run leaves behind.
DIRECTORY = ".orchestrator"
#: Seconds between two batches, at least; a killed process loses what came after the last one.
FLUSH_INTERVAL = 0.1
#: Seconds between two tries while the journal cannot be written, at most.
RETRY_INTERVAL = 5.0
#: Seconds after which an open run's heartbeat is renewed.
HEARTBEAT_INTERVAL = 5.0

log = logging.getLogger("orchestrator.journal")
T = TypeVar("T")


def default_url(root: Path) -> URL:
    """Where the journal is when tenants.yaml names no place: a SQLite file beside it."""
    return URL.create("sqlite+aiosqlite", database=str(root / DIRECTORY / "journal.db"))


class Journal(Questions):
    """An open journal. Make one with :meth:`open`, end it with :meth:`close`, use it in that event loop only."""

    def __init__(self, store: Store, root: Path, *, exists: bool) -> None:
        super().__init__(store, exists=exists)
        #: Seconds between two batches, at least, where it is not to be :data:`FLUSH_INTERVAL`.
        self.flush_interval: float | None = None
        self._root = root
        self._pending = Pending()
        #: Where the journal is when nobody names a place: its directory is made, and made again.
        self._place_is_ours = False
        #: The last of everything that belongs to a run under way here: the journal may have to be begun anew.
        self._kept = Pending()
        self._recorded = asyncio.Event()
        self._one_batch = asyncio.Lock()
        self._flusher: asyncio.Task[None] | None = None
        self._fault: Exception | None = None
        self._running: set[str] = set()
        #: Those of which something is kept.
        self._runs: dict[str, RunRecord] = {}
        self._pulse: Pulse | None = None
        self._next_beat = 0.0
        self._numbers = count()

    @classmethod
    async def open(
        cls,
        url: URL,
        connect_args: Mapping[str, Any] | None = None,
        masked: str | None = None,
        *,
        root: Path,
        read_only: bool = False,
    ) -> Journal:
        """Open a journal, making or migrating its tables first where that is needed.

        Args:
            url: SQLAlchemy's address, for aiosqlite or asyncpg; see :func:`default_url`.
            connect_args: what else asyncpg is to be called with.
            masked: the address for messages; made from ``url`` when not given.
            root: the directory that holds tenants.yaml; records that cannot be written are saved under it.
            read_only: create and write nothing; a journal that is not there reads as empty.

        Raises:
            JournalError: the database cannot be used, or the journal is newer than this package.
        """
        place = mask(masked or _place(url))
        store = Store(url, connect_args or {}, place, read_only=read_only)
        if not read_only and url == default_url(root):
            _make_directory(root / DIRECTORY, place)
        try:
            if read_only:
                exists = await store.look()
            else:
                await store.prepare()
                exists = True
        except BaseException:
            await store.close()
            raise
        journal = cls(store, root, exists=exists)
        journal._place_is_ours = url == default_url(root)
        if not read_only:
            journal._flusher = asyncio.create_task(journal._keep_flushing(), name="orchestrator journal")
        return journal

    async def start_run(
        self, run: RunRecord, attempts: Sequence[AttemptRecord], was: RunRecord | None = None
    ) -> RunStatus | None:
        """Write down what is about to happen; on disk when this returns.

        Starting a run that is in the journal already carries it on: what is given replaces what was there, the
        other tenants' attempts and their order stay. Only what it was asked to end as while it was planned stays, too.

        Args:
            run: the run; its first heartbeat is now unless it has one.
            attempts: one per selected tenant, in the order that :meth:`attempts` is to give them back.
            was: the run as the journal had it before it was carried on: what it was asked for by then was asked of
                a process that is gone. ``None`` where whoever asks asks the process that is to carry it out.

        Returns:
            What it is to end as before anybody is begun; ``None`` where nobody has asked.

        Raises:
            JournalError: it could not be written; nothing of it was.
        """
        if run.heartbeat_at is None:
            run = replace(run, heartbeat_at=datetime.now(UTC))
        asked = await self._whole(self._write_start(run, attempts, was))
        self._running.add(run.id)
        self._runs[run.id] = run
        if self._may_be_lost:
            self._kept.attempts.update({(each.run, each.tenant): each for each in attempts})
        if self._pulse is None:
            self._pulse = Pulse(self._store.again, lambda: tuple(self._running), HEARTBEAT_INTERVAL)
        self._next_beat = asyncio.get_running_loop().time() + HEARTBEAT_INTERVAL
        self._recorded.set()
        return asked

    def record(self, attempt: AttemptRecord) -> None:
        """Note how far an attempt has come. Returns at once; of one tenant's records in a run, the last one counts."""
        self._pending.attempts[attempt.run, attempt.tenant] = attempt
        if self._may_be_lost:
            self._kept.attempts[attempt.run, attempt.tenant] = attempt
        self._recorded.set()

    def record_event(self, event: EventRecord) -> None:
        """Note something that happened. Returns at once."""
        self._pending.events[next(self._numbers)] = event
        self._recorded.set()

    def record_revision(self, revision: RevisionRecord) -> None:
        """Note which file a revision is applied from. Returns at once."""
        key = revision.revision, revision.checksum
        self._pending.revisions[key] = self._kept.revisions[key] = revision
        self._recorded.set()

    def record_step(self, step: StepRecord) -> None:
        """Note how far a step outside any transaction has come. Returns at once; :meth:`flush` waits."""
        self._pending.steps[step.tenant] = step
        if self._may_be_lost:
            self._kept.steps[step.tenant] = step
        self._recorded.set()

    async def finish_run(self, run_id: str, status: RunStatus, finished_at: datetime) -> None:
        """Write everything recorded so far and how the run ended; on disk when this returns.

        A journal that cannot be written does not fail the run: :meth:`close` tries again and says so.
        """
        self._running.discard(run_id)
        if not self._running:
            self._stop_pulse()
        self._pending.finishes[run_id] = (status, finished_at)
        if await self.flush():
            self._runs.pop(run_id, None)
        if not self._runs:
            self._kept.take()

    async def flush(self, *, durable: bool = False) -> bool:
        """Write everything recorded so far.

        Args:
            durable: wait until it would outlive a power failure; otherwise it outlives the process.

        Returns:
            Whether it is on disk. What is not is kept, and tried again.
        """
        self._pending.durable = durable or self._pending.durable
        return await self._whole(self._flush())

    async def ask(self, run_id: str, status: RunStatus) -> bool:
        """Ask the process that carries out a run to end it as ``status``, or end it where nobody does.

        Returns:
            Whether the run had not ended before.

        Raises:
            JournalError: it could not be written.
        """
        return await self._whole(self._write_asked(run_id, status))

    async def turn(self, run_id: str, status: RunStatus, was: RunStatus) -> None:
        """Tell those who work on a run how it stands, unless somebody has asked for something else than ``was``."""
        async with self._store.writing() as connection:
            await following.turn(connection, run_id, status, was)

    def let_go(self, run_id: str) -> None:
        """Others carry out from now on a run that was started here."""
        self._running.discard(run_id)
        self._runs.pop(run_id, None)
        if not self._running:
            self._stop_pulse()
            self._kept.take()

    async def close(self) -> None:
        """Write what is left and close every connection.

        Raises:
            JournalError: something could not be written; says what, and in which file it was saved instead.
        """
        self._stop_pulse()
        try:
            await self._stop_flusher()
            await self.flush()
        finally:
            await self._store.close()
        unsaved = self._pending.take()
        if unsaved.has_news:
            raise self._save(unsaved) from self._fault

    @property
    def _may_be_lost(self) -> bool:
        """A file may be removed while it is in use; and a worker must not remember every tenant that it ever met."""
        return self._store.dialect == "sqlite"

    async def _whole(self, writing: Coroutine[Any, Any, T]) -> T:
        """A server undoes what was cut off; a file has to be let go by us."""
        return await (_to_its_end(writing) if self._store.dialect == "sqlite" else writing)

    async def _write_start(
        self, run: RunRecord, attempts: Sequence[AttemptRecord], was: RunRecord | None
    ) -> RunStatus | None:
        async with self._one_batch, self._store.writing() as connection:
            asked = await writing.asked_since(connection, run.id, was)
            await writing.write_start(connection, run if asked is None else replace(run, status=asked), attempts)
        return asked

    async def _write_asked(self, run_id: str, status: RunStatus) -> bool:
        async with self._one_batch, self._store.writing(durable=True) as connection:
            return await writing.write_asked(connection, run_id, status)

    async def _flush(self) -> bool:
        async with self._one_batch:
            taken = self._pending.take()
            if not taken and not self._store.is_lost:
                return True
            try:
                if self._store.is_lost:
                    await self._begin_anew()
                async with self._store.writing(durable=taken.durable) as connection:
                    await writing.write_pending(connection, taken)
            except BaseException as error:
                self._pending.put_back(taken)
                if not isinstance(error, Exception):
                    raise
                self._report(error)
                return False
        if self._fault is not None:
            self._fault = None
            log.warning("the journal %s is written again; nothing was lost", self._store.place)
        return True

    async def _begin_anew(self) -> None:
        """The file is gone: make another one, with all that is known here of the runs under way."""
        if self._place_is_ours:
            _make_directory(self._root / DIRECTORY, self._store.place)
        await self._store.renew()
        for run in self._runs.values():
            attempts = [attempt for attempt in self._kept.attempts.values() if attempt.run == run.id]
            async with self._store.writing() as connection:
                await writing.write_start(connection, run, attempts)
        kept = Pending(steps=self._kept.steps, revisions=self._kept.revisions)
        async with self._store.writing() as connection:
            await writing.write_pending(connection, kept)
        log.warning("the journal %s was removed; it is begun anew, with this run and no earlier one", self._store.place)

    async def _keep_flushing(self) -> None:
        pause = 0.0
        while True:
            await self._wait_for_records()
            self._beat()
            often = FLUSH_INTERVAL if self.flush_interval is None else self.flush_interval
            written = await self.flush()
            pause = often if written else min(2 * max(pause, often), RETRY_INTERVAL)
            await asyncio.sleep(pause)
            if not written:
                self._recorded.set()

    async def _wait_for_records(self) -> None:
        try:
            async with asyncio.timeout(HEARTBEAT_INTERVAL if self._running else None):
                await self._recorded.wait()
        except TimeoutError:
            pass
        self._recorded.clear()

    def _beat(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._running and now >= self._next_beat:
            self._pending.heartbeats = dict.fromkeys(self._running, datetime.now(UTC))
            self._next_beat = now + HEARTBEAT_INTERVAL

    def _stop_pulse(self) -> None:
        if self._pulse is not None:
            self._pulse.stop()
            self._pulse = None

    async def _stop_flusher(self) -> None:
        if self._flusher is None:
            return
        async with self._one_batch:  # it may be cancelled between two batches, not within one
            self._flusher.cancel()
        await asyncio.wait({self._flusher})
        self._flusher = None

    def _report(self, error: Exception) -> None:
        if self._fault is None:
            log.warning("%s; the run goes on, and what happens is kept until it can be written", error)
        self._fault = error

    def _save(self, unsaved: Pending) -> JournalError:
        files = unsaved.save(self._root / DIRECTORY)
        where = f"it is saved in {', '.join(map(str, files))}" if files else "it could not be saved elsewhere either"
        return JournalError(
            f"{self._fault}; not in the journal: {len(unsaved.attempts)} attempts, {len(unsaved.events)} events, "
            f"{len(unsaved.finishes)} ends of runs; {where}",
            hint="the tenants are as the run left them: `orchestrator status` reads their databases",
        )


async def _to_its_end(writing: Coroutine[Any, Any, T]) -> T:
    """Let a transaction end before whoever waits for it is cancelled.

    Cut off in the middle, SQLAlchemy 2.0.36 over aiosqlite 0.20 gives the connection up without ending its transaction:
    the file stays locked for as long as the process lives (seen; later versions end it).
    """
    task = asyncio.create_task(writing)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None and not task.cancelled():
        task.exception()  # looked at, so that nobody is told that it was not
        raise cancelled
    return task.result()


def _place(url: URL) -> str:
    if url.get_backend_name() == "sqlite" and url.database:
        return url.database
    return url.render_as_string(hide_password=True)


def _make_directory(directory: Path, place: str) -> None:
    """Make the directory, and have git ignore what is in it."""
    with explained(place):
        directory.mkdir(parents=True, exist_ok=True)
        ignore = directory / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n", encoding="utf-8")
