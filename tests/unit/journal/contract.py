"""What a journal does, wherever it is kept: test_journal_sqlite.py and test_journal_postgresql.py both run this."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import URL

from orchestrator.errors import JournalError
from orchestrator.fleet.masking import remember
from orchestrator.journal import journal as journal_module
from orchestrator.journal.journal import Journal, alive
from orchestrator.journal.records import EventRecord, RevisionRecord, Spread, StepRecord, new_run_id
from orchestrator.statuses import RunStatus, TenantStatus
from tests.unit.journal.samples import MOMENT, a_run, an_attempt, opened

#: Opens the journal named on the command line as eight processes at once do, and starts one run.
OPEN_AT_ONCE = """
import asyncio, sys
from pathlib import Path
from sqlalchemy import make_url
from orchestrator.journal.journal import Journal, alive
from tests.unit.journal.samples import a_run

async def main():
    sys.stdin.readline()
    journal = await Journal.open(make_url(sys.argv[1]), root=Path(sys.argv[2]))
    await journal.start_run(a_run(), [])
    await journal.close()

print("ready", flush=True)
asyncio.run(main())
"""

#: Records until it is killed; says when its first records are on disk.
RECORD_FOREVER = """
import asyncio, sys
from pathlib import Path
from sqlalchemy import make_url
from orchestrator.journal.journal import Journal, alive
from orchestrator.statuses import TenantStatus
from tests.unit.journal.samples import a_run, an_attempt

async def main():
    journal = await Journal.open(make_url(sys.argv[1]), root=Path(sys.argv[2]))
    run = a_run()
    await journal.start_run(run, [an_attempt(run, f"t{n}") for n in range(100)])
    journal.record(an_attempt(run, "t0", status=TenantStatus.SUCCEEDED))
    await journal.flush()
    print(run.id, flush=True)
    while True:
        for n in range(1, 100):
            journal.record(an_attempt(run, f"t{n}", status=TenantStatus.RUNNING))
        await asyncio.sleep(0)

asyncio.run(main())
"""

#: Opens the journal once more and tells whether that needed Alembic.
OPEN_AGAIN = """
import asyncio, sys
from pathlib import Path
from sqlalchemy import make_url
from orchestrator.journal.journal import Journal, alive

async def main():
    journal = await Journal.open(make_url(sys.argv[1]), root=Path(sys.argv[2]))
    await journal.close()

asyncio.run(main())
print("alembic" in sys.modules)
"""


def start_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Run ``code`` in a process of its own."""
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    root = Path(__file__).parents[3]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)


