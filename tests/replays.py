"""What a run says about replay: the way each tenant went, and why one did not go as it was to."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

from orchestrator.rollout.result import RunResult
from tests.projects import Project

#: Waits for an advisory lock of the tenant's own, which a test can hold (see :func:`gate`), until the commit.
GATED = "op.execute(\"SELECT pg_advisory_xact_lock(hashtext('gate of ' || current_schema()))\")"


#: Makes a database as good as new, which takes less time than making one.
EMPTY = """DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema$)' LOOP
        EXECUTE format('DROP SCHEMA %I CASCADE', name);
    END LOOP;
    CREATE SCHEMA public;
END $$"""


def gate(tenant: str) -> str:
    """The key of the lock that :data:`GATED` waits for on one tenant, as SQL."""
    return f"hashtext('gate of {tenant}')"


def paths(result: RunResult) -> dict[str, str | None]:
    """The way that every tenant went."""
    return {attempt.tenant: attempt.path for attempt in result.tenants}


def reasons(project: Project) -> dict[str, str]:
    """Why a tenant was not replayed that was to be, by tenant, from the journal."""
    with closing(sqlite3.connect(project.path / ".orchestrator" / "journal.db")) as journal:
        rows = journal.execute("SELECT tenant, detail FROM orchestrator_events WHERE kind = 'not_replayed'")
        return {tenant: json.loads(detail)["reason"] for tenant, detail in rows}


def revisions(project: Project, tenant: str) -> list[str]:
    """The revisions that the journal says a tenant was taken through, in order."""
    with closing(sqlite3.connect(project.path / ".orchestrator" / "journal.db")) as journal:
        query = "SELECT revision FROM orchestrator_events WHERE kind = 'revision' AND tenant = ? ORDER BY number"
        return [row[0] for row in journal.execute(query, [tenant])]
