"""offboard: take tenants out of the fleet: saved, set aside for a while, or dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from orchestrator.actions.each import looked_at, new_run, run_each
from orchestrator.actions.execution import Execution, Watch
from orchestrator.actions.journals import opened_journal
from orchestrator.actions.offboarding.leave_taking import Refusals
from orchestrator.actions.offboarding.set_aside import asides_of
from orchestrator.actions.offboarding.taking_out import TakingOut
from orchestrator.actions.onboarding.registrar import Registrar
from orchestrator.actions.project import Project, opened_project, require_selection
from orchestrator.actions.servers import Tenants, selection_of
from orchestrator.databases.asides import Aside
from orchestrator.errors import UsageError
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.selection import Selection
from orchestrator.fleet.tenant import Tenant
from orchestrator.journal.journal import Journal
from orchestrator.rollout.backups import Backups
from orchestrator.rollout.result import RunResult


async def offboard(
    fleet: Fleet,
    *,
    tenants: Tenants = (),
    everyone: bool = False,
    archive: Path | str | None = None,
    drop: bool = False,
    after: timedelta | None = None,
    agreed: Collection[str] | None = None,
    execution: Execution = Execution(),  # noqa: B008  frozen
    watch: Watch | None = None,
) -> RunResult:
    """Take tenants out of the fleet; asks nothing.

    A tenant's schema, database or file gets a name of ours, where nobody looks for it, and the fleet forgets the
    tenant. It can be brought back until it is dropped. Given again, the same call ends what was cut off.

    Args:
        fleet: as loaded from tenants.yaml.
        tenants: ids or globs, or a :class:`Selection`; must select unless ``everyone``. An id may also be that of a
            tenant that was set aside before.
        everyone: mean the whole fleet.
        archive: directory that a last backup of each goes into, made and read again before anything is taken away.
        drop: drop it: at once, or once ``after`` is over.
        after: how long it is kept at least.
        agreed: ids that somebody has agreed to: who is selected only since then is left alone. ``None`` for all.
        execution: ``jobs``, ``lock_wait`` and ``limits`` count.
        watch: who looks on and may stop it.

    Returns:
        What ``orchestrator offboard --json`` prints, as an object.

    Raises:
        SelectionError: no selection, or one that matches nothing.
        OrchestratorError: other bad input; nothing was touched.
    """
    require_selection("offboard", tenants, everyone)
    if after is not None and not drop:
        raise UsageError("--after says when to drop it, and nothing is to be dropped", hint="add --drop")
    directory = None if archive is None else await asyncio.to_thread(Path(archive).absolute)
    async with opened_project(fleet) as project, opened_journal(fleet) as journal:
        selection = selection_of(tenants)
        chosen, gone = await _meant(project, journal, selection)
        if agreed is not None:
            chosen = [tenant for tenant in chosen if tenant.id in agreed]
            gone = [aside for aside in gone if aside.tenant.id in agreed]
        options = {"flags": _flags(directory, drop, after), "tenants": typed(selection, everyone=everyone)}
        record = new_run(project, "offboard", options)
        backups = None
        if directory is not None:
            await project.require_backups(directory, chosen)
            name = f"orchestrator {record.id}"
            backups = Backups(record.id, directory, project.fleet, journal, project.databases, name)
        taking = TakingOut(
            project=project,
            journal=journal,
            registrar=Registrar(project, fleet),
            run=record.id,
            execution=execution,
            backups=backups,
            drop=drop and after is None,
            until=None if after is None else datetime.now(UTC) + after,
            listed=frozenset(tenant.id for tenant in chosen),
        )
        refusals = await Refusals.of(project, chosen, drop=taking.drop)
        everybody = [*chosen, *(aside.tenant for aside in gone)]
        plan = await looked_at(project, everybody, refusals.judge)
        return await run_each(project, journal, record, plan, taking.take_out, execution, watch or Watch())


async def offboarded_by(fleet: Fleet, *, tenants: Tenants = (), everyone: bool = False) -> list[str]:
    """The ids of those whom :func:`offboard` would take out. Reads only.

    Args:
        fleet: as for the command.
        tenants: as for the command.
        everyone: as for the command.

    Raises:
        OrchestratorError: as the command does; most of all, nobody is selected.
    """
    require_selection("offboard", tenants, everyone)
    async with opened_project(fleet) as project, opened_journal(fleet, read_only=True) as journal:
        chosen, gone = await _meant(project, journal, selection_of(tenants))
        return [tenant.id for tenant in (*chosen, *(aside.tenant for aside in gone))]


async def _meant(project: Project, journal: Journal, selection: Selection) -> tuple[Sequence[Tenant], Sequence[Aside]]:
    """Whom of the fleet a selection means, and whom that the fleet does not have any more; those by their ids alone."""
    ids = {tenant.id for tenant in project.fleet.tenants}
    # A glob, too, may be the id of one that is set aside: it must not mean the others then.
    unknown = [each for each in selection.patterns if each not in ids]
    gone: dict[str, Aside] = {}
    if unknown:
        gone = {each.tenant.id: each for each in await asides_of(project, journal) if each.tenant.id in unknown}
    left = tuple(each for each in selection.patterns if each not in gone)
    rest = replace(selection, patterns=left)
    if gone and not left and selection.listed is None:
        return (), list(gone.values())
    return rest.choose(project.fleet.tenants), list(gone.values())


def typed(selection: Selection, *, everyone: bool) -> list[str]:
    """How a selection is typed again; what is not a tenant's name is for the operator to add."""
    if everyone and selection.is_empty:
        return ["--all"]
    return list(selection.patterns) or ["-t", "TENANT"]


def _flags(directory: Path | None, drop: bool, after: timedelta | None) -> list[str]:
    """The options that were given, for whoever gives them again."""
    flags = [] if directory is None else ["--archive", str(directory)]
    if drop:
        flags.append("--drop")
    if after is not None:
        flags += ["--after", f"{after.total_seconds():g}s"]
    return flags
