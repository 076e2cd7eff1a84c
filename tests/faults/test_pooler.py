"""A real PgBouncer in between: refused where it shares sessions, fine where it keeps them, passed by direct_url."""

from __future__ import annotations

from pathlib import Path

import pytest

import orchestrator
from tests.faults.pooler import pgbouncer
from tests.projects import ACCOUNTS, PROJECTS, make_project, one, statuses, tables
from tests.servers import PostgresServer

IDS = [f"t{number}" for number in range(12)]


def fleet(url: str, **server: str) -> str:
    """A tenants.yaml with twelve schemas behind an address."""
    more = "".join(f", {key}: '{value}'" for key, value in server.items())
    listed = ", ".join(IDS)
    return f"{{servers: {{main: {{url: '{url}'{more}}}}}, defaults: {{server: main}}, tenants: [{listed}]}}"


@pytest.mark.parametrize("mode", ["transaction", "statement"])
async def test_shared_sessions_are_refused(tmp_path: Path, pg: PostgresServer, database: str, mode: str) -> None:
    """Nothing is touched through a pooler that keeps neither locks nor the search path; the hint says what to do."""
    with pgbouncer(database, mode) as pooled:
        project = make_project(tmp_path, {"r1": ACCOUNTS}, fleet(pooled))
        result = await project.upgrade()
        report = await orchestrator.status(project.fleet)

    assert set(statuses(result).values()) <= {"failed", "not_started"}
    error = one(result, "t0")["error"]
    assert error["type"] == "unreachable"
    assert "pooler" in error["message"]
    assert "direct_url" in error["hint"]
    assert "pool_mode = session" in error["hint"]
    assert report.summary == {"unreachable": len(IDS)}
    assert tables(database, "t0") == set()


async def test_a_busy_pooler_is_found_out(tmp_path: Path, pg: PostgresServer, database: str) -> None:
    """Also where it has several idle server connections to choose from."""
    with pgbouncer(database, "transaction") as pooled:
        project = make_project(tmp_path, {"r1": ACCOUNTS}, fleet(pooled))
        for _ in range(5):
            assert (await orchestrator.status(project.fleet)).summary == {"unreachable": len(IDS)}


async def test_kept_sessions_are_fine(tmp_path: Path, pg: PostgresServer, database: str) -> None:
    """Through a pooler that keeps sessions, tenants are recorded, replayed and migrated like any others."""
    with pgbouncer(database, "session") as pooled:
        project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": PROJECTS}, fleet(pooled))
        result = await project.upgrade()

    assert statuses(result) == dict.fromkeys(IDS, "succeeded"), result.as_json()
    assert {one(result, tenant)["path"] for tenant in IDS} == {"alembic", "replay"}
    for tenant in IDS:
        assert tables(database, tenant) == {"accounts", "projects", "alembic_version"}


async def test_a_direct_address_beside_it(tmp_path: Path, pg: PostgresServer, database: str) -> None:
    """With `direct_url`, the work goes past the pooler that the application uses."""
    with pgbouncer(database, "transaction") as pooled:
        project = make_project(tmp_path, {"r1": ACCOUNTS}, fleet(pooled, direct_url=database))
        assert statuses(await project.upgrade()) == dict.fromkeys(IDS, "succeeded")
