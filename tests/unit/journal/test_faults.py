"""A journal file that cannot be used: what is said, and that a run goes on without it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import URL, event, make_url

from orchestrator.errors import JournalError
from orchestrator.journal import sqlite_file
from orchestrator.journal.journal import Journal, default_url
from orchestrator.journal.records import EventRecord
from orchestrator.statuses import RunStatus, TenantStatus
from tests.unit.journal.samples import MOMENT, a_run, an_attempt, opened

#: Opens journals in a directory that may not be written, as a user whom that binds, and tells what happens.
AS_A_STRANGER = """
import asyncio, os, sys
from pathlib import Path
from orchestrator.errors import JournalError
from orchestrator.journal.journal import Journal, default_url

async def attempt(root, read_only):
    try:
        journal = await Journal.open(default_url(root), root=root, read_only=read_only)
    except JournalError as error:
        return f"{error.message} | {error.hint}"
    count = len(await journal.runs())
    await journal.close()
    return count

async def main():
    await attempt(Path(sys.argv[1]), False)  # imports what it needs while it still may
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    for read_only in (False, True):
        print(await attempt(Path(sys.argv[2]), read_only))

asyncio.run(main())
"""


@pytest.fixture
def url(tmp_path: Path) -> URL:
    """The file beside tenants.yaml."""
    return default_url(tmp_path)


@contextmanager
def kept_by_another(url: URL) -> Iterator[None]:
    """The file while another process writes a long transaction."""
    other = sqlite3.connect(str(url.database), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.rollback()
        other.close()


async def refused(url: URL, root: Path, *, read_only: bool = False) -> JournalError:
    """The error that opening it ends with."""
    with pytest.raises(JournalError) as caught:
        await Journal.open(url, root=root, read_only=read_only)
    return caught.value


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_file_that_is_no_database(url: URL, tmp_path: Path, read_only: bool) -> None:
    """Says how to put it away, and that nothing that counts is lost with it."""
    (tmp_path / ".orchestrator").mkdir()
    (tmp_path / ".orchestrator" / "journal.db").write_bytes(b"not a database" * 1000)
    error = await refused(url, tmp_path, read_only=read_only)
    assert error.message == f"the journal {url.database} is not a SQLite database"
    assert f"mv {url.database} {url.database}.broken" in (error.hint or "")
    assert "the databases decide" in (error.hint or "")


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_file_that_was_cut_off(url: URL, tmp_path: Path, read_only: bool) -> None:
    """A copy that was not complete, a disk that was full."""
    async with opened(url, tmp_path) as journal:
        run = a_run()
        await journal.start_run(run, [an_attempt(run, f"t{number}") for number in range(1000)])
    os.truncate(str(url.database), 5000)
    assert "is damaged" in (await refused(url, tmp_path, read_only=read_only)).message


async def test_a_file_where_the_directory_should_be(url: URL, tmp_path: Path) -> None:
    """It is not the same as no journal: reading says so as writing does."""
    (tmp_path / ".orchestrator").write_text("in the way", encoding="utf-8")
    for read_only in (False, True):
        error = await refused(url, tmp_path, read_only=read_only)
        assert str(tmp_path / ".orchestrator") in error.message
        assert "journal: postgresql" in (error.hint or "")


async def test_a_directory_that_is_missing(tmp_path: Path) -> None:
    """Only the default directory is made: a mistyped one is not."""
    error = await refused(URL.create("sqlite+aiosqlite", database=str(tmp_path / "no" / "journal.db")), tmp_path)
    assert error.message == f"the journal {tmp_path}/no/journal.db cannot be opened"
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    "address", ["sqlite+aiosqlite://", "sqlite+aiosqlite:///:memory:", "mysql+aiomysql://u:pw@h/db"]
)
async def test_a_place_that_cannot_hold_a_journal(address: str, tmp_path: Path) -> None:
    """Memory is gone with the process; other dialects are not supported. No password is shown."""
    error = await refused(make_url(address), tmp_path)
    assert "cannot live in" in error.message
    assert "pw@" not in error.message


def test_a_read_only_directory() -> None:
    """Writing is refused with the path; reading what is there works all the same."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        warm, root = Path(directory, "warm"), Path(directory, "fleet")
        for path in (Path(directory), warm, root):
            path.mkdir(exist_ok=True)
            path.chmod(0o755)
        asyncio.run(_make_journal(root))
        (root / ".orchestrator").chmod(0o555)
        (root / ".orchestrator" / "journal.db").chmod(0o444)
        command = [sys.executable, "-c", AS_A_STRANGER, str(warm), str(root)]
        done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True)
        (root / ".orchestrator").chmod(0o755)
    writing, reading = done.stdout.splitlines()
    assert f"the journal {root}/.orchestrator/journal.db may not be written | make the file" in writing
    assert reading == "1"


