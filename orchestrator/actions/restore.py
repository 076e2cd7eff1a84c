"""restore: put tenants back whole, from the backups of a run or from one file."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.actions.each import limits_of, looked_at, new_run, run_each
from orchestrator.actions.execution import Execution, Watch
from orchestrator.actions.journals import opened_journal
from orchestrator.actions.project import Project, opened_project, require_selection
from orchestrator.actions.servers import Tenants, selection_of
from orchestrator.databases.archives import Manifest, read, verify
from orchestrator.databases.dumping import Restoring
from orchestrator.databases.failures import Failure, describe
from orchestrator.databases.port import Reading
from orchestrator.errors import BackupError, OrchestratorError, UsageError
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.tenant import Isolation, Tenant
from orchestrator.journal.journal import Journal
from orchestrator.journal.records import EventRecord
from orchestrator.rollout.backups import BACKUP
from orchestrator.rollout.each import Done
from orchestrator.rollout.plan import PlannedTenant
from orchestrator.rollout.result import RunResult

log = logging.getLogger("orchestrator.restore")

#: Kind of the journal's event that a restore is.
RESTORE = "restore"


@dataclass(frozen=True, slots=True)
class Found:
    """One tenant's backup."""

    dump: Path
    manifest: Manifest


async def restore(
    fleet: Fleet,
    source: Path | str,
    *,
    tenants: Tenants = (),
    everyone: bool = False,
    keep: bool = False,
    execution: Execution = Execution(),  # noqa: B008  frozen
    watch: Watch | None = None,
) -> RunResult:
    """Put tenants back as they were when they were backed up. What they hold now is thrown away; asks nothing.

    Args:
        fleet: as loaded from tenants.yaml.
        source: a run that made backups (an id, the start of one, or ``last``), or a backup's file.
        tenants: ids or globs, or a :class:`Selection`; must select unless ``everyone``.
        everyone: mean every tenant that ``source`` has a backup of.
        keep: leave what is replaced in the database, under a name that the result's journal events tell.
        execution: ``jobs``, ``lock_wait`` and ``limits`` count.
        watch: who looks on and may stop it.

    Returns:
        What ``orchestrator restore --json`` prints, as an object.

    Raises:
        SelectionError: no selection.
        BackupError: a file is not there, is not what it was, or is of another tenant; nothing was touched.
        OrchestratorError: other bad input; nothing was touched.
    """
    require_selection("restore", tenants, everyone)
    async with opened_project(fleet) as project, opened_journal(fleet) as journal:
        given = await _backups(journal, source)
        chosen = _chosen(project, tenants, given, everyone=everyone)
        await _verify_all([given[tenant.id] for tenant in chosen if tenant.id in given])
        await project.require_dumping(chosen)

        def judge(tenant: Tenant, _: Reading) -> Failure | None:
            try:
                _require_fit(project, tenant, given.get(tenant.id), str(source))
            except OrchestratorError as error:
                return replace(describe(error), type="no_backup")
            return None

        found = await looked_at(project, chosen, judge)
        patterns = list(selection_of(tenants).patterns)
        record = new_run(project, "restore", {"source": str(source), "patterns": patterns})

        async def act(planned: PlannedTenant) -> Done:
            backup = given[planned.tenant.id]
            work = Restoring(
                tenant=planned.tenant,
                dump=backup.dump,
                heads=backup.manifest.heads,
                version_table=backup.manifest.version_table,
                application=f"orchestrator {record.id} {planned.tenant.id}",
                limits=limits_of(project, execution, planned.tenant),
                lock_wait=execution.lock_wait,
                properties=backup.manifest.properties,
                keep=keep,
                run=record.id,
            )
            return await _put_back(project, journal, work, planned, backup)

        return await run_each(project, journal, record, found, act, execution, watch or Watch())


