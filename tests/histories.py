"""Alembic histories to migrate fleets with: those that others wrote, from the package index, and the repository's own.

Each project made here has two env.py files with the same settings: one with the tenant loop, and one for plain Alembic,
which makes the catalog that every tenant must have.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.package_index import environment, unpacked
from tests.workspace import REPOSITORY, Workspace

_INI = """\
[alembic]
script_location = %(here)s/alembic
version_locations = {versions}
recursive_version_locations = true
path_separator = newline
"""

#: What an adopter's env.py says: his own settings, and the loop.
_ENV = """\
from alembic import context
from sqlalchemy import MetaData

from orchestrator import for_each_tenant

target_metadata = MetaData()
{setup}


def migrate(connection, tenant):
    context.configure(
        connection=connection,
        target_metadata=target_metadata,
        version_table={version_table!r},
        version_table_schema=tenant.schema,
        transaction_per_migration=True,
        {options}
    )
    with context.begin_transaction():
        context.run_migrations()


for_each_tenant(migrate, version_table={version_table!r})
"""

#: The same settings for one database, after Alembic's own template for async drivers.
_PLAIN_ENV = """\
import asyncio
import os

from alembic import context
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

target_metadata = MetaData()
{setup}


def migrate(connection):
    context.configure(
        connection=connection,
        target_metadata=target_metadata,
        version_table={version_table!r},
        transaction_per_migration=True,
        {options}
    )
    with context.begin_transaction():
        context.run_migrations()


async def main():
    engine = create_async_engine(os.environ["DATABASE_URL"], poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(migrate)


asyncio.run(main())
"""


@dataclass(frozen=True, slots=True)
class History:
    """A versions directory, the settings that its own env.py has, and where it ends."""

    name: str
    #: Its heads, sorted.
    heads: tuple[str, ...]
    #: The versions directory, inside the wheel where there is a package.
    versions: str
    #: Requirement with the exact version; empty for a directory of this repository.
    package: str = ""
    #: Its revisions import the application, so that the package is needed with all it depends on.
    installed: bool = False
    #: Lines of env.py before anything is configured.
    setup: str = ""
    #: Further arguments of ``context.configure``.
    options: str = ""
    version_table: str = "alembic_version"
    #: Extensions that the operator makes in a schema of their own before tenants share a database.
    extensions: tuple[str, ...] = ()

    def project(self, path: Path) -> Workspace:
        """Make a project over this history in ``path``, which exists; tenants.yaml is the test's to write."""
        workspace = Workspace(path, str(environment(self.package)) if self.installed else sys.executable)
        versions = unpacked(self.package, self.versions) if self.package else REPOSITORY / self.versions
        for directory, text in (("", _ENV), ("plain/", _PLAIN_ENV)):
            workspace.write(f"{directory}alembic.ini", _INI.format(versions=versions))
            env = text.format(setup=self.setup, options=self.options, version_table=self.version_table)
            workspace.write(f"{directory}alembic/env.py", env)
        return workspace


def migrate_plainly(workspace: Workspace, url: str, command: str = "upgrade", target: str = "heads") -> None:
    """Let Alembic alone, without the orchestrator, migrate the one database at ``url``."""
    address = url.replace("postgresql://", "postgresql+asyncpg://").replace("sqlite://", "sqlite+aiosqlite://")
    result = subprocess.run(
        [workspace.interpreter, "-m", "alembic", command, target],
        check=False,
        cwd=workspace.path / "plain",
        env={**os.environ, "DATABASE_URL": address, "PYTHONPATH": ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"


SAMPLE = History(
    name="sample",
    heads=("5ce7308fb946",),
    versions="alembic/versions",
    setup=f"import sys\n\nsys.path.append({str(REPOSITORY)!r})\nfrom examples.saas import metadata as target_metadata",
)

ARGILLA = History(
    name="argilla",
    heads=("580a6553186f",),
    package="argilla-server==2.8.0",
    versions="argilla_server/alembic/versions",
)

PLACEMENT = History(
    name="placement",
    heads=("a082b8bb98d0",),
    package="openstack-placement==16.0.0",
    versions="placement/db/sqlalchemy/alembic/versions",
    # As where one database serves several applications.
    version_table="placement_version",
)

OPTUNA = History(
    name="optuna",
    heads=("v3.2.0.a",),
    package="optuna==5.0.0",
    versions="optuna/storages/_rdb/alembic/versions",
    installed=True,
    setup="from optuna.storages._rdb.models import BaseModel\n\ntarget_metadata = BaseModel.metadata",
    options="render_as_batch=True,",
)

PREFECT = History(
    name="prefect",
    heads=("d4a7e1c93f52",),
    package="prefect==3.8.8",
    versions="prefect/server/database/_migrations/versions/postgresql",
    installed=True,
    # Its models have a naming convention, and choose their types by the dialect of an address that is never opened.
    setup="""\
import os
import tempfile

os.environ["PREFECT_HOME"] = tempfile.mkdtemp(dir=os.path.dirname(__file__))
os.environ["PREFECT_API_DATABASE_CONNECTION_URL"] = "postgresql+asyncpg://nobody@localhost/nothing"
from prefect.server.database.dependencies import provide_database_interface

target_metadata = provide_database_interface().Base.metadata""",
    options="include_schemas=True,",
    extensions=("pg_trgm",),
)

KEYSTONE = History(
    name="keystone",
    heads=("742c857f1dfb", "c88cdce8f248"),
    package="keystone==30.0.0",
    versions="keystone/common/sql/migrations/versions",
    installed=True,
    setup="""\
import keystone.conf
from keystone.common.sql import core

keystone.conf.configure()
target_metadata = core.ModelBase.metadata""",
    options="render_as_batch=True,",
)

#: Needing nothing but Alembic and SQLAlchemy.
LIGHT = (ARGILLA, PLACEMENT)
ALL = (*LIGHT, OPTUNA, PREFECT, KEYSTONE)
