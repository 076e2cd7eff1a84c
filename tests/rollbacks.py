"""Revisions that can be taken back, and where tenants stand."""

from __future__ import annotations

import orchestrator
from tests.projects import Project


def table(name: str, *variables: str, down: str = "", up: str = "") -> str:
    """A revision that makes a table with an index and takes both away again; ``variables`` are Alembic's, set anew."""
    lines = [
        *variables,
        "def upgrade():",
        f'    op.create_table("{name}", sa.Column("id", sa.Integer, primary_key=True), sa.Column("body", sa.Text))',
        f'    op.create_index("ix_{name}", "{name}", ["body"])',
        *([f"    {up}"] if up else []),
        "def downgrade():",
        *([f"    {down}"] if down else []),
        f'    op.drop_table("{name}")',
    ]
    return "\n".join(lines)


LINE = {name: table(name) for name in ("r1", "r2", "r3")}


async def heads(project: Project) -> dict[str, tuple[str, ...] | None]:
    """Where every tenant is."""
    return {each.tenant.id: each.heads for each in (await orchestrator.status(project.fleet)).tenants}
