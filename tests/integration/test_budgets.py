"""How many tenants a server takes at once."""

from __future__ import annotations

from pathlib import Path

import pytest

import orchestrator
from orchestrator.actions.project import opened_project
from tests.projects import ACCOUNTS, make_project
from tests.servers import PostgresServer


@pytest.mark.parametrize(("asked", "cap"), [(3, 3), (1000, None)])
async def test_a_quarter_of_the_free_connections_at_most(
    tmp_path: Path, second_pg: PostgresServer, asked: int, cap: int | None
) -> None:
    """What tenants.yaml says holds up to a quarter of what the server has free: the application needs the others."""
    text = f"{{servers: {{main: {{url: '{second_pg.url}', max_concurrency: {asked}}}}}, tenants: [{{id: a}}]}}"
    make_project(tmp_path, {"r1": ACCOUNTS}, text)
    async with opened_project(orchestrator.load(tmp_path / "tenants.yaml")) as project:
        ((_, found),) = (await project.budgets(project.fleet.tenants)).values()

        free = await project.databases["main"].free_connections() or 0
    assert found == cap or (cap is None and abs(found - free // 4) <= 1)
