"""Whatever order things happen in, the journal reads back what was recorded last."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.journal.journal import Journal, default_url
from orchestrator.journal.records import EventRecord
from orchestrator.statuses import TenantStatus
from tests.unit.journal.samples import MOMENT, a_run, an_attempt

_TENANTS = st.sampled_from(["acme", "Acme", "ünï", "it's; --", '"quoted"', "$.run", ""])
_RECORD = st.tuples(st.just("record"), _TENANTS, st.sampled_from(TenantStatus))
_EVENT = st.tuples(st.just("event"), _TENANTS, st.text(max_size=5))
#: ``cancel``: whoever waits for a batch is told to stop. ``outage``: a batch is tried while another process writes.
_STEP = st.sampled_from(["flush", "read", "reopen", "outage", "cancel", "let go on"]).map(lambda name: (name,))


@example(steps=[("record", "acme", TenantStatus.CURRENT), ("cancel",)])
@settings(max_examples=40, deadline=None)
@given(steps=st.lists(_RECORD | _EVENT | _STEP, max_size=30))
def test_any_interleaving_reads_back_the_last_records(steps: list[tuple[str, ...]]) -> None:
    """Recording, flushing, reading, reopening and outages in any order lose nothing and repeat nothing."""
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(_check(Path(directory), steps))


async def _check(root: Path, steps: list[tuple[str, ...]]) -> None:
    url = default_url(root)
    run = a_run()
    journal = await Journal.open(url, root=root)
    await journal.start_run(run, [])
    statuses: dict[str, str] = {}
    kinds: list[tuple[str | None, str]] = []
    for step in [*steps, ("reopen",)]:
        match step:
            case ("record", tenant, status):
                journal.record(an_attempt(run, tenant, status=TenantStatus(status)))
                statuses[tenant] = status
            case ("event", tenant, kind):
                journal.record_event(EventRecord(run.id, tenant, MOMENT, kind))
                kinds.append((tenant, kind.replace("\0", "")))
            case ("flush",):
                assert await journal.flush()
            case ("read",):
                assert {found.tenant: found.status for found in await journal.attempts(run.id)} == statuses
            case ("let go on",):
                await asyncio.sleep(0)
            case ("cancel",):
                await _cancel_a_flush(journal)
            case ("outage",):
                await _flush_in_an_outage(journal, str(url.database))
            case ("reopen",):
                await journal.close()
                journal = await Journal.open(url, root=root)
    assert {found.tenant: found.status for found in await journal.attempts(run.id)} == statuses
    # Every opening writes events under a name of its own, so that of one moment only each opening's order is kept.
    assert sorted((found.tenant, found.kind) for found in await journal.events(run.id)) == sorted(kinds)
    await journal.close()


async def _cancel_a_flush(journal: Journal) -> None:
    flush = asyncio.create_task(journal.flush())
    await asyncio.sleep(0.0005)
    flush.cancel()
    await asyncio.wait({flush})


async def _flush_in_an_outage(journal: Journal, file: str) -> None:
    other = sqlite3.connect(file, isolation_level=None, timeout=10)
    # Only here: on a busy machine 10 ms are soon over.
    await _wait_for_other_writers(journal, milliseconds=10)
    async with journal._one_batch:  # no batch of its own is half done now
        other.execute("BEGIN IMMEDIATE")
        waiting = bool(journal._pending)
    assert await journal.flush() is not waiting
    other.rollback()
    other.close()
    await _wait_for_other_writers(journal, milliseconds=10_000)


async def _wait_for_other_writers(journal: Journal, *, milliseconds: int) -> None:
    async with journal._one_batch, journal._store.reading() as connection:
        await connection.exec_driver_sql(f"PRAGMA busy_timeout = {milliseconds}")
