"""runs: what the journal says of earlier runs. Reads only, the journal alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from orchestrator.actions.journals import opened_journal
from orchestrator.fleet.fleet import Fleet
from orchestrator.journal.records import RunRecord, alive
from orchestrator.rollout.backups import BACKUP, listed
from orchestrator.rollout.result import RunResult
from orchestrator.rollout.waves import EVENT as WAVE_EVENT
from orchestrator.rollout.waves import waves_of
from orchestrator.statuses import RunStatus, TenantStatus


@dataclass(frozen=True, slots=True)
class RunList:
    """Runs, newest first, each with how many tenants ended how."""

    runs: tuple[tuple[RunRecord, Mapping[TenantStatus, int]], ...]

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
                    "summary": {status.value: count for status, count in summary.items()},
                }
                for run, summary in self.runs
            ]
        }


async def list_runs(fleet: Fleet, *, tenant: str | None = None, limit: int = 50) -> RunList:
    """The newest runs.

    Args:
        fleet: says where the journal is.
        tenant: only runs that meant this tenant; only it is counted then.
        limit: runs at most.
    """
    async with opened_journal(fleet, read_only=True) as journal:
        return RunList(tuple((_as_it_is(run), counts) for run, counts in await journal.runs(limit, tenant)))


async def show_run(fleet: Fleet, name: str) -> RunResult:
    """One run, whole.

    Args:
        fleet: says where the journal is.
        name: a run's id, an unambiguous start of one, or ``last``.

    Raises:
        JournalError: no such run.
    """
    async with opened_journal(fleet, read_only=True) as journal:
        record = _as_it_is(await journal.run(name))
        waves = waves_of(await journal.events(record.id, kind=WAVE_EVENT))
        backups = listed(await journal.events(record.id, kind=BACKUP))
        return RunResult(record, tuple(await journal.attempts(record.id)), tuple(waves.values()), backups)


def _as_it_is(run: RunRecord) -> RunRecord:
    """A run whose process is gone is not running, whatever it last wrote down; ``resume`` sees it the same way."""
    open_ = run.finished_at is None and run.status is not RunStatus.CANCELLED
    gone = open_ and not alive(run, datetime.now(UTC))
    return replace(run, status=RunStatus.INTERRUPTED) if gone else run
