"""Two runs at once in one process, in one event loop or two: they know of each other what they have to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.actions import attempting
from orchestrator.actions.execute import Execution
from orchestrator.rollout.result import RunResult
from tests.catalog import catalogs, difference
from tests.projects import Project, make_project, schemas, statuses

TENANTS = [f"t{number}" for number in range(8)]
#: Names its table after the schema it is asked about last: met by another tenant in between, it would get another's.
BODY = """
    current = None

    def upgrade():
        global current
        current = op.get_bind().exec_driver_sql("SELECT current_schema()").scalar()
        for _ in range(5):
            op.get_bind().exec_driver_sql("SELECT 1")
        op.create_table(f"of_{current}", sa.Column("id", sa.Integer))

    def downgrade():
        pass
"""


async def in_one_loop(project: Project, halves: list[list[str]]) -> list[RunResult]:
    """Both in the running event loop."""
    return list(await asyncio.gather(*(project.upgrade(tenants=half) for half in halves)))


async def in_two_loops(project: Project, halves: list[list[str]]) -> list[RunResult]:
    """Each in a thread of its own, with a loop of its own."""

    def run(half: list[str]) -> RunResult:
        return asyncio.run(project.upgrade(tenants=half))

    return list(await asyncio.gather(*(asyncio.to_thread(run, half) for half in halves)))


@pytest.mark.parametrize("at_once", [in_one_loop, in_two_loops])
@pytest.mark.parametrize("kept_apart", [True, False], ids=["seam", "one at a time"])
async def test_each_tenant_gets_its_own(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch, at_once: Callable, kept_apart: bool
) -> None:
    """Also where Alembic cannot be kept apart for tasks, so that tenants take turns: in all of the process."""
    if not kept_apart:

        async def failed() -> bool:
            return False

        # No Alembic at hand fails it.
        monkeypatch.setattr(attempting, "self_check", failed)
    project = make_project(tmp_path, {"r1": BODY}, schemas(database, *TENANTS))

    results = await at_once(project, [TENANTS[::2], TENANTS[1::2]])

    assert [set(statuses(result).values()) for result in results] == [{"succeeded"}, {"succeeded"}]
    held = catalogs(database, TENANTS)
    for tenant in TENANTS:
        assert {name for name in held[tenant] if name.startswith("relation")} == {
            *("relation alembic_version", "relation alembic_version_pkc", f"relation of_{tenant}")
        }


async def test_the_same_tenants(tmp_path: Path, database: str) -> None:
    """Two runs of one process that mean the same tenants: each is migrated by one of them, once."""
    body = """
        op.create_table("log", sa.Column("id", sa.Integer, sa.Identity()), sa.Column("body", sa.Text))
        op.execute("INSERT INTO log (body) VALUES ('once')")
    """
    project = make_project(tmp_path, {"r1": body}, schemas(database, *TENANTS))

    first, second = await asyncio.gather(*(project.upgrade(execution=Execution(lock_wait=20)) for _ in range(2)))

    ends = [(statuses(first)[tenant], statuses(second)[tenant]) for tenant in TENANTS]
    assert {tuple(sorted(pair)) for pair in ends} == {("already_current", "succeeded")}
    held = catalogs(database, TENANTS)
    assert {held[tenant]["rows log"] for tenant in TENANTS} == {"1"}
    assert not any(difference(held["t0"], held[tenant]) for tenant in TENANTS)
