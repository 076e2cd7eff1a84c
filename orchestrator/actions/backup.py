"""backup: write each selected tenant into a file, under its lock."""

from __future__ import annotations

import asyncio
from pathlib import Path

from orchestrator.actions.each import limits_of, looked_at, new_run, run_each
from orchestrator.actions.execution import Execution, Watch
from orchestrator.actions.journals import opened_journal
from orchestrator.actions.project import opened_project
from orchestrator.actions.servers import Tenants
from orchestrator.databases.answers import Reading
from orchestrator.databases.dumping import taken
from orchestrator.databases.failures import Failure
from orchestrator.errors import TenantLocked
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.tenant import Tenant
from orchestrator.rollout.backups import Backups
from orchestrator.rollout.each import Done
from orchestrator.rollout.plan import PlannedTenant
from orchestrator.rollout.result import RunResult

_MISSING = Failure("unprovisioned", "its schema, database or file does not exist", hint="there is nothing to back up")


async def backup(
    fleet: Fleet,
    to: Path | str,
    *,
    tenants: Tenants = (),
    execution: Execution = Execution(),  # noqa: B008  frozen
    watch: Watch | None = None,
) -> RunResult:
    """Back the selected tenants up, all without a selection. Goes on whatever fails.

    Args:
        fleet: as loaded from tenants.yaml.
        to: directory that they go into, each run into one of its own; made where it is missing.
        tenants: ids or globs, or a :class:`Selection`.
        execution: ``jobs``, ``lock_wait`` and ``limits`` count.
        watch: who looks on and may stop it.

    Returns:
        What ``orchestrator backup --json`` prints, as an object; ``backups`` has the files.

    Raises:
        OrchestratorError: bad input, or pg_dump is missing or too old; nothing was written.
    """
    directory = await asyncio.to_thread(Path(to).absolute)
    async with opened_project(fleet) as project, opened_journal(fleet) as journal:
        chosen = project.choose(tenants)
        found = await looked_at(project, chosen, _judge)
        await project.require_backups(directory, chosen)
        record = new_run(project, "backup", {"source": str(directory)})
        name = f"orchestrator {record.id}"
        backups = Backups(record.id, directory, project.fleet, journal, project.databases, name)
        table = project.loop.version_table

        async def act(planned: PlannedTenant) -> Done:
            tenant, limits = planned.tenant, limits_of(project, execution, planned.tenant)
            database = project.databases[tenant.server]
            async with database.session(tenant, f"{name} {tenant.id}", limits) as session:
                if not await taken(session.try_lock, execution.lock_wait):
                    raise TenantLocked(
                        f"it is being migrated: {await session.lock_holder() or 'holder unknown'}",
                        hint="wait for it, then try again",
                    )
                heads = await session.heads(table)
                await backups.make(tenant, heads, table, limits)
            return Done(heads, heads)

        return await run_each(project, journal, record, found, act, execution, watch or Watch())


def _judge(_: Tenant, reading: Reading) -> Failure | None:
    return None if reading.exists else _MISSING
