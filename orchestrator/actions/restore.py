"""restore: put tenants back whole, from the backups of a run or from one file."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.actions.another_fleet import met_places
from orchestrator.actions.each import limits_of, looked_at, new_run, run_each
from orchestrator.actions.execution import Execution, Watch
from orchestrator.actions.journals import opened_journal
from orchestrator.actions.offboarding.returning import Returning
from orchestrator.actions.onboarding.registrar import Registrar
from orchestrator.actions.places import moved_places
from orchestrator.actions.project import Project, opened_project, require_selection
from orchestrator.actions.restoring.found_backups import Found, Listed, backups_in, last_with_backups, looked_through
from orchestrator.actions.restoring.neighbours import neighbours
from orchestrator.actions.restoring.steps import RestoredSteps
from orchestrator.actions.servers import Tenants, selection_of
from orchestrator.databases.answers import Reading
from orchestrator.databases.dumping import Restoring
from orchestrator.databases.failures import Failure, describe
from orchestrator.errors import BackupError, OrchestratorError, RestoreUnknown, SelectionError, UsageError
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.tenant import Tenant
from orchestrator.journal.journal import Journal
from orchestrator.journal.reading import LAST
from orchestrator.journal.records import EventRecord
from orchestrator.rollout.each import Done
from orchestrator.rollout.plan import PlannedTenant
from orchestrator.rollout.result import RunResult

log = logging.getLogger("orchestrator.restore")

#: Kind of the journal's event that a restore is.
RESTORE = "restore"


async def restore(
    fleet: Fleet,
    source: Path | str,
    *,
    tenants: Tenants = (),
    everyone: bool = False,
    keep: bool = False,
    register: bool = False,
    agreed: Collection[str] | None = None,
    execution: Execution = Execution(),  # noqa: B008  frozen
    watch: Watch | None = None,
) -> RunResult:
    """Put tenants back as they were when they were backed up. What they hold now is thrown away; asks nothing.

    Args:
        fleet: as loaded from tenants.yaml.
        source: a run that made backups (an id, the start of one, or ``last`` for the last one that made any), or a
            backup's file.
        tenants: ids or globs, or a :class:`Selection`; must select unless ``everyone``.
        everyone: mean every tenant that ``source`` has a backup of.
        keep: leave what is replaced in the database, under a name that the result's journal events tell.
        register: restore tenants, too, that the fleet does not have any more, and write them down in it again.
        agreed: ids that somebody has agreed to: who is selected only since then is left alone. ``None`` for all.
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
        if source == LAST:
            source = (await last_with_backups(journal)).id
        listed = await backups_in(journal, fleet, str(source))
        returning = Returning(Registrar(project, fleet))
        if register:
            project = await returning.join(project, selection_of(tenants), listed)
        chosen = _chosen(project, tenants, listed, everyone=everyone)
        if agreed is not None:
            chosen = tuple(tenant for tenant in chosen if tenant.id in agreed)
        given = await looked_through([listed[tenant.id] for tenant in chosen if tenant.id in listed])
        await project.require_dumping(chosen)
        shared = await _shared(project, chosen, given)
        taken = await returning.taken(project, chosen)
        moved = await _moved(project, journal, chosen, listed)

        def judge(tenant: Tenant, reading: Reading) -> Failure | None:
            try:
                _require_fit(project, tenant, given.get(tenant.id), str(source))
            except OrchestratorError as error:
                return replace(describe(error), type="no_backup")
            # Where nothing is, nothing is lost: a server that is gone is made up for on another one.
            elsewhere = moved.get(tenant.id) if reading.exists else None
            return elsewhere or shared.get(tenant.id) or taken.get(tenant.id)

        found = await looked_at(project, chosen, judge)
        flags = [flag for flag, given in (("--keep", keep), ("--register", register)) if given]
        record = new_run(project, "restore", {"source": str(source), "flags": flags})

        async def act(planned: PlannedTenant) -> Done:
            backup = given[planned.tenant.id]
            await returning.begin(project, planned.tenant, execution.lock_wait)
            steps = RestoredSteps(journal, planned.tenant.id, backup)
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
                before=steps.begin,
            )
            done = await _put_back(project, journal, work, planned, backup, steps)
            await returning.end(project, work)
            return done

        return await run_each(project, journal, record, found, act, execution, watch or Watch())


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What a restore would put back, as far as it is known without reading the dumps."""

    #: The run whose backups they are, where ``last`` meant one; else as it was given.
    source: str
    #: When each tenant's backup was made, by id, in the fleet's order.
    made: Mapping[str, datetime]
    #: Ids of selected tenants that have no backup there, and are not touched.
    without: tuple[str, ...]


async def foreseen(
    fleet: Fleet, source: Path | str, *, tenants: Tenants = (), everyone: bool = False, register: bool = False
) -> Foreseen:
    """Say what :func:`restore` would do. Reads only.

    Args:
        fleet: as for the command.
        source: as for the command.
        tenants: as for the command.
        everyone: as for the command.
        register: as for the command.

    Raises:
        OrchestratorError: as the command does: there is no such run or file, or nobody is selected.
    """
    require_selection("restore", tenants, everyone)
    async with opened_project(fleet) as project, opened_journal(fleet, read_only=True) as journal:
        if source == LAST:
            source = (await last_with_backups(journal)).id
        listed = await backups_in(journal, fleet, str(source))
        if register:
            project = await Returning(Registrar(project, fleet)).join(project, selection_of(tenants), listed)
        chosen = _chosen(project, tenants, listed, everyone=everyone)
        made = {tenant.id: listed[tenant.id].made for tenant in chosen if tenant.id in listed}
        return Foreseen(str(source), made, tuple(tenant.id for tenant in chosen if tenant.id not in listed))


async def _put_back(
    project: Project, journal: Journal, work: Restoring, planned: PlannedTenant, backup: Found, steps: RestoredSteps
) -> Done:
    tenant, database = planned.tenant, project.databases[planned.tenant.server]
    try:
        restored = await database.restore(work)
    except RestoreUnknown:
        # It may be back: then what is half done in the backup is so in the tenant, too.
        raise
    except OrchestratorError:
        await steps.undo()
        raise
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
    await steps.end()
    if reading.heads != work.heads:
        raise BackupError(f"it was restored, and its version table says {', '.join(reading.heads) or 'nothing'}")
    return Done(planned.heads, reading.heads)


def _chosen(project: Project, tenants: Tenants, given: Mapping[str, Listed], *, everyone: bool) -> tuple[Tenant, ...]:
    try:
        chosen = project.choose(tenants)
    except SelectionError as error:
        gone = [each for each in selection_of(tenants).patterns if each in given]
        if not gone:
            raise
        hint = "the backup is of it: with --register it is restored and is in the fleet again"
        raise SelectionError(error.message, hint=hint) from error
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


async def _moved(
    project: Project, journal: Journal, tenants: Sequence[Tenant], listed: Mapping[str, Listed]
) -> dict[str, Failure]:
    """Who of ``tenants`` is not where the run that made the backups met it: another fleet's tenant, perhaps."""
    run = next((each.run for each in listed.values()), None)
    if run is None:
        return {}
    met = await met_places(journal, run, await journal.attempts(run))
    moved = await moved_places(project, met, [tenant for tenant in tenants if tenant.id in listed], "met")

    def told(tenant: str, failure: Failure) -> Failure:
        way = shlex.join(["orchestrator", "restore", str(listed[tenant].file), "-t", tenant])
        hint = f"another fleet's file is named with --config; where it is to come here all the same: {way}"
        return replace(failure, hint=hint)

    return {tenant: told(tenant, failure) for tenant, failure in moved.items()}


async def _shared(project: Project, tenants: Sequence[Tenant], given: Mapping[str, Found]) -> dict[str, Failure]:
    """Who of ``tenants`` would take others back, too."""
    whole = [tenant for tenant in tenants if tenant.schema is None and tenant.id in given]
    tables = {
        tenant.id: tuple({project.loop.version_table, given[tenant.id].manifest.version_table}) for tenant in whole
    }
    return await neighbours(project, whole, tables)