class JournalContract:
    """Needs a fixture ``address``: where a journal of the test's own may be made."""

    async def test_a_run_reads_back_as_it_was_written(self, address: URL, tmp_path: Path) -> None:
        """Every field of a run survives, in another process's hands too."""
        run = a_run(options={"jobs": 4, "max_failures": None}, target=("a1", "b2"))
        async with opened(address, tmp_path) as journal:
            await journal.start_run(run, [])
            assert await journal.run(run.id) == run
        async with opened(address, tmp_path) as journal:
            assert await journal.run(run.id) == run

    async def test_attempts_come_back_in_the_order_given(self, address: URL, tmp_path: Path) -> None:
        """Reports list tenants in the run's own order, not the alphabet's, and late ones at the end."""
        run = a_run()
        names = ["zeta", "alpha", "mid"]
        async with opened(address, tmp_path) as journal:
            await journal.start_run(run, [an_attempt(run, name) for name in names])
            journal.record(an_attempt(run, "aaa-late", status=TenantStatus.SUCCEEDED))
            journal.record(an_attempt(run, "mid", status=TenantStatus.SUCCEEDED))
            assert [attempt.tenant for attempt in await journal.attempts(run.id)] == [*names, "aaa-late"]

    async def test_asked_while_it_was_planned(self, address: URL, tmp_path: Path) -> None:
        """What a run was asked for since it was read outlives its start; what its last process was asked does not."""
        run = a_run()
        async with opened(address, tmp_path) as journal:
            assert await journal.start_run(run, []) is None
            await journal.ask(run.id, RunStatus.PAUSED)
            paused = await journal.run(run.id)
            assert await journal.start_run(run, [], run) is RunStatus.PAUSED
            assert await journal.standing(run.id) is RunStatus.PAUSED
            assert await journal.start_run(run, [], paused) is None
            assert await journal.standing(run.id) is RunStatus.RUNNING
            await journal.finish_run(run.id, RunStatus.FAILED, MOMENT)
            failed = await journal.run(run.id)
            await journal.finish_run(run.id, RunStatus.CANCELLED, MOMENT)
            assert await journal.start_run(run, [], failed) is RunStatus.CANCELLED
            assert await journal.standing(run.id) is RunStatus.CANCELLED

    async def test_every_field_of_an_attempt_survives(self, address: URL, tmp_path: Path) -> None:
        """Heads that were not read stay apart from no heads; errors keep their form."""
        run = a_run()
        error = {"type": "DuplicateColumn", "sqlstate": "42701", "message": "Größe \U0001f600", "hint": None}
        full = replace(
            an_attempt(run, "full", status=TenantStatus.FAILED),
            from_heads=(),
            to_heads=("a1", "b2"),
            attempts=3,
            duration_ms=41.75,
            path="mixed",
            error=error,
            started_at=MOMENT,
            finished_at=MOMENT + timedelta(microseconds=1),
        )
        bare = replace(an_attempt(run, "bare"), wave=None, from_heads=None)
        async with opened(address, tmp_path) as journal:
            await journal.start_run(run, [full])
            journal.record(bare)
            assert await journal.attempts(run.id) == [full, bare]

    async def test_times_are_utc_whatever_zone_they_came_in(self, address: URL, tmp_path: Path) -> None:
        """A laptop in another zone writes the same moment."""
        tokyo = datetime(2026, 11, 22, 21, 53, 7, tzinfo=timezone(timedelta(hours=9)))
        run = a_run(started_at=tokyo)
        async with opened(address, tmp_path) as journal:
            await journal.start_run(run, [])
            back = (await journal.run(run.id)).started_at
            await journal.finish_run(run.id, RunStatus.SUCCEEDED, tokyo)
            finished = (await journal.run(run.id)).finished_at
        assert (back, back.tzinfo) == (tokyo, UTC)
        assert (finished, finished and finished.tzinfo) == (tokyo, UTC)

    async def test_the_last_record_of_a_tenant_wins(self, address: URL, tmp_path: Path) -> None:
        """Within one batch and over several."""
        run = a_run()
        async with opened(address, tmp_path) as journal:
            await journal.start_run(run, [an_attempt(run, "acme")])
            journal.record(an_attempt(run, "acme", status=TenantStatus.RUNNING))
            await journal.flush()
            journal.record(an_attempt(run, "acme", status=TenantStatus.RUNNING))
            journal.record(an_attempt(run, "acme", status=TenantStatus.SUCCEEDED))
            assert [attempt.status for attempt in await journal.attempts(run.id)] == [TenantStatus.SUCCEEDED]

    async def test_records_reach_the_database_by_themselves(self, address: URL, tmp_path: Path) -> None:
        """Nobody has to call flush for another process to see how far a run is."""
        run = a_run()
        async with opened(address, tmp_path) as journal, opened(address, tmp_path, read_only=True) as onlooker:
            await journal.start_run(run, [an_attempt(run, "acme")])
            journal.record(an_attempt(run, "acme", status=TenantStatus.SUCCEEDED))
            async with asyncio.timeout(10):
                while (await onlooker.attempts(run.id))[0].status is not TenantStatus.SUCCEEDED:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

    async def test_an_open_run_has_a_heartbeat(
        self, address: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is renewed without anything being recorded, and no longer once the run has ended."""
        monkeypatch.setattr(journal_module, "HEARTBEAT_INTERVAL", 0.01)
        run = a_run()
        async with opened(address, tmp_path) as journal, opened(address, tmp_path, read_only=True) as onlooker:
            await journal.start_run(run, [])
            async with asyncio.timeout(10):
                while (await onlooker.run(run.id)).heartbeat_at == MOMENT:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await journal.finish_run(run.id, RunStatus.SUCCEEDED, MOMENT)
            journal._beat()
            assert not journal._pending

    async def test_a_run_has_a_heartbeat_while_its_event_loop_is_held_up(
        self, address: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A migration that sleeps in Python lets no coroutine run: the heartbeat goes on, and the log says why."""
        monkeypatch.setattr(journal_module, "HEARTBEAT_INTERVAL", 0.05)
        run = a_run()

        async def look() -> datetime | None:
            async with opened(address, tmp_path, read_only=True) as onlooker:
                return (await onlooker.run(run.id)).heartbeat_at

        async with opened(address, tmp_path) as journal:
            await journal.start_run(run, [])
            with ThreadPoolExecutor(max_workers=1) as threads:
                seen: set[datetime | None] = set()
                deadline = time.monotonic() + 20
                # Nothing is awaited here.
                while len(seen) < 4:
                    assert time.monotonic() < deadline, seen
                    seen.add(threads.submit(asyncio.run, look()).result())
        assert "until it is through, all other tenants wait" in caplog.text

    async def test_a_run_has_a_heartbeat_from_its_first_moment(self, address: URL, tmp_path: Path) -> None:
        """Another machine that looks at once must not take it for dead."""
        run = a_run(heartbeat_at=None)
        async with opened(address, tmp_path) as journal:
            await journal.start_run(run, [])
            assert alive(await journal.run(run.id), datetime.now(UTC))

    async def test_finish_writes_what_was_recorded_before(self, address: URL, tmp_path: Path) -> None:
        """When finish_run returns, another process reads the whole run."""
        run = a_run()
        async with opened(address, tmp_path) as journal, opened(address, tmp_path, read_only=True) as onlooker:
            await journal.start_run(run, [an_attempt(run, "acme")])
            journal.record(an_attempt(run, "acme", status=TenantStatus.FAILED))
            await journal.finish_run(run.id, RunStatus.FAILED, MOMENT)
            finished = await onlooker.run(run.id)
            assert (finished.status, finished.finished_at) == (RunStatus.FAILED, MOMENT)
            assert [attempt.status for attempt in await onlooker.attempts(run.id)] == [TenantStatus.FAILED]

    async def test_events_come_back_in_order(self, address: URL, tmp_path: Path) -> None:
        """Those of one moment in the order they were recorded; of one tenant where asked."""
        run = a_run()
        about = [
            EventRecord(run.id, "acme", MOMENT, "revision", "a1", "upgrade", 12.5, {"path": "replay"}),
            EventRecord(run.id, "globex", MOMENT, "retry"),
            EventRecord(run.id, "acme", MOMENT, "revision", "b2", "upgrade", 0.5),
            EventRecord(run.id, None, MOMENT + timedelta(seconds=1), "drain"),
        ]
        async with opened(address, tmp_path) as journal:
            await journal.start_run(run, [])
            for event in about:
                journal.record_event(event)
            assert await journal.events(run.id) == about
            assert await journal.events(run.id, "acme") == [about[0], about[2]]

    async def test_how_long_a_revision_took_and_how_much_that_differed(self, address: URL, tmp_path: Path) -> None:
        """Half took so long at most, and nine in ten; of one direction, and over all runs."""
        run, later = a_run(), a_run()
        async with opened(address, tmp_path) as journal:
            assert await journal.spreads("upgrade") == {}
            for number in range(1, 101):
                of = run if number % 2 else later
                journal.record_event(
                    EventRecord(of.id, f"t{number}", MOMENT, "revision", "a1", "upgrade", float(number))
                )
            journal.record_event(EventRecord(run.id, "acme", MOMENT, "revision", "a1", "downgrade", 7.5))
            journal.record_event(EventRecord(run.id, "acme", MOMENT, "revision", "b2", "upgrade", 3.0))
            assert await journal.spreads("upgrade") == {"a1": Spread(50.0, 90.0, 100), "b2": Spread(3.0, 3.0, 1)}
            assert await journal.spreads("downgrade") == {"a1": Spread(7.5, 7.5, 1)}

    async def test_starting_a_run_again_carries_it_on(self, address: URL, tmp_path: Path) -> None:
        """A resumed run keeps its order and the attempts of the tenants that it leaves alone."""
        run = a_run()
        async with opened(address, tmp_path) as journal:
            await journal.start_run(run, [an_attempt(run, name) for name in "abc"])
            journal.record(an_attempt(run, "a", status=TenantStatus.SUCCEEDED))
            journal.record(an_attempt(run, "c", status=TenantStatus.FAILED))
            await journal.finish_run(run.id, RunStatus.FAILED, MOMENT)
            await journal.start_run(run, [an_attempt(run, "c")])
            assert (await journal.run(run.id)).finished_at is None
            assert [(found.tenant, found.status) for found in await journal.attempts(run.id)] == [
                ("a", TenantStatus.SUCCEEDED),
                ("b", TenantStatus.PENDING),
                ("c", TenantStatus.PENDING),
            ]

    async def test_runs_are_listed_newest_first_with_their_counts(self, address: URL, tmp_path: Path) -> None:
        """Of all tenants, or of the one asked about."""
        old = a_run(started_at=MOMENT)
        new = a_run(started_at=MOMENT + timedelta(seconds=1), command="downgrade")
        async with opened(address, tmp_path) as journal:
            await journal.start_run(new, [an_attempt(new, "acme")])
            await journal.start_run(old, [an_attempt(old, name, status=TenantStatus.FAILED) for name in ("acme", "x")])
            assert await journal.runs() == [(new, {TenantStatus.PENDING: 1}), (old, {TenantStatus.FAILED: 2})]
            assert await journal.runs(limit=1) == [(new, {TenantStatus.PENDING: 1})]
            assert await journal.runs(tenant="x") == [(old, {TenantStatus.FAILED: 1})]
            assert await journal.runs(tenant="nobody") == []
            assert await journal.last_run() == new
            assert await journal.last_run(["upgrade", "resume"]) == old
            assert await journal.last_run(["stamp"]) is None

    async def test_a_run_is_found_by_the_beginning_of_its_id(self, address: URL, tmp_path: Path) -> None:
        """Or as `last`; what fits several or none is answered with what to type."""
        one, two = a_run(id="20261122-215307-k7m2p"), a_run(id="20261122-215307-k7zzz")
        async with opened(address, tmp_path) as journal:
            with pytest.raises(JournalError, match="no run yet"):
                await journal.run("last")
            await journal.start_run(one, [])
            await journal.start_run(two, [])
            assert await journal.run("20261122-215307-k7M") == one
            assert await journal.run("last") == two
            with pytest.raises(JournalError, match="fits several") as several:
                await journal.run("20261122")
            assert one.id in (several.value.hint or "")
            with pytest.raises(JournalError, match="no run '20261122-215307-k7m2q'") as missing:
                await journal.run("20261122-215307-k7m2q")
            assert f"did you mean {one.id}" in (missing.value.hint or "")
            with pytest.raises(JournalError, match="no run '%'"):
                await journal.run("%")
            with pytest.raises(JournalError, match="no run ''"):
                await journal.run("")

    async def test_an_id_that_begins_another_is_found(self, address: URL, tmp_path: Path) -> None:
        """The whole id always means its own run."""
        short, long = a_run(id="20261122-215307-k7m"), a_run(id="20261122-215307-k7m2p")
        async with opened(address, tmp_path) as journal:
            await journal.start_run(short, [])
            await journal.start_run(long, [])
            assert await journal.run(short.id) == short

    async def test_odd_values_hold_nothing_up(self, address: URL, tmp_path: Path) -> None:
        """NUL, half a surrogate pair, NaN and objects are made fit instead of failing the batch they are in."""
        run = a_run()
        odd = {
            "nul": "a\0b",
            "surrogate": "\ud800",
            "nan": float("nan"),
            "path": tmp_path,
            7: ["x\0"],
            "slash": "\\u0000",
        }
        async with opened(address, tmp_path) as journal:
            await journal.start_run(run, [])
            journal.record(replace(an_attempt(run, "acme"), error=odd, duration_ms=float("inf")))
            journal.record_event(EventRecord(run.id, "ac\0me", MOMENT, "retry", detail={"at": MOMENT}))
            assert await journal.flush()
            (attempt,) = await journal.attempts(run.id)
            (event,) = await journal.events(run.id)
        assert attempt.error == {
            "nul": "ab",
            "surrogate": "?",
            "nan": None,
            "path": str(tmp_path),
            "7": ["x"],
            "slash": "\\u0000",
        }
        assert (attempt.duration_ms, event.tenant) == (None, "acme")
        assert event.detail == {"at": str(MOMENT)}

    async def test_no_secret_is_written(self, address: URL, tmp_path: Path) -> None:
        """Whatever a database's message or an option holds."""
        remember("hunter2-hunter2")
        run = a_run(options={"url": "postgresql://me:hunter2-hunter2@db/app"})
        async with opened(address, tmp_path) as journal:
            await journal.start_run(run, [])
            error = {"message": "key (hunter2-hunter2) exists", "notes": ["hunter2-hunter2"]}
            journal.record(replace(an_attempt(run, "acme"), error=error))
            journal.record_event(EventRecord(run.id, "acme", MOMENT, "retry", detail=error))
            written = [await journal.run(run.id), await journal.attempts(run.id), await journal.events(run.id)]
        assert "hunter2" not in repr(written)
        assert repr(written).count("***") == 5

    async def test_eight_processes_open_a_new_journal_at_once(self, address: URL, tmp_path: Path) -> None:
        """Each finds or makes the tables; none fails, none waits for ever."""
        text = address.render_as_string(hide_password=False)
        processes = [start_python(OPEN_AT_ONCE, text, tmp_path) for _ in range(8)]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        await asyncio.gather(*(asyncio.to_thread(process.communicate, "go\n") for process in processes))
        assert [process.returncode for process in processes] == [0] * 8
        async with opened(address, tmp_path) as journal:
            assert len(await journal.runs()) == 8

    async def test_a_killed_writer_leaves_a_readable_journal(self, address: URL, tmp_path: Path) -> None:
        """kill -9 in the middle of a batch: what was flushed is there, and the next run can be written."""
        process = start_python(RECORD_FOREVER, address.render_as_string(hide_password=False), tmp_path)
        assert process.stdout is not None
        run_id = (await asyncio.to_thread(process.stdout.readline)).strip()
        process.kill()
        await asyncio.to_thread(process.communicate)
        async with opened(address, tmp_path, read_only=True) as onlooker:
            attempts = await onlooker.attempts(run_id)
            assert (len(attempts), attempts[0].status) == (100, TenantStatus.SUCCEEDED)
        async with opened(address, tmp_path) as journal:
            await journal.start_run(a_run(), [])
            assert (await journal.run(run_id)).status is RunStatus.RUNNING

    async def test_opening_an_existing_journal_needs_no_alembic(self, address: URL, tmp_path: Path) -> None:
        """Alembic takes longer to import than a small run takes; it is for making and migrating tables only."""
        async with opened(address, tmp_path):
            pass
        process = start_python(OPEN_AGAIN, address.render_as_string(hide_password=False), tmp_path)
        output, _ = await asyncio.to_thread(process.communicate)
        assert output == "False\n"

    async def test_a_journal_of_a_newer_package_is_refused(self, address: URL, tmp_path: Path) -> None:
        """Neither read nor written, and not touched."""
        async with opened(address, tmp_path) as journal, journal._store.writing() as connection:
            await connection.exec_driver_sql("UPDATE orchestrator_journal_version SET version_num = '0999'")
        for read_only in (False, True):
            with pytest.raises(JournalError, match="has format 0999") as refused:
                await Journal.open(address, root=tmp_path, read_only=read_only)
            assert refused.value.hint is not None

    async def test_a_journal_nobody_has_made_reads_as_empty(self, address: URL, tmp_path: Path) -> None:
        """`runs list` before the first run shows nothing and makes nothing."""
        for _ in range(2):
            async with opened(address, tmp_path, read_only=True) as journal:
                assert not journal.exists
                assert await journal.runs() == []
                assert await journal.last_run() is None
                assert await journal.attempts("x") == []
                assert await journal.events("x") == []
                with pytest.raises(JournalError, match="no run yet"):
                    await journal.run("last")

    async def test_tenants_that_took_long(self, address: URL, tmp_path: Path) -> None:
        """The longest of the last ten runs counts; who was quick, and what is longer ago, is not told."""
        runs = [a_run(started_at=MOMENT + timedelta(days=day)) for day in range(11)]
        took = {0: {"old": 90_000.0}, 1: {"slow": 20_000.0, "quick": 9_999.0}, 10: {"slow": 30_000.0, "quick": None}}
        async with opened(address, tmp_path) as journal:
            for day, run in enumerate(runs):
                durations = took.get(day, {})
                await journal.start_run(
                    run, [replace(an_attempt(run, id), duration_ms=took) for id, took in durations.items()]
                )

            assert await journal.long_tenants() == {"slow": 30_000.0}

    async def test_steps_outside_transactions(self, address: URL, tmp_path: Path) -> None:
        """The last of each tenant counts, in every field; one that is done is not told any more."""
        run = a_run()
        begun = StepRecord("acme", run.id, "b2", "upgrade", (("a1",), ("a1", "x1")), MOMENT)
        later = replace(
            begun,
            stayed=("CREATE",),
            count=3,
            current="VACUUM",
            invalid_before=("old",),
            invalid=("new",),
            looked=True,
            error={"a": 1},
        )
        other = replace(begun, tenant="globex", run="gone")
        async with opened(address, tmp_path) as journal:
            await journal.start_run(run, [])
            for step in (begun, later, other):
                journal.record_step(step)
                assert await journal.flush(durable=True)
            assert await journal.open_steps() == [(later, await journal.run(run.id)), (other, None)]
            assert await journal.open_steps("globex") == [(other, None)]
            journal.record_step(replace(later, done_at=MOMENT))
            assert [step.tenant for step, _ in await journal.open_steps()] == ["globex"]

    async def test_changes_after(self, address: URL, tmp_path: Path) -> None:
        """Also by runs that had begun before, as long as they were at work: what ended or died before is not after."""
        earlier, later = MOMENT - timedelta(minutes=5), MOMENT + timedelta(minutes=5)
        run = a_run()
        others = {
            "ended before": (replace(a_run(), started_at=earlier, heartbeat_at=earlier), earlier, earlier),
            "ended after": (replace(a_run(), started_at=earlier, heartbeat_at=earlier), earlier, later),
            "died before": (replace(a_run(), started_at=earlier, heartbeat_at=earlier), earlier, None),
            "died after": (replace(a_run(), started_at=earlier, heartbeat_at=later), earlier, None),
            "never begun": (replace(a_run(), started_at=earlier, heartbeat_at=later), None, None),
            "begun after": (replace(a_run(), started_at=later), later, later),
        }
        async with opened(address, tmp_path) as journal:
            for tenant, (other, started_at, finished_at) in others.items():
                attempt = replace(an_attempt(other, tenant), started_at=started_at, finished_at=finished_at)
                await journal.start_run(other, [attempt, replace(an_attempt(other, "same"), to_heads=("a0",))])
            await journal.start_run(run, [replace(an_attempt(run, "own"), started_at=later)])

            found = await journal.changes_after(run)

        assert {(attempt.tenant, other.id) for other, attempt in found} == {
            (tenant, others[tenant][0].id) for tenant in ("ended after", "died after", "begun after")
        }

    async def test_files_of_revisions(self, address: URL, tmp_path: Path) -> None:
        """One row for each file; written again, the last one counts."""
        meant = RevisionRecord("a1", "0f", "one", MOMENT)
        other = RevisionRecord("a1", "1f", "two", MOMENT + timedelta(seconds=1), MOMENT)
        async with opened(address, tmp_path) as journal:
            for revision in (other, meant, replace(meant, applied_at=MOMENT)):
                journal.record_revision(revision)
            assert await journal.revisions() == [replace(meant, applied_at=MOMENT), other]
            assert await journal.commit_of("nobody's") is None

    async def test_nothing_is_left_behind(self, address: URL, tmp_path: Path) -> None:
        """After close there is no task of the journal's; a second close does nothing."""
        before = asyncio.all_tasks()
        journal = await Journal.open(address, root=tmp_path)
        await journal.start_run(a_run(), [])
        await journal.close()
        await journal.close()
        assert asyncio.all_tasks() == before

    async def test_several_journals_write_at_the_same_time(self, address: URL, tmp_path: Path) -> None:
        """Several orchestrators share one journal; nobody's events or attempts get lost or mixed up."""

        async def work(number: int) -> str:
            run = a_run(id=f"{new_run_id()}-{number}")
            async with opened(address, tmp_path) as journal:
                await journal.start_run(run, [an_attempt(run, f"t{n}") for n in range(20)])
                for n in range(20):
                    journal.record(an_attempt(run, f"t{n}", status=TenantStatus.SUCCEEDED))
                    journal.record_event(EventRecord(run.id, f"t{n}", MOMENT, "revision"))
                    await journal.flush()
                await journal.finish_run(run.id, RunStatus.SUCCEEDED, MOMENT)
            return run.id

        ids = await asyncio.gather(*(work(number) for number in range(4)))
        async with opened(address, tmp_path) as journal:
            for found, counts in await journal.runs():
                assert (found.id in ids, counts) == (True, {TenantStatus.SUCCEEDED: 20})
                assert len(await journal.events(found.id)) == 20

    async def test_the_attempt_that_saw_a_tenant_last_counts(self, address: URL, tmp_path: Path) -> None:
        """A long run that did a tenant first, and ended last, does not hide what a short one did to it in between."""
        async with opened(address, tmp_path) as journal:
            for name, seen, ended, heads in (("long", 1, 10, "a1"), ("short", 3, 4, "a2"), ("before", 0, 0, "a0")):
                run, at = a_run(id=name), MOMENT + timedelta(hours=seen)
                attempt = an_attempt(run, "acme", status=TenantStatus.SUCCEEDED)
                await journal.start_run(run, [replace(attempt, to_heads=(heads,), started_at=at, finished_at=at)])
                place = {"db1:5432": {"acme": ["app", "acme", None]}}
                journal.record_event(EventRecord(name, None, at, "places", detail=place))
                await journal.finish_run(name, RunStatus.SUCCEEDED, MOMENT + timedelta(hours=ended))
            killed = a_run(id="killed", started_at=MOMENT + timedelta(hours=11))
            await journal.start_run(killed, [an_attempt(killed, "acme", status=TenantStatus.RUNNING)])
            found = await journal.last_seen(["acme", *(f"never-{number}" for number in range(1500))])
        assert found.keys() == {"acme"}
        acme = found["acme"]
        assert (acme.run, acme.heads, acme.place) == ("short", ("a2",), ("db1:5432", "app", "acme", None))
        assert [(each.run.id, each.from_heads) for each in acme.since] == [("killed", ("a0",))]
