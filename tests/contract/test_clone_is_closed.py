"""A clone holds a customer's rows: nobody but whoever made it may look at it, from its first moment on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asyncpg
import pytest

from orchestrator.databases.cloning import Cloning
from orchestrator.databases.postgresql.adapter import PostgreSQL
from orchestrator.fleet.secrets import Template
from orchestrator.fleet.tenant import Isolation, Limits, Server, Tenant
from tests.projects import with_role
from tests.servers import PostgresServer, execute, fetch

_CLONES = "SELECT datname, datallowconn FROM pg_database WHERE datname LIKE 'orchestrator_scratch_%'"


class Watched(PostgreSQL):
    """An adapter beside which a stranger tries to get into every clone, before each connection of its own."""

    def __init__(self, server: Server, pg: PostgresServer) -> None:
        super().__init__(server)
        self.pg = pg
        #: What became of the stranger.
        self.tried: list[str] = []

    async def _connect(self, database: str | None, **arguments: Any) -> Any:
        await self.try_it()
        return await super()._connect(database, **arguments)

    async def try_it(self) -> None:
        """Have the stranger try."""
        looking = await asyncpg.connect(self.pg.url)
        try:
            clones = await looking.fetch(_CLONES)
        finally:
            await looking.close()
        for name, _ in clones:
            try:
                stranger = await asyncpg.connect(with_role(self.pg.database_url(name), "clone_stranger", "x"))
            except (asyncpg.PostgresError, OSError) as error:
                self.tried.append(type(error).__name__)
            else:
                await stranger.close()
                self.tried.append("came in")


@pytest.mark.parametrize("template", [True, False])
async def test_nobody_comes_in(tmp_path: Path, database: str, pg: PostgresServer, template: bool) -> None:
    """A copied database lets everybody in whom PUBLIC lets in; a clone does not, not for a moment."""
    execute(database, "CREATE TABLE alembic_version (version_num text); CREATE TABLE notes AS SELECT 1 AS id")
    execute(pg.url, "CREATE ROLE clone_stranger LOGIN PASSWORD 'x'")
    adapter = Watched(Server("main", Template(pg.url, tmp_path)), pg)
    tenant = Tenant("acme", "main", Isolation.DATABASE, None, database.rsplit("/", 1)[1])
    try:
        cloning = Cloning("test", Limits(), "alembic_version", (), template=template)
        async with adapter.clone(tenant, cloning) as clone:
            assert clone.way == ("template" if template else "pg_dump")
            await adapter.try_it()
            assert fetch(pg.database_url(str(clone.tenant.database)), "SELECT id FROM notes") == [(1,)]
        assert len(adapter.tried) >= 3
        assert set(adapter.tried) <= {"ObjectNotInPrerequisiteStateError", "InsufficientPrivilegeError"}
        assert fetch(pg.url, _CLONES) == []
    finally:
        await adapter.close()
        execute(pg.url, "DROP ROLE clone_stranger")