async def _make_journal(root: Path) -> None:
    async with opened(default_url(root), root) as journal:
        await journal.start_run(a_run(), [])


async def test_git_ignores_the_directory(url: URL, tmp_path: Path) -> None:
    """And a .gitignore that somebody has changed is left as it is."""
    ignore = tmp_path / ".orchestrator" / ".gitignore"
    async with opened(url, tmp_path):
        assert ignore.read_text(encoding="utf-8") == "*\n"
    ignore.write_text("*.db\n", encoding="utf-8")
    async with opened(url, tmp_path):
        assert ignore.read_text(encoding="utf-8") == "*.db\n"


async def test_a_run_is_not_started_without_its_record(
    url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not written down before it happens could not be explained afterwards."""
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT", 0.01)
    async with opened(url, tmp_path) as journal:
        with kept_by_another(url), pytest.raises(JournalError, match="locked by another process"):
            await journal.start_run(a_run(), [])
        assert await journal.runs() == []


async def test_the_event_loop_goes_on_while_the_journal_waits(url: URL, tmp_path: Path) -> None:
    """Another orchestrator's write holds up the batch, not the tenants."""
    run = a_run()
    async with opened(url, tmp_path) as journal:
        await journal.start_run(run, [])
        with kept_by_another(url):
            journal.record(an_attempt(run, "acme"))
            batch = asyncio.create_task(journal.flush())
            for _ in range(100):
                await asyncio.sleep(0)
            assert not batch.done()
        assert await batch


async def test_two_that_make_the_file_at_once(url: URL, tmp_path: Path) -> None:
    """SQLite refuses to switch on the write-ahead log while another writes, and does not wait by itself."""
    (tmp_path / ".orchestrator").mkdir()
    with kept_by_another(url):
        opening = asyncio.create_task(Journal.open(url, root=tmp_path))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not opening.done()
    await (await opening).close()


async def test_an_outage_is_reported_once_and_loses_nothing(
    url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Recording goes on, what came last counts, and the end of the outage is told too."""
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT", 0.01)
    run = a_run()
    async with opened(url, tmp_path) as journal:
        await journal.start_run(run, [an_attempt(run, "acme")])
        with kept_by_another(url):
            journal.record(an_attempt(run, "acme", status=TenantStatus.RUNNING))
            journal.record_event(EventRecord(run.id, "acme", MOMENT, "revision"))
            assert not await journal.flush()
            journal.record(an_attempt(run, "acme", status=TenantStatus.SUCCEEDED))
            assert not await journal.flush()
        await journal.finish_run(run.id, RunStatus.SUCCEEDED, MOMENT)
        assert [found.status for found in await journal.attempts(run.id)] == [TenantStatus.SUCCEEDED]
        assert len(await journal.events(run.id)) == 1
    told = [(record.levelno, record.getMessage()) for record in caplog.records if "journal" in record.name]
    assert [level for level, _ in told] == [logging.WARNING, logging.WARNING]
    assert "locked by another process; the run goes on" in told[0][1]
    assert "nothing was lost" in told[1][1]


async def test_what_comes_during_a_failing_batch_counts(
    url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be written is kept, but not over what is newer."""
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT", 0.1)
    run = a_run()
    async with opened(url, tmp_path) as journal:
        await journal.start_run(run, [])
        with kept_by_another(url):
            journal.record(an_attempt(run, "acme", status=TenantStatus.RUNNING))
            batch = asyncio.create_task(journal.flush())
            while journal._pending:  # noqa: ASYNC110  # until the batch has taken it
                await asyncio.sleep(0)
            journal.record(an_attempt(run, "acme", status=TenantStatus.SUCCEEDED))
            assert not await batch
        assert [found.status for found in await journal.attempts(run.id)] == [TenantStatus.SUCCEEDED]


async def test_a_full_disk(url: URL, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """SQLite's own limit stands in for the disk's: the error is the same."""
    run = a_run()
    journal = await Journal.open(url, root=tmp_path)
    await journal.start_run(run, [])
    event.listen(journal._store._engine.sync_engine, "checkout", _allow_no_more_pages)
    for number in range(1000):
        journal.record(an_attempt(run, f"t{number}"))
    assert not await journal.flush()
    assert "cannot grow: the disk is full" in caplog.text
    with pytest.raises(JournalError, match="the disk is full"):
        await journal.close()


def _allow_no_more_pages(connection: sqlite3.Connection, *_: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA max_page_count = 1")  # SQLite takes it as: not more than there are
    cursor.close()


@pytest.mark.parametrize("beside", [True, False])
async def test_what_cannot_be_written_is_saved(
    url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: bool
) -> None:
    """As JSON lines beside the journal, else among the temporary files; close says where, and every time adds to it."""
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT", 0.01)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "fleet").mkdir()
    if not beside:
        (tmp_path / "fleet" / ".orchestrator").write_text("in the way", encoding="utf-8")
    run = a_run()
    other_place = URL.create("sqlite+aiosqlite", database=str(tmp_path / "journal.db"))
    journal = await Journal.open(other_place, root=tmp_path / "fleet")
    await journal.start_run(run, [])
    with kept_by_another(other_place):
        journal.record(replace(an_attempt(run, "acme"), error={"message": "password=hunter2"}))
        journal.record_event(EventRecord(run.id, "acme", MOMENT, "revision", "a1"))
        await journal.finish_run(run.id, RunStatus.SUCCEEDED, MOMENT)
        with pytest.raises(JournalError, match="1 attempts, 1 events, 1 ends of runs") as caught:
            await journal.close()
    (saved,) = (tmp_path / ("fleet/.orchestrator" if beside else "temporary")).glob(f"*unsaved-{run.id}.jsonl")
    assert str(saved) in caught.value.message
    assert "orchestrator status" in (caught.value.hint or "")
    attempt, happened, finish = map(json.loads, saved.read_text(encoding="utf-8").splitlines())
    assert (attempt["record"], attempt["tenant"], attempt["error"]) == ("attempt", "acme", {"message": "password=***"})
    assert (happened["record"], happened["revision"]) == ("event", "a1")
    assert (finish["record"], finish["status"]) == ("finish", "succeeded")


async def test_nowhere_to_save(url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then at least that is said."""
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT", 0.01)
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    run = a_run()
    journal = await Journal.open(
        URL.create("sqlite+aiosqlite", database=str(tmp_path / "journal.db")), root=tmp_path / "file"
    )
    with kept_by_another(URL.create("sqlite", database=str(tmp_path / "journal.db"))):
        journal.record(an_attempt(run, "acme"))
        with pytest.raises(JournalError, match="could not be saved elsewhere either"):
            await journal.close()


async def test_a_record_of_the_wrong_kind_does_not_end_the_run(url: URL, tmp_path: Path) -> None:
    """A mistake of ours in one record is reported like an outage; it must not kill the task that writes."""
    run = a_run()
    journal = await Journal.open(url, root=tmp_path)
    await journal.start_run(run, [])
    journal.record_event(EventRecord(run.id, "acme", None, "revision"))  # type: ignore[arg-type]
    assert not await journal.flush()
    with pytest.raises(JournalError, match="NOT NULL"):
        await journal.close()


async def test_ten_thousand_tenants_cost_little(url: URL, tmp_path: Path) -> None:
    """Processor time, so that a busy machine does not matter: under a second to start, and to record them all."""
    run = a_run()
    selected = [an_attempt(run, f"t{number:05}") for number in range(10_000)]
    async with opened(url, tmp_path) as journal:
        before = time.process_time()
        await journal.start_run(run, selected)
        started = time.process_time()
        for attempt in selected:
            journal.record(replace(attempt, status=TenantStatus.RUNNING))
            journal.record(replace(attempt, status=TenantStatus.SUCCEEDED, duration_ms=1.5, to_heads=("a1",)))
        assert await journal.flush()
        recorded = time.process_time()
    assert started - before < 1
    assert recorded - started < 1
