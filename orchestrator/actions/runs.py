"""runs: what the journal says of earlier runs. Reads only, the journal alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.actions.going import as_they_are, waiting
from orchestrator.actions.journals import opened_journal
from orchestrator.fleet.fleet import Fleet
from orchestrator.journal.journal import Journal
from orchestrator.journal.records import AttemptRecord, RunRecord
from orchestrator.rollout.backups import BACKUP, listed
from orchestrator.rollout.foretold import foretold
from orchestrator.rollout.next_commands import NOT_RESUMED
from orchestrator.rollout.rehearsal import REHEARSAL
from orchestrator.rollout.result import RunResult, tenant_document
from orchestrator.rollout.waves import EVENT as WAVE_EVENT
from orchestrator.rollout.waves import waves_of
from orchestrator.statuses import TenantStatus


@dataclass(frozen=True, slots=True)
class RunList:
    """Runs, newest first, each with how many tenants ended how."""

    runs: tuple[tuple[RunRecord, Mapping[TenantStatus, int]], ...]
    #: What each run did to the tenant that was asked for, by the run's id; empty where none was.
    attempts: Mapping[str, AttemptRecord] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The document of ``runs list --json``."""
        return {
            "runs": [
                {
                    "run": run.id,
                    "command": run.command,
                    "target": list(run.target),
                    "status": run.status.value,
                    "started_at": run.started_at.isoformat(),
                    "finished_at": run.finished_at.isoformat() if run.finished_at is not None else None,
                    "actor": f"{run.actor.user}@{run.actor.host}",
                    "asked": asked(run),
                    "summary": {status.value: count for status, count in summary.items()},
                    **self._tenant(run.id),
                }
                for run, summary in self.runs
            ]
        }

    def _tenant(self, run: str) -> dict[str, Any]:
        attempt = self.attempts.get(run)
        if attempt is None:
            return {}
        began, ended = attempt.started_at, attempt.finished_at
        return {
            "tenant": {
                **tenant_document(attempt),
                "started_at": began.isoformat() if began is not None else None,
                "finished_at": ended.isoformat() if ended is not None else None,
            }
        }


def asked(run: RunRecord) -> str:
    """What a run was asked for, beside whom: a target, the run that a rollback takes back, or where backups are."""
    if run.command in NOT_RESUMED:
        return str(run.options.get("source", ""))
    return run.requested_target or ", ".join(run.target)


async def list_runs(fleet: Fleet, *, tenant: str | None = None, limit: int = 50) -> RunList:
    """The newest runs.

    Args:
        fleet: says where the journal is.
        tenant: only runs that meant this tenant; only it is counted then, and ``attempts`` has what they did to it.
        limit: runs at most.
    """
    async with opened_journal(fleet, read_only=True) as journal:
        listed = await journal.runs(limit, tenant)
        runs = await as_they_are(journal, [run for run, _ in listed])
        found = tuple(zip(runs, (counts for _, counts in listed), strict=True))
        if tenant is None:
            return RunList(found)
        attempts = await journal.attempts_on(tenant, [run.id for run, _ in found])
        return RunList(found, {attempt.run: attempt for attempt in attempts})


async def show_run(fleet: Fleet, name: str) -> RunResult:
    """One run, whole.

    Args:
        fleet: says where the journal is.
        name: a run's id, an unambiguous start of one, or ``last``.

    Raises:
        JournalError: no such run.
    """
    async with opened_journal(fleet, read_only=True) as journal:
        return await result_of(journal, name)


async def result_of(journal: Journal, name: str) -> RunResult:
    """The same from a journal that is open."""
    (record,) = await as_they_are(journal, [await journal.run(name)])
    waves = waves_of(await journal.events(record.id, kind=WAVE_EVENT))
    backups = listed(await journal.events(record.id, kind=BACKUP))
    attempts = tuple(await journal.attempts(record.id))
    result = RunResult(record, attempts, tuple(waves.values()), backups, waits=await waiting(journal, record))
    if record.command == "rehearse":
        return replace(result, rehearsal=await _rehearsal(journal, record.id))
    return replace(result, rehearsed=await _rehearsed(journal, result))


async def _rehearsal(journal: Journal, run: str) -> Mapping[str, Any] | None:
    """What a rehearsal found; ``None`` where it did not come to its end."""
    for event in await journal.events(run, kind=REHEARSAL):
        if event.detail is not None:
            return event.detail.get("report")
    return None


async def _rehearsed(journal: Journal, result: RunResult) -> Mapping[str, Any] | None:
    """What the last rehearsal of the same target, and of the same files, had said of a run beforehand."""
    run = result.run
    if run.command != "upgrade":
        return None
    for rehearsal in await journal.runs_before(run, "rehearse"):
        alike = rehearsal.target == run.target and rehearsal.directory_digest == run.directory_digest
        if alike and (kept := await journal.events(rehearsal.id, kind=REHEARSAL)) and kept[0].detail is not None:
            return foretold(rehearsal.id, kept[0].detail["forecast"], result.tenants)
    return None
