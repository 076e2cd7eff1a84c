"""Records to write, and a journal to write them in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from orchestrator.journal.journal import Journal
from orchestrator.journal.records import Actor, AttemptRecord, RunRecord, new_run_id
from orchestrator.statuses import RunStatus, TenantStatus

MOMENT = datetime(2026, 11, 22, 21, 53, 7, 123, tzinfo=UTC)
ACTOR = Actor("alice", "ops-1", 4711, "boot/ns/42", "0123456789abcdef0123456789abcdef01234567")


def a_run(**changes: Any) -> RunRecord:
    """A run that has just begun."""
    run = RunRecord(new_run_id(), "upgrade", ("a1",), "heads", RunStatus.RUNNING, MOMENT, None, ACTOR, "digest")
    return replace(run, **{"heartbeat_at": MOMENT, **changes})


def an_attempt(run: RunRecord, tenant: str, *, status: TenantStatus = TenantStatus.PENDING) -> AttemptRecord:
    """An attempt of ``run`` on ``tenant``."""
    return AttemptRecord(run.id, tenant, "canary", status, ("a0",))


@asynccontextmanager
async def opened(url: URL, root: Path, *, read_only: bool = False) -> AsyncIterator[Journal]:
    """An open journal that is closed at the end."""
    journal = await Journal.open(url, root=root, read_only=read_only)
    try:
        yield journal
    finally:
        await journal.close()
