"""A wave that goes back is carried out as what it is, and not as the upgrade that it was a part of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from orchestrator.actions.execution import Execution
from orchestrator.statuses import RunStatus
from tests.projects import Project, statuses, tables
from tests.servers import execute
from tests.workers import STEERED, Worker, steered_project, tenants, workers

WAVE = {"name": "one", "percent": 100, "order": "listed", "on_failure": "rollback"}
_STEER = "".join(f"    {line}\n" for line in STEERED.strip().splitlines())
#: The second revision leaves its transaction before it asks whether the tenant is to fail.
OUTSIDE = f"""
def upgrade():
    with op.get_context().autocommit_block():
        op.execute("CREATE TABLE half (id integer)")
{_STEER}

def downgrade():
    op.execute("DROP TABLE half")
"""
ACCOUNTS = """
def upgrade():
    op.execute("CREATE TABLE accounts (id integer)")

def downgrade():
    op.execute("DROP TABLE accounts")
"""
#: There is no way back from the first one.
ONE_WAY = f"""
def upgrade():
{_STEER}

def downgrade():
    op.execute("SELECT no_way_back()")
"""


@dataclass(frozen=True, slots=True)
class Place:
    """A project, and who attempts its tenants."""

    project: Project
    url: str
    executor: str | None
    crew: list[Worker]

    def how(self, **options: Any) -> Execution:
        """How a run is carried out here."""
        return Execution(executor=self.executor, jobs=1, **options)


@pytest.fixture(params=[None, "dbos"], ids=["local", "dbos"])
def place(tmp_path: Path, database: str, request: pytest.FixtureRequest) -> Iterator[Place]:
    """Of each executor."""
    revisions = getattr(request.function, "revisions", {"r1": ACCOUNTS, "r2": OUTSIDE})
    project = steered_project(tmp_path, database, revisions)
    with ExitStack() as stack:
        crew = [] if request.param is None else stack.enter_context(workers(project, 1))
        yield Place(project, database, request.param, crew)


async def test_half_done_steps_stay_as_they_are(place: Place) -> None:
    """What the upgrade was told to run again is not told to what takes its wave back: it would lose what is half done.

    Somebody looks at it first, and says so to the rollback.
    """
    tenants(place.project, place.url, "a", "b", waves=[WAVE])
    execute(place.url, "INSERT INTO public.broken VALUES ('b')")

    run = await place.project.upgrade(execution=place.how(retry_partial=True))

    assert statuses(run) == {"a": "succeeded", "b": "partial"}
    back = await orchestrator.show_run(place.project.fleet, str(run.waves[0].rolled_back))
    assert (back.run.status, statuses(back)) == (RunStatus.FAILED, {"a": "succeeded", "b": "partial"})
    assert tables(place.url, "b") == {"accounts", "alembic_version", "half"}
    told = await orchestrator.resume(place.project.fleet, back.run.id, execution=place.how(retry_partial=True))
    assert statuses(told) == {"a": "succeeded", "b": "succeeded"}


async def test_one_cause_does_not_end_it(place: Place) -> None:
    """All of it is tried at once, whatever fails for one cause."""
    policy = {"retries": 0, "same_cause": 1}
    tenants(place.project, place.url, "a", "b", "c", "d", waves=[WAVE], policy=policy)
    execute(place.url, "INSERT INTO public.broken VALUES ('d')")

    run = await place.project.upgrade(execution=place.how())

    assert statuses(run) == {**dict.fromkeys("abc", "succeeded"), "d": "failed"}
    back = await orchestrator.show_run(place.project.fleet, str(run.waves[0].rolled_back))
    assert statuses(back) == dict.fromkeys("abc", "failed")
    assert {(each.attempts, (each.error or {}).get("sqlstate")) for each in back.tenants} == {(1, "42883")}
    for worker in place.crew:
        # One for the upgrade; one for the way back, which nobody has given back undone.
        worker.hear(f"run {run.run.id}: failed, 2 chunks")


test_one_cause_does_not_end_it.revisions = {"r1": ONE_WAY}  # type: ignore[attr-defined]
