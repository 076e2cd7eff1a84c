"""Revisions that can be taken back, and where tenants stand."""

from __future__ import annotations

import asyncio

import orchestrator
from orchestrator.rollout.result import RunResult
from tests.projects import Project, held, one, waiting_backend

#: Where a revision stops until the gate is opened.
GATE = 78


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


def gate(project: Project, revision: str) -> None:
    """Have ``revision`` wait for the gate before it does anything."""
    file = project.path / "alembic" / "versions" / f"{revision}.py"
    wait = f'def upgrade():\n    op.execute("SELECT pg_advisory_xact_lock({GATE})")\n'
    file.write_text(file.read_text().replace("def upgrade():\n", wait))


async def cut_off(project: Project, url: str, gated: str) -> RunResult:
    """A run to r4 that is cut off in tenant a's ``gated`` revision; what is before that is committed."""
    file = project.path / "alembic" / "versions" / f"{gated}.py"
    text = file.read_text()
    gate(project, gated)
    async with held(url, GATE) as key:
        running = asyncio.create_task(project.upgrade("r4", tenants=["a"]))
        await waiting_backend(key)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    file.write_text(text)
    shown = await orchestrator.show_run(project.fleet, "last")
    assert (one(shown, "a")["status"], one(shown, "a")["to"]) == ("interrupted", None)
    return shown
