"""doctor: whether anything would break a run, before it is begun. Reads only."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.actions.journals import opened_journal
from orchestrator.actions.project import Project, opened_project
from orchestrator.actions.servers import Tenants
from orchestrator.databases.findings import Finding, Level
from orchestrator.databases.port import Database
from orchestrator.errors import JournalError, OrchestratorError
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.tenant import Tenant
from orchestrator.migration.seam import self_check


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """Everything that was looked at, server by server."""

    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing stands against a run."""
        return all(finding.level is not Level.PROBLEM for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """The document of ``doctor --json`` (see docs/cli.md)."""
        return {"healthy": self.healthy, "findings": [finding.as_json() for finding in self.findings]}


async def doctor(fleet: Fleet, *, tenants: Tenants = ()) -> DoctorReport:
    """Look at the servers of the selected tenants, all without a selection, at the directory and at the journal.

    Args:
        fleet: as loaded from tenants.yaml.
        tenants: ids or globs, or a :class:`Selection`.

    Raises:
        OrchestratorError: bad input. A server that cannot be reached is no error: it is a finding.
    """
    async with opened_project(fleet) as project:
        by_server: dict[str, list[Tenant]] = defaultdict(list)
        for tenant in project.choose(tenants):
            by_server[tenant.server].append(tenant)
        found = await asyncio.gather(
            *(_server(project.databases[name], name, here) for name, here in by_server.items())
        )
        general = [*_directory(project), await _seam(), await _journal(fleet)]
        return DoctorReport((*general, *(finding for part in found for finding in part)))


async def _server(database: Database, name: str, tenants: Sequence[Tenant]) -> list[Finding]:
    try:
        return [replace(finding, server=name) for finding in await database.diagnose(tenants)]
    except OrchestratorError as error:
        return [Finding(Level.PROBLEM, "connection", error.message, error.hint, name)]


def _directory(project: Project) -> Iterator[Finding]:
    heads = project.history.heads
    if len(heads) > 1:
        hint = "upgrade goes to `heads`, all of them; to join them: alembic merge -m 'merge heads' heads"
        yield Finding(Level.NOTE, "directory", f"{len(heads)} heads: {', '.join(heads)}", hint)
    else:
        yield Finding(Level.OK, "directory", f"head {', '.join(heads) or 'none'}")


async def _seam() -> Finding:
    if await self_check():
        return Finding(Level.OK, "alembic", "tenants can be migrated at once")
    text = "with this version of Alembic, tenants are migrated one at a time"
    return Finding(Level.NOTE, "alembic", text, "use Alembic 1.16 to 1.20")


async def _journal(fleet: Fleet) -> Finding:
    try:
        async with opened_journal(fleet) as journal:
            last = await journal.last_run()
    except JournalError as error:
        return Finding(Level.PROBLEM, "journal", error.message, error.hint)
    return Finding(Level.OK, "journal", "can be written" + (f"; the last run is {last.id}" if last else ""))
