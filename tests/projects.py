"""Small projects of a test's own making: a shared history of a few revisions, an env.py, a tenants.yaml."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent, indent
from typing import Any
from urllib.parse import urlsplit

import asyncpg

import orchestrator
from orchestrator.actions.execution import Execution
from orchestrator.fleet.fleet import Fleet
from orchestrator.rollout.result import RunResult
from tests.servers import fetch

#: The env.py that the project's documentation shows.
ENV = """
from alembic import context
from orchestrator import for_each_tenant


def migrate(connection, tenant):
    context.configure(
        connection=connection, version_table_schema=tenant.schema, transaction_per_migration=True
    )
    with context.begin_transaction():
        context.run_migrations()


for_each_tenant(migrate)
"""
_INI = """
[alembic]
script_location = %(here)s/alembic
path_separator = os
"""
_REVISION = '''"""{name}"""

import sqlalchemy as sa
from alembic import {imported}

revision = "{name}"
down_revision = {down!r}
branch_labels = None
depends_on = None


{body}
'''
_FUNCTIONS = """
def upgrade():
{upgrade}


def downgrade():
    pass
"""
#: Goes on whatever fails: for tests about one tenant and its neighbour.
ALL = Execution(continue_on_error=True)
#: Bodies of a revision's upgrade().
ACCOUNTS = 'op.create_table("accounts", sa.Column("id", sa.Integer, primary_key=True))'
PROJECTS = 'op.create_table("projects", sa.Column("id", sa.Integer, primary_key=True))'
#: How often a condition is looked at that nobody announces, and how long it may take to come true, in seconds.
_POLL, _DEADLINE = 0.01, 20.0


@dataclass(frozen=True, slots=True)
class Project:
    """A directory that ``orchestrator.load`` and ``History.beside`` read."""

    path: Path

    @property
    def fleet(self) -> Fleet:
        """tenants.yaml, loaded anew."""
        return orchestrator.load(self.path / "tenants.yaml")

    async def upgrade(self, target: str | None = None, **options: Any) -> RunResult:
        """``orchestrator upgrade`` with every missing place made, by its Python API."""
        return await orchestrator.upgrade(self.fleet, target, **{"provision": True, **options})

    async def downgrade(self, target: str, **options: Any) -> RunResult:
        """``orchestrator downgrade``, by its Python API."""
        return await orchestrator.downgrade(self.fleet, target, **options)

    def text(self) -> str:
        """Everything that a run has left on disk here but for the project's own files: the journal, above all."""
        files = [file for file in (self.path / ".orchestrator").rglob("*") if file.is_file()]
        return "\n".join(file.read_bytes().decode("utf-8", "replace") for file in files)


def make_project(path: Path, revisions: Mapping[str, str], tenants: str, env: str = ENV) -> Project:
    """Write a project.

    Args:
        path: an existing directory.
        revisions: identifier to source, oldest first; each follows the one before it. The source is the body of
            ``upgrade()``, or, where it has functions of its own, the module below Alembic's four variables, which it
            may set again.
        tenants: text of tenants.yaml.
        env: text of env.py.
    """
    versions = path / "alembic" / "versions"
    versions.mkdir(parents=True)
    down = None
    for name, source in revisions.items():
        body = dedent(source).strip()
        if "def upgrade" not in body:
            body = _FUNCTIONS.format(upgrade=indent(body or "pass", "    ")).strip()
        # Who imports the context may read from it, and is not replayed.
        imported = "context, op" if "context." in body else "op"
        text = _REVISION.format(name=name, imported=imported, down=down, body=body)
        (versions / f"{name}.py").write_text(text, encoding="utf-8")
        down = name
    (path / "alembic" / "env.py").write_text(env, encoding="utf-8")
    (path / "alembic.ini").write_text(_INI, encoding="utf-8")
    (path / "tenants.yaml").write_text(tenants, encoding="utf-8")
    return Project(path)


def schemas(url: str, *ids: str, **keys: Any) -> str:
    """A tenants.yaml with a schema per tenant in the database at ``url``; ``keys`` are more of its top level."""
    server = {"url": url, "max_concurrency": 16}
    return json.dumps({"servers": {"main": server}, "tenants": [{"id": id} for id in ids], **keys}, ensure_ascii=False)


def files(directory: Path, *ids: str) -> str:
    """A tenants.yaml with a SQLite file per tenant in ``directory``."""
    server = {"url": f"sqlite:///{directory}", "max_concurrency": 64}
    defaults = {"server": "files", "isolation": "file"}
    return json.dumps({"servers": {"files": server}, "defaults": defaults, "tenants": [{"id": id} for id in ids]})


def one(result: RunResult, tenant: str) -> Mapping[str, Any]:
    """One tenant's part of the document that ``--json`` prints."""
    return next(each for each in result.as_json()["tenants"] if each["tenant"] == tenant)


def statuses(result: RunResult) -> dict[str, str]:
    """How every tenant ended."""
    return {attempt.tenant: attempt.status.value for attempt in result.tenants}


def tables(url: str, schema: str) -> set[str]:
    """Names of the tables in one schema."""
    quoted = schema.replace("'", "''")
    rows = fetch(url, f"SELECT table_name FROM information_schema.tables WHERE table_schema = '{quoted}'")
    return {row[0] for row in rows}


@asynccontextmanager
async def held(url: str, key: int) -> AsyncIterator[asyncpg.Connection]:
    """Hold advisory lock ``key`` on a connection of one's own: a migration that asks for it stops at a known point."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"SELECT pg_advisory_lock({key})")
        yield connection
    finally:
        await connection.close()


async def waiting_backend(connection: asyncpg.Connection, count: int = 1) -> list[asyncpg.Record]:
    """The backends of this database that wait for an advisory lock, once there are ``count`` of them."""
    query = (
        "SELECT pid, application_name FROM pg_locks JOIN pg_stat_activity USING (pid)"
        " WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"
    )
    return await until(lambda: connection.fetch(query), lambda rows: len(rows) >= count)


async def until(look: Callable[[], Awaitable[Any]], enough: Callable[[Any], bool]) -> Any:
    """Look until it is enough; for what a server does, which no event announces."""
    deadline = time.monotonic() + _DEADLINE
    while not enough(found := await look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not so after {_DEADLINE:.0f} s: {found}")
        await asyncio.sleep(_POLL)
    return found


def with_role(url: str, user: str, password: str) -> str:
    """The address ``url`` for another role."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{user}:{password}@{parts.hostname}:{parts.port}").geturl()
