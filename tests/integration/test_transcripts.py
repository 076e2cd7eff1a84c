"""Recordings that outlast their run, and the look at replayed tenants' tables: what is believed, and what is not."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from orchestrator.actions.execution import Execution
from tests.projects import ACCOUNTS, ENV, PROJECTS, Project, make_project, one, schemas, statuses
from tests.replays import paths
from tests.servers import execute

FIRST, THEN = ("a", "b", "c"), ("d", "e", "f")


def recordings(project: Project) -> list[Path]:
    """The files that runs have left."""
    return list((project.path / ".orchestrator" / "transcripts").iterdir())


def told(project: Project, run: str) -> list[dict[str, str]]:
    """Why revisions were not replayed for anybody, as the journal has it."""
    with closing(sqlite3.connect(project.path / ".orchestrator" / "journal.db")) as journal:
        rows = journal.execute(
            "SELECT detail FROM orchestrator_events WHERE kind = 'not_replayed' AND tenant IS NULL AND run = ?", [run]
        )
        return [json.loads(detail)["reason"] for (detail,) in rows]


async def after_a_run(path: Path, url: str, ids: Iterable[str] = THEN, env: str = ENV) -> Project:
    """A project whose first tenants were migrated, and whose others are not."""
    project = make_project(path, {"r1": ACCOUNTS, "r2": PROJECTS}, schemas(url, *FIRST), env)
    assert list(paths(await project.upgrade()).values()) == ["alembic", "alembic", "replay"]
    (path / "tenants.yaml").write_text(schemas(url, *FIRST, *ids))
    return project


async def new_paths(project: Project, **options: Any) -> list[str | None]:
    """The ways that those go who are still to be migrated."""
    result = await project.upgrade(**options)
    assert result.satisfied
    return [path for tenant, path in paths(result).items() if tenant not in FIRST]


async def test_later_run_records_one_tenant(tmp_path: Path, database: str) -> None:
    """What an earlier run recorded stands for one of the two that have to have been sent the same."""
    project = await after_a_run(tmp_path, database)

    assert await new_paths(project) == ["alembic", "replay", "replay"]


async def test_two_tenants_are_enough_for_a_later_run(tmp_path: Path, database: str) -> None:
    """With a recording at hand the second tenant is replayed already."""
    project = await after_a_run(tmp_path, database, ["d", "e"])

    assert await new_paths(project) == ["alembic", "replay"]


async def test_other_revision_files_have_recordings_of_their_own(tmp_path: Path, database: str) -> None:
    """A revision file that was edited is recorded on two tenants again, and leaves a second recording."""
    project = await after_a_run(tmp_path, database)
    file = tmp_path / "alembic" / "versions" / "r2.py"
    file.write_text(file.read_text().replace('"projects"', '"plans"'))

    accepted = Execution(accept_edited=("r2",))
    assert await new_paths(project, execution=accepted) == ["alembic", "alembic", "replay"]
    assert len(recordings(project)) == 2


@pytest.mark.parametrize(
    "spoil",
    ["", "{", "[]", '{"transactions": [1]}', '{"transactions": [{"step": {}}]}', '{"transactions": [{"step": []}]}'],
)
async def test_spoilt_recording_is_none(tmp_path: Path, database: str, spoil: str) -> None:
    """A file that was cut off or is of another form is the same as none."""
    project = await after_a_run(tmp_path, database)
    recordings(project)[0].write_text(spoil)

    assert await new_paths(project) == ["alembic", "alembic", "replay"]


async def test_recording_that_no_longer_holds(tmp_path: Path, database: str) -> None:
    """What the new run's first tenant was not sent is not sent to the next one: the run proves its own."""
    project = await after_a_run(tmp_path, database)
    file = recordings(project)[0]
    file.write_text(file.read_text().replace("CREATE TABLE projects", "CREATE UNLOGGED TABLE projects"))

    assert await new_paths(project) == ["alembic", "alembic", "replay"]
    assert "UNLOGGED" not in file.read_text()


