"""A small project of a test's own: three quick revisions, tenants in schemas of one database, the real command line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.saas.base import NAMING_CONVENTION
from tests.servers import execute, fetch
from tests.workspace import Workspace

#: The small history's revisions, oldest first.
FIRST, SECOND, THIRD = "a1a1a1a1a1a1", "b2b2b2b2b2b2", "c3c3c3c3c3c3"

#: In env.py, instead of the sample's models: those are for its own history, and to map them is a quarter of a short
#: command. Constraints are called as there.
_METADATA = f"""
import sqlalchemy as sa

metadata = sa.MetaData(naming_convention={NAMING_CONVENTION!r})
sa.Table("notes", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("body", sa.Text))
sa.Table("extras", metadata, sa.Column("id", sa.Integer, primary_key=True))
"""
_REVISION = '''"""{message}"""

from alembic import op
import sqlalchemy as sa

revision = {id!r}
down_revision = {down!r}
branch_labels = {label!r}
depends_on = None


def upgrade():
    {upgrade}


def downgrade():
    {downgrade}
'''


@dataclass(frozen=True, slots=True)
class Project:
    """A workspace whose history is FIRST (a table), SECOND (a column), THIRD (another table, ``extras``)."""

    workspace: Workspace
    #: Address of a database of the test's own; its server is called ``main`` in tenants.yaml.
    url: str

    @classmethod
    def create(cls, workspace: Workspace, url: str) -> Project:
        """Put the small history, and its models, in the place of the sample's."""
        project = cls(workspace, url)
        for file in project.versions.glob("*.py"):
            file.unlink()
        env = workspace.path / "alembic" / "env.py"
        workspace.write("alembic/env.py", env.read_text().replace("from examples.saas import metadata\n", _METADATA))
        project.revision(
            FIRST,
            None,
            "op.create_table('notes', sa.Column('id', sa.Integer, primary_key=True))",
            "op.drop_table('notes')",
        )
        project.revision(
            SECOND, FIRST, "op.add_column('notes', sa.Column('body', sa.Text))", "op.drop_column('notes', 'body')"
        )
        project.revision(
            THIRD,
            SECOND,
            "op.create_table('extras', sa.Column('id', sa.Integer, primary_key=True))",
            "op.drop_table('extras')",
        )
        return project

    @property
    def versions(self) -> Path:
        """The directory of revisions."""
        return self.workspace.path / "alembic" / "versions"

    @property
    def journal(self) -> Path:
        """The journal's file."""
        return self.workspace.path / ".orchestrator" / "journal.db"

    def revision(
        self,
        id: str,
        down: str | tuple[str, ...] | None,
        upgrade: str = "pass",
        downgrade: str = "pass",
        label: str | None = None,
    ) -> Path:
        """Write a revision file; ``upgrade`` and ``downgrade`` are one statement each."""
        text = _REVISION.format(
            message=f"revision {id}", id=id, down=down, label=label, upgrade=upgrade, downgrade=downgrade
        )
        return self.workspace.write(f"alembic/versions/{id}.py", text)

    def fleet(self, *tenants: str, schemas: bool = True, more: str = "") -> None:
        """Write tenants.yaml.

        Args:
            tenants: each a YAML value: an id, or a mapping such as ``{id: acme, tags: [eu]}``.
            schemas: make the schemas of those that are given as an id or as a mapping with the id first.
            more: further top-level keys.
        """
        lines = "".join(f"  - {tenant}\n" for tenant in tenants)
        self.workspace.write(
            "tenants.yaml",
            f'servers:\n  main: {{url: "{self.url}"}}\ndefaults: {{server: main}}\ntenants:\n{lines}{more}',
        )
        if schemas and tenants:
            names = [tenant.removeprefix("{id: ").partition(",")[0].rstrip("}") for tenant in tenants]
            self.execute("".join(f'CREATE SCHEMA IF NOT EXISTS "{name}";' for name in names))

    def execute(self, sql: str) -> None:
        """Run statements in the test's database."""
        execute(self.url, sql)

    def heads(self, schema: str) -> list[str]:
        """What a tenant's version table says; empty without one."""
        if not fetch(self.url, f"SELECT 1 WHERE to_regclass('\"{schema}\".alembic_version') IS NOT NULL"):
            return []
        return sorted(row[0] for row in fetch(self.url, f'SELECT version_num FROM "{schema}".alembic_version'))

    def catalog(self) -> list[tuple[str, ...]]:
        """Every schema, relation and column of the database that is not PostgreSQL's own."""
        query = """
            SELECT nspname, coalesce(relname, ''), coalesce(attname, '') FROM pg_namespace n
            LEFT JOIN pg_class c ON relnamespace = n.oid LEFT JOIN pg_attribute ON attrelid = c.oid AND attnum > 0
            WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY 1, 2, 3
        """
        return [tuple(row) for row in fetch(self.url, query)]

    def run(self, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """``orchestrator ARGS``, see :meth:`Workspace.run`."""
        return self.workspace.run(*args, **options)

    def json(self, *args: str, **options: Any) -> Any:
        """``orchestrator ARGS --json``, see :meth:`Workspace.json`."""
        return self.workspace.json(*args, **options)

    def start(self, *args: str, env: Mapping[str, str] | None = None, stdin: bool = False) -> subprocess.Popen[str]:
        """Start ``orchestrator ARGS`` and go on; use as a context manager. ``stdin`` is to be written to."""
        return subprocess.Popen(
            # A test run in the background of a shell has SIGINT ignored, and commands would inherit that.
            ["env", "--default-signal=INT", sys.executable, "-m", "orchestrator", *args],
            cwd=self.workspace.path,
            env=self.workspace.environment(env),
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def statuses(document: Mapping[str, Any]) -> dict[str, str]:
    """Each tenant's status in a run's document."""
    return {tenant["tenant"]: tenant["status"] for tenant in document["tenants"]}


def tenant_of(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    """One tenant's entry in a document."""
    (found,) = [tenant for tenant in document["tenants"] if tenant["tenant"] == name]
    return found


def assert_error(result: subprocess.CompletedProcess[str], *parts: str, code: int = 2) -> None:
    """The command ended with ``code`` and said ``parts`` on stderr, without a traceback and with nothing on stdout."""
    told = f"exit code {result.returncode}\n{result.stdout}\n{result.stderr}"
    assert result.returncode == code, told
    assert "Traceback" not in result.stderr, told
    assert result.stderr.startswith("error: "), told
    assert result.stdout == "", told
    for part in parts:
        assert part in result.stderr, told
