"""One tenant behind an adapter, with rows, that is dumped and put back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import text

from orchestrator.databases.dumping import Restored, Restoring
from orchestrator.databases.port.database import Database
from orchestrator.fleet.tenant import Limits, Tenant

VERSIONS = "alembic_version"
LIMITS = Limits(lock_timeout=1.0, statement_timeout=60)
ROWS = ["1", "it's", "日本", "a\\b\tc\nd", '"']
#: A role that the server gives hardly a moment of silence.
IMPATIENT = (
    "DO $$ BEGIN CREATE ROLE impatient LOGIN SUPERUSER; EXCEPTION WHEN duplicate_object THEN NULL; END $$;"
    "ALTER ROLE impatient SET idle_session_timeout = '100ms';"
    "ALTER ROLE impatient SET idle_in_transaction_session_timeout = '100ms'"
)


@dataclass(slots=True)
class Place:
    """A tenant at ``r1`` that has rows, and where its dump goes."""

    database: Database
    tenant: Tenant
    dump: Path
    properties: dict[str, Any] = field(default_factory=dict)

    async def run(self, *statements: str, **values: Any) -> list[Any]:
        """Run statements in one transaction of the tenant's; rows of the last one."""
        async with self.database.session(self.tenant, "suite", LIMITS) as session, session.connection.begin():
            for statement in statements:
                result = await session.connection.execute(text(statement), values)
            return [row[0] for row in result] if result.returns_rows else []

    async def save(self) -> None:
        """Dump it."""
        dumped = await self.database.dump(self.tenant, self.dump, "suite", LIMITS)
        self.properties = dict(dumped.properties)

    async def put_back(self, heads: tuple[str, ...] = ("r1",), **more: Any) -> Restored:
        """Restore it."""
        given = {"limits": LIMITS, "lock_wait": 0.0, "properties": self.properties, "run": "run", **more}
        work = Restoring(self.tenant, self.dump, heads, VERSIONS, application="suite", **given)
        return await self.database.restore(work)

    async def fill(self) -> None:
        """Make the tenant, which is not there yet."""
        await self.database.provision(self.tenant)
        await self.run(
            "CREATE TABLE notes (id integer PRIMARY KEY, body text)",
            f"CREATE TABLE {VERSIONS} (version_num varchar(32) NOT NULL)",
            f"INSERT INTO {VERSIONS} VALUES ('r1')",
        )
        for number, body in enumerate(ROWS):
            await self.run("INSERT INTO notes VALUES (:number, :body)", number=number, body=body)

    async def rows(self) -> list[Any]:
        """What it holds."""
        return await self.run("SELECT body FROM notes ORDER BY id")
