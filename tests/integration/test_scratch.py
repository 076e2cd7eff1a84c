"""Tenants of nobody's, made by the shared directory alone: at the target, of the fleet's shape, gone afterwards."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

import orchestrator
from orchestrator.actions.project import opened_project
from orchestrator.actions.scratch import bring, scratch_tenant
from orchestrator.errors import OrchestratorError
from orchestrator.fleet.fleet import Fleet
from tests.command_line import FIRST, SECOND, THIRD, Project
from tests.servers import fetch


@pytest.fixture
def fleet(project: Project) -> Fleet:
    """One tenant at no revision."""
    project.fleet("acme")
    return orchestrator.load(project.workspace.path / "tenants.yaml")


async def test_it_looks_as_a_tenant_does(project: Project, fleet: Fleet) -> None:
    """A scratch tenant that was brought to the heads in two steps has the shape of a tenant there, and is dropped."""
    await orchestrator.upgrade(fleet)
    async with opened_project(fleet) as opened:
        acme = opened.fleet.tenants[0]
        database, table = opened.databases[acme.server], opened.loop.version_table
        async with scratch_tenant(opened, acme, SECOND) as tenant:
            assert (await database.read([tenant], table))[tenant.id].heads == (SECOND,)
            await bring(opened, tenant, "heads")
            shapes = await database.fingerprints([tenant, acme], table)
            assert (await database.read([tenant], table))[tenant.id].heads == (THIRD,)
            assert len(set(shapes.values())) == 1
        assert not (await database.read([tenant], table))[tenant.id].exists


async def test_a_forgotten_transaction_holds_nobody_up(project: Project, fleet: Fleet) -> None:
    """Scratch schemas that somebody has locked, a killed one's and one's own, are left to the next one."""
    left = "SELECT nspname FROM pg_namespace WHERE starts_with(nspname, 'orchestrator_scratch')"
    project.execute("CREATE SCHEMA orchestrator_scratch_0123456789abcdef")
    project.execute("CREATE TABLE orchestrator_scratch_0123456789abcdef.t ()")
    forgotten = await asyncpg.connect(project.url)
    try:
        await forgotten.execute("BEGIN; LOCK TABLE orchestrator_scratch_0123456789abcdef.t IN ACCESS SHARE MODE")
        async with (
            asyncio.timeout(30),
            opened_project(fleet) as opened,
            scratch_tenant(opened, opened.fleet.tenants[0], FIRST) as own,
        ):
            await forgotten.execute(f'LOCK TABLE "{own.schema}".notes IN ACCESS SHARE MODE')
        assert len(fetch(project.url, left)) == 2
        await forgotten.execute("COMMIT")
        async with opened_project(fleet) as opened, scratch_tenant(opened, opened.fleet.tenants[0]):
            pass
        assert fetch(project.url, left) == []
    finally:
        await forgotten.close()


async def test_what_fails_names_the_revision(project: Project, fleet: Fleet) -> None:
    """A directory that does not lead from nothing to the target is told with its revision, and nothing is left."""
    file = next(path for path in (project.workspace.path / "alembic" / "versions").glob("*.py") if FIRST in path.name)
    file.write_text(file.read_text().replace("def upgrade():", "def upgrade():\n    op.execute('no')"))
    async with opened_project(fleet) as opened:
        with pytest.raises(OrchestratorError, match=f"in revision {FIRST}: syntax error"):
            async with scratch_tenant(opened, opened.fleet.tenants[0], "heads"):
                pass
    assert fetch(project.url, "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'orchestrator%'") == []