async def _put_back(project: Project, journal: Journal, work: Restoring, planned: PlannedTenant, backup: Found) -> Done:
    tenant, database = planned.tenant, project.databases[planned.tenant.server]
    restored = await database.restore(work)
    if restored.left is not None:
        why = f", which could not be dropped: {restored.why}" if restored.why else ""
        log.warning("%s: what it was before is in %s%s", tenant.id, restored.left, why)
    reading = (await database.read([tenant], work.version_table))[tenant.id]
    detail = {
        "file": str(backup.dump),
        "sha256": backup.manifest.sha256,
        "heads": list(work.heads),
        "left": restored.left,
        "why": restored.why,
    }
    journal.record_event(EventRecord(work.run, tenant.id, datetime.now(UTC), RESTORE, detail=detail))
    # What was cut off in the tables that are gone now is no longer there to be looked at.
    for step, _ in await journal.open_steps(tenant.id):
        journal.record_step(replace(step, done_at=datetime.now(UTC)))
    if reading.heads != work.heads:
        raise BackupError(f"it was restored, and its version table says {', '.join(reading.heads) or 'nothing'}")
    return Done(planned.heads, reading.heads)


async def _backups(journal: Journal, source: Path | str) -> dict[str, Found]:
    """What ``source`` has, by tenant id."""
    alone = await asyncio.to_thread(_of_file, Path(source))
    if alone is not None:
        return {alone.manifest.tenant: alone}
    run = await journal.run(str(source))
    before = {attempt.tenant: attempt.from_heads for attempt in await journal.attempts(run.id)}
    events = await journal.events(run.id, kind=BACKUP)
    if not events:
        raise UsageError(
            f"run {run.id} ({run.command}) made no backup", hint="orchestrator upgrade --backup DIR makes them"
        )
    return await asyncio.to_thread(_of_run, events, before)


def _of_file(path: Path) -> Found | None:
    """The backup that a path means; ``None`` for what is no path."""
    return Found(*read(path.absolute())) if path.suffix == ".json" or path.is_file() else None


def _of_run(events: Sequence[EventRecord], before: Mapping[str, tuple[str, ...] | None]) -> dict[str, Found]:
    """A resumed run may have made several: the one from before it began counts, and of those the last."""
    found: dict[str, Found] = {}
    for event in events:
        if event.tenant is None or event.detail is None:
            continue
        heads = tuple(event.detail["heads"])
        if event.tenant in found and heads != before.get(event.tenant):
            continue
        found[event.tenant] = Found(*read(Path(event.detail["file"])))
    return found


def _chosen(project: Project, tenants: Tenants, given: Mapping[str, Found], *, everyone: bool) -> tuple[Tenant, ...]:
    chosen = project.choose(tenants)
    if selection_of(tenants).is_empty and everyone:
        chosen = tuple(tenant for tenant in chosen if tenant.id in given)
        if not chosen:
            raise UsageError(f"no tenant of the fleet has a backup there: {', '.join(list(given)[:3])} has")
    elif not any(tenant.id in given for tenant in chosen):
        raise UsageError(
            f"the backup is of {', '.join(list(given)[:3])}, and of none of the selected tenants",
            hint="a tenant is restored from its own backup",
        )
    return chosen


async def _verify_all(found: Sequence[Found]) -> None:
    """Look at every file before any tenant is touched."""
    for each in found:
        await asyncio.to_thread(verify, each.dump, each.manifest)


def _require_fit(project: Project, tenant: Tenant, found: Found | None, source: str) -> None:
    """Make sure that a tenant can be restored from what was found."""
    if found is None:
        raise BackupError(f"{source} has no backup of it", hint="orchestrator runs list -t TENANT finds other runs")
    made = found.manifest
    if made.dialect != project.databases[tenant.server].dialect or made.schema != tenant.schema:
        was = made.schema or made.database or made.dialect
        raise BackupError(
            f"its backup is of {was}, and its tables are in {tenant.place} now",
            hint="a backup goes back to where it was made: put tenants.yaml back first",
        )
    if tenant.isolation is Isolation.FILE or tenant.schema is not None:
        return
    others = [
        other.id
        for other in project.fleet.tenants
        if other.id != tenant.id and other.server == tenant.server and other.database == tenant.database
    ]
    if others:
        raise BackupError(
            f"its backup is of the whole database, and {others[0]} is in it, too",
            hint="give each tenant a schema, and back that up",
        )
