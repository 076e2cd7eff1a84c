"""The same verbs from Python: in a running event loop, results as objects that print the documents of --json."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import orchestrator
from orchestrator.fleet.fleet import Fleet
from tests.command_line import FIRST, SECOND, THIRD, Project, statuses
from tests.projects import held, waiting_backend


def shape(value: Any) -> Any:
    """A document without its values: keys and types."""
    if isinstance(value, dict):
        return {key: shape(part) for key, part in value.items()}
    if isinstance(value, list):
        return [shape(part) for part in value[:1]]
    return type(value).__name__


@pytest.fixture
def fleet(project: Project) -> Fleet:
    """Three tenants at no revision."""
    project.fleet("acme", "eu-one", "eu-two")
    return orchestrator.load(project.workspace.path / "tenants.yaml")


async def test_documents(project: Project, fleet: Fleet) -> None:
    """Each verb returns what its command prints: the same document, field by field."""
    upgraded = await orchestrator.upgrade(fleet, tenants=["eu-*"])
    document = upgraded.as_json()
    assert statuses(document) == {"eu-one": "succeeded", "eu-two": "succeeded"}
    assert (upgraded.satisfied, document["target"]) == (True, [THIRD])
    assert project.json("runs", "show", document["run"]) == document
    assert (await orchestrator.show_run(fleet, "last")).as_json() == document
    assert (await orchestrator.status(fleet)).as_json() == project.json("status")
    assert shape(project.json("upgrade", "-t", "acme")) == shape(document)

    down = await orchestrator.downgrade(fleet, SECOND, tenants=["eu-one"])
    assert statuses(down.as_json()) == {"eu-one": "succeeded"}
    stamped = await orchestrator.stamp(fleet, FIRST, tenants=orchestrator.Selection(patterns=("eu-one",)))
    assert project.heads("eu-one") == [FIRST]
    assert (await orchestrator.resume(fleet)).as_json() == stamped.as_json()
    runs = (await orchestrator.list_runs(fleet)).as_json()
    assert runs == project.json("runs", "list")
    assert [run["command"] for run in runs["runs"]] == ["stamp", "downgrade", "upgrade", "upgrade"]


async def test_target_and_execution(project: Project, fleet: Fleet) -> None:
    """target, jobs and the failure budget are said as on the command line; a failure is a result, no exception."""
    project.execute('CREATE TABLE "eu-one".extras (id int)')
    assert (await orchestrator.upgrade(fleet, target=SECOND, tenants=["acme"])).as_json()["target"] == [SECOND]
    assert project.heads("acme") == [SECOND]
    result = await orchestrator.upgrade(fleet, execution=orchestrator.Execution(jobs=1, continue_on_error=True))
    assert statuses(result.as_json()) == {"acme": "succeeded", "eu-one": "failed", "eu-two": "succeeded"}
    assert not result.satisfied
    assert [attempt.tenant for attempt in result.failed] == ["eu-one"]
    assert result.causes[0].example == "eu-one"


async def test_errors(fleet: Fleet) -> None:
    """Bad input is an OrchestratorError with message and hint; downgrade of nobody in particular is refused."""
    with pytest.raises(orchestrator.OrchestratorError, match="no tenant matches 'acne'") as caught:
        await orchestrator.upgrade(fleet, tenants=["acne"])
    assert caught.value.hint == "did you mean 'acme'?"
    with pytest.raises(orchestrator.OrchestratorError, match="which tenants"):
        await orchestrator.downgrade(fleet, "base")


async def test_concurrently(project: Project, fleet: Fleet) -> None:
    """Several calls at once in one loop do not disturb each other, readings beside a migration included."""
    readings = [orchestrator.status(fleet) for _ in range(8)]
    upgraded, *statuses_read = await asyncio.gather(orchestrator.upgrade(fleet), *readings)
    assert upgraded.satisfied
    assert all({each.tenant.id for each in report.tenants} == {"acme", "eu-one", "eu-two"} for report in statuses_read)
    assert [project.heads(name) for name in ("acme", "eu-one", "eu-two")] == [[THIRD]] * 3


async def test_overlapping_runs(project: Project, fleet: Fleet) -> None:
    """Of two runs in one process, the one that began first ends first, and a reading comes between: both succeed."""
    wait = "op.execute('SELECT pg_advisory_xact_lock(length(current_schema()))')"
    project.revision(THIRD, SECOND, f"{wait}; op.create_table('extras', sa.Column('id', sa.Integer))")
    async with held(project.url, len("eu-one")) as gate:
        async with held(project.url, len("acme")):
            first = asyncio.create_task(orchestrator.upgrade(fleet, tenants=["acme"]))
            await waiting_backend(gate)
            second = asyncio.create_task(orchestrator.upgrade(fleet, tenants=["eu-one"]))
            await waiting_backend(gate, 2)
        assert (await first).satisfied
        assert (await orchestrator.status(fleet, tenants=["acme"])).summary == {"current": 1}
    assert (await second).satisfied, (await second).as_json()
    assert [project.heads(name) for name in ("acme", "eu-one", "eu-two")] == [[THIRD], [THIRD], []]


async def test_cancelled(project: Project, fleet: Fleet) -> None:
    """Who cancels a run finds every tenant's end in the journal, and resume does what is left."""
    wait = "op.execute('SELECT pg_advisory_xact_lock(42)')"
    project.revision(THIRD, SECOND, f"{wait}; op.create_table('extras', sa.Column('id', sa.Integer))")
    async with held(project.url, 42) as gate:
        run = asyncio.create_task(orchestrator.upgrade(fleet, execution=orchestrator.Execution(jobs=1)))
        await waiting_backend(gate)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    document = (await orchestrator.show_run(fleet, "last")).as_json()
    assert document["status"] == "interrupted"
    assert statuses(document) == {"acme": "interrupted", "eu-one": "not_started", "eu-two": "not_started"}
    assert (await orchestrator.resume(fleet)).as_json()["summary"] == {"succeeded": 3}


def test_import_is_light(project: Project) -> None:
    """`import orchestrator` waits for neither SQLAlchemy nor Alembic."""
    code = "import sys, orchestrator; print(sorted({'sqlalchemy', 'alembic', 'pydantic', 'click'} & set(sys.modules)))"
    result = project.workspace.python("-c", code)
    assert result.stdout == "[]\n"