async def test_reason_that_is_gone(tmp_path: Path, database: str) -> None:
    """Replay is off while env.py runs SQL of its own, plan says why, and it is on again when env.py does not."""
    own = ENV.replace("    context.configure(", "    connection.exec_driver_sql('SELECT 1')\n    context.configure(")
    project = make_project(tmp_path, {"r1": ACCOUNTS}, schemas(database, *FIRST), own)
    result = await project.upgrade()
    assert set(paths(result).values()) == {"alembic"}
    (tmp_path / "tenants.yaml").write_text(schemas(database, *FIRST, *THEN))

    planned = (await orchestrator.plan(project.fleet, provision=True)).as_json()
    (tmp_path / "alembic" / "env.py").write_text(ENV)

    assert told(project, result.run.id) == [{"r1": "env.py runs SQL of its own: SELECT 1"}]
    assert planned["cohorts"][0]["not_replayable"] == {"r1": "env.py runs SQL of its own: SELECT 1"}
    assert await new_paths(project) == ["alembic", "alembic", "replay"]


def odd(tenant: str) -> str:
    """SQL after which the server adds a column of its own to what is made for one tenant."""
    return f"""
        CREATE FUNCTION public.meddle() RETURNS event_trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF current_schema() = '{tenant}' AND to_regclass('accounts') IS NOT NULL THEN
                ALTER TABLE accounts ADD COLUMN IF NOT EXISTS odd int;
            END IF;
        END $$;
        CREATE EVENT TRIGGER meddle ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION public.meddle();
    """


async def test_replayed_tenant_that_looks_different(tmp_path: Path, database: str) -> None:
    """The first replayed tenant is compared; it differs, is failed, stays so on resume, and nobody else is replayed."""
    project = make_project(tmp_path, {"r1": ACCOUNTS}, schemas(database, *FIRST, *THEN))
    execute(database, odd("c") + "".join(f"CREATE SCHEMA {schema};" for schema in (*FIRST, *THEN)))

    result = await project.upgrade(execution=Execution(jobs=1, continue_on_error=True))

    assert statuses(result) == {**dict.fromkeys((*FIRST, *THEN), "succeeded"), "c": "failed"}
    assert one(result, "c")["error"]["type"] == "shape"
    assert {tenant for tenant, path in paths(result).items() if path == "replay"} == {"c"}
    assert (await orchestrator.resume(project.fleet)).summary == {"succeeded": 5, "failed": 1}


@pytest.mark.parametrize(("everyone", "status"), [(False, "succeeded"), (True, "failed")])
async def test_everyone_is_compared_when_asked(tmp_path: Path, database: str, everyone: bool, status: str) -> None:
    """The second replayed tenant is looked at only with verify_all."""
    project = make_project(tmp_path, {"r1": ACCOUNTS}, schemas(database, *FIRST, *THEN))
    execute(database, odd("d") + "".join(f"CREATE SCHEMA {schema};" for schema in (*FIRST, *THEN)))

    result = await project.upgrade(execution=Execution(jobs=1, continue_on_error=True, verify_all=everyone))

    assert one(result, "d")["status"] == status


async def test_tenant_with_an_index_of_its_own_is_no_odd_one(tmp_path: Path, database: str) -> None:
    """A tenant that was of another shape before is not judged by what the others became."""
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": PROJECTS}, schemas(database, *FIRST))
    await project.upgrade("r1")
    execute(database, "ALTER TABLE c.accounts ADD COLUMN own int")

    result = await project.upgrade(execution=Execution(verify_all=True))

    assert (result.satisfied, paths(result)["c"]) == (True, "replay")


@pytest.mark.parametrize(
    "body",
    [
        f"{ACCOUNTS}\nop.get_bind()",
        f'{ACCOUNTS}\nop.execute("DO $$ BEGIN NULL; END $$")',
    ],
)
async def test_tenants_that_may_differ_are_not_compared(tmp_path: Path, database: str, body: str) -> None:
    """Where Alembic or code in the database has a part in it, another shape is no fault."""
    project = make_project(tmp_path, {"r1": body, "r2": PROJECTS}, schemas(database, *FIRST))
    execute(database, odd("c") + "".join(f"CREATE SCHEMA {schema};" for schema in FIRST))

    result = await project.upgrade(execution=Execution(verify_all=True))

    assert (result.satisfied, paths(result)["c"]) == (True, "mixed" if "get_bind" in body else "replay")
