"""Tenants to rehearse on, and what is left of their clones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.projects import Project, make_project, schemas
from tests.servers import PostgresServer, fetch

NOTES = """
def upgrade():
    op.create_table("notes", sa.Column("id", sa.Integer, primary_key=True), sa.Column("body", sa.Text))

def downgrade():
    op.drop_table("notes")
"""


def left(pg: PostgresServer) -> list[str]:
    """Scratch databases on the server."""
    return [row[0] for row in fetch(pg.url, "SELECT datname FROM pg_database WHERE starts_with(datname, 'orch')")]


async def behind(path: Path, url: str, revisions: Mapping[str, str], *tenants: str, **keys: Any) -> Project:
    """A project whose tenants, in schemas of the database at ``url``, are at the first of ``revisions``."""
    project = make_project(path, revisions, schemas(url, *tenants, **keys))
    await project.upgrade(next(iter(revisions)))
    return project


def contents(url: str, *names: str) -> list[Any]:
    """All that is in some schemas, to the row, and when each was changed (``xmin``)."""
    found: list[Any] = []
    for name in names:
        for (table,) in fetch(url, f"SELECT tablename FROM pg_tables WHERE schemaname = '{name}' ORDER BY 1"):
            found += [tuple(row) for row in fetch(url, f'SELECT xmin::text, t::text FROM "{name}"."{table}" t')]
    return found
