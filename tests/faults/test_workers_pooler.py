"""PgBouncer before the engine's database: said so where it shares sessions, fine where it keeps them."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.actions.execution import Execution
from orchestrator.errors import JournalError
from tests.faults.pooler import pgbouncer
from tests.projects import statuses
from tests.servers import PostgresServer, fetch
from tests.workers import steered_project, tenants, workers

DBOS = Execution(executor="dbos")


@pytest.mark.parametrize("mode", ["transaction", "statement"])
async def test_shared_sessions_are_refused(tmp_path: Path, pg: PostgresServer, database: str, mode: str) -> None:
    """Locks for life and queues need sessions; nothing is touched, and the hint says what to do."""
    project = steered_project(tmp_path, database)
    with pgbouncer(database, mode) as pooled:
        tenants(project, database, "a", journal=pooled)
        with pytest.raises(JournalError) as refused:
            await project.upgrade(execution=DBOS)
    assert "does not keep sessions" in refused.value.message or "statement" in refused.value.message
    assert fetch(database, "SELECT FROM pg_namespace WHERE nspname IN ('a', 'orchestrator_engine')") == []


async def test_kept_sessions_are_fine(tmp_path: Path, pg: PostgresServer, database: str) -> None:
    """Workers and whoever looks on, all by way of it."""
    project = steered_project(tmp_path, database)
    with pgbouncer(database, "session") as pooled:
        tenants(project, database, "a", "b", journal=pooled)
        with workers(project, 1):
            result = await project.upgrade(execution=DBOS)
    assert statuses(result) == {"a": "succeeded", "b": "succeeded"}
