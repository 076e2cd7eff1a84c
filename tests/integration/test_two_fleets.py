"""Two fleets in one directory, with one journal and tenants of the same names: a run stays with its own fleet."""

from __future__ import annotations

import json
import shlex
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import orchestrator
from orchestrator.actions.execution import Execution
from tests.command_line import FIRST, THIRD, Project, assert_error
from tests.projects import files, make_project, one, schemas
from tests.projects import statuses as statuses_of
from tests.rollbacks import LINE, heads
from tests.servers import execute, fetch
from tests.workspace import Workspace

STAGING = ("--config", "staging.yaml")
LOSE = ("--yes", "--allow-data-loss")
TENANTS = ("acme", "beta")


@pytest.fixture
def staging(workspace: Workspace, make_database: Callable[..., str]) -> str:
    """Address of staging's database."""
    return make_database()


@pytest.fixture
def fleets(project: Project, staging: str, workspace: Workspace) -> Project:
    """tenants.yaml is production's, staging.yaml is staging's; both are migrated."""
    project.fleet(*TENANTS, more="name: shop-prod\n")
    text = (workspace.path / "tenants.yaml").read_text()
    workspace.write("staging.yaml", text.replace(project.url, staging).replace("shop-prod", "shop-staging"))
    execute(staging, "".join(f"CREATE SCHEMA {name};" for name in TENANTS))
    for config in ((), STAGING):
        assert project.json("upgrade", *config)["status"] == "succeeded"
    return project


def unnamed(project: Project) -> None:
    """Take the fleets' names away."""
    for name in ("tenants.yaml", "staging.yaml"):
        file = project.workspace.path / name
        file.write_text("".join(line for line in file.read_text().splitlines(True) if not line.startswith("name:")))


def failed_downgrade(project: Project, staging: str) -> subprocess.CompletedProcess[str]:
    """Staging's, which fails on beta."""
    execute(staging, "CREATE VIEW beta.mine AS SELECT body FROM beta.notes")
    result = project.run("downgrade", FIRST, "--all", *STAGING, *LOSE, "--continue-on-error")
    assert result.returncode == 1, result.stderr
    return result


def way_on(result: subprocess.CompletedProcess[str]) -> list[str]:
    """The command that it says to go on with, as a shell would take it."""
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("go on with: orchestrator ")]
    return shlex.split(line.removeprefix("go on with: orchestrator "))


def standing(url: str) -> dict[str, list[str]]:
    """Each tenant's heads."""
    return {name: sorted(row[0] for row in fetch(url, f"SELECT * FROM {name}.alembic_version")) for name in TENANTS}


def test_command_to_go_on_with(fleets: Project, staging: str) -> None:
    """What a run says to go on with has the fleet's file in it, and goes on with that fleet; the JSON says it, too."""
    result = failed_downgrade(fleets, staging)
    again = way_on(result)
    assert again[:3] == ["--config", "staging.yaml", "resume"]
    shown = fleets.json("runs", "show", "last", *STAGING)
    assert [cause["retry"] for cause in shown["causes"]] == [shlex.join(["orchestrator", *again])]
    assert "retry" not in json.dumps(fleets.json("runs", "list", *STAGING))

    execute(staging, "DROP VIEW beta.mine")
    assert fleets.run(*again).returncode == 0
    assert standing(staging) == {"acme": [FIRST], "beta": [FIRST]}
    assert standing(fleets.url) == {"acme": [THIRD], "beta": [THIRD]}


def test_hints_of_errors(fleets: Project) -> None:
    """So do the hints of errors, whichever command is in them, and a file's name is quoted for the shell."""
    text = fleets.workspace.path / "staging.yaml"
    (fleets.workspace.path / "my staging.yaml").write_text(text.read_text())
    for config in ("staging.yaml", "my staging.yaml"):
        refused = fleets.run("resume", "--config", config, "nothing")
        assert_error(refused, f"`orchestrator --config {shlex.quote(config)} runs list` shows them all")
    assert_error(fleets.run("resume", "nothing"), "`orchestrator runs list` shows them all")


def test_resumed_by_another_name(fleets: Project, staging: str) -> None:
    """The run of a fleet that is called otherwise is refused, and nothing is touched or written down."""
    run = way_on(failed_downgrade(fleets, staging))[-1]
    before = fleets.json("runs", "show", run)

    assert_error(fleets.run("resume", run), f"run {run} (downgrade) is of fleet shop-staging", "--config")
    assert_error(fleets.run("resume"), "fleet shop-staging", f"orchestrator downgrade {FIRST} --all")

    assert standing(fleets.url) == {"acme": [THIRD], "beta": [THIRD]}
    assert fleets.json("runs", "show", run) == before


@pytest.mark.parametrize("old", [False, True], ids=["without names", "from before names were written down"])
def test_resumed_with_other_places(fleets: Project, staging: str, old: bool) -> None:
    """Where names tell nothing, places do: a run that met none of its tenants where they are now is refused."""
    if not old:
        unnamed(fleets)
    run = way_on(failed_downgrade(fleets, staging))[-1]
    if old:
        with closing(sqlite3.connect(fleets.journal)) as journal, journal:
            journal.execute("UPDATE orchestrator_runs SET options = json_remove(options, '$.fleet')")
    before = fleets.json("runs", "show", run)

    refused = fleets.run("resume", run)

    assert_error(refused, "met none of its tenants where they are now", "the run met it at", "--config")
    assert f"begin a new one: orchestrator downgrade {FIRST} --all" in refused.stderr
    assert standing(fleets.url) == {"acme": [THIRD], "beta": [THIRD]}
    assert fleets.json("runs", "show", run) == before


def test_rolled_back_by_another_name(fleets: Project) -> None:
    """`rollback`, dry or not, does not take the run of a fleet that is called otherwise."""
    run = fleets.json("upgrade", *STAGING)["run"]
    for flags in (LOSE, ("--dry-run",)):
        assert_error(fleets.run("rollback", run, *flags), f"run {run} (upgrade) is of fleet shop-staging")
    assert standing(fleets.url) == {"acme": [THIRD], "beta": [THIRD]}


@pytest.mark.parametrize("named", [True, False])
def test_restored_from_another_fleet(fleets: Project, staging: str, named: bool) -> None:
    """A run's backups go back to the tenants that they are of; a file that is named goes where it is said."""
    if not named:
        unnamed(fleets)
    execute(staging, "INSERT INTO acme.notes (body) VALUES ('staging')")
    execute(fleets.url, "INSERT INTO acme.notes (body) VALUES ('production')")
    (backup,) = fleets.json("backup", "-t", "acme", "--to", "backups", *STAGING)["backups"]

    for source in ("last", fleets.json("runs", "list", "--limit", "1")["runs"][0]["run"]):
        refused = fleets.run("restore", source, "-t", "acme", *LOSE)
        assert refused.returncode == (2 if named else 1), refused.stderr
        told = refused.stderr + refused.stdout
        assert ("is of fleet shop-staging" in told) == named, told
        assert named or f"orchestrator restore {backup['file']} -t acme" in told, told
        assert fetch(fleets.url, "SELECT body FROM acme.notes") == [("production",)]

    assert fleets.run("restore", backup["file"], "-t", "acme", *LOSE).returncode == 0
    assert fetch(fleets.url, "SELECT body FROM acme.notes") == [("staging",)]


async def test_one_tenant_was_moved(tmp_path: Path) -> None:
    """Resumed, a run goes on with the others, and leaves alone who is elsewhere, with a command to go on."""
    project = make_project(tmp_path, {**LINE, "r3": "raise ValueError()"}, files(tmp_path / "old", "a", "b"))
    failed = await project.upgrade(execution=Execution(continue_on_error=True))
    assert statuses_of(failed) == {"a": "failed", "b": "failed"}
    up, file = failed.run.id, tmp_path / "alembic" / "versions" / "r3.py"
    file.write_text(file.read_text().replace("raise ValueError()", "pass"))
    fleet = json.loads((tmp_path / "tenants.yaml").read_text())
    fleet["servers"]["new"] = {"url": f"sqlite:///{tmp_path / 'new'}"}
    fleet["tenants"][0]["server"] = "new"
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a.db").write_bytes((tmp_path / "old" / "a.db").read_bytes())
    text = (tmp_path / "tenants.yaml").read_text()
    (tmp_path / "tenants.yaml").write_text(json.dumps(fleet))

    for _ in range(2):
        done = await orchestrator.resume(project.fleet, up)
        assert statuses_of(done) == {"a": "blocked", "b": "succeeded"}
        error = one(done, "a")["error"]
        assert error["type"] == "elsewhere"
        assert "orchestrator upgrade -t a" in error["hint"]
        assert await heads(project) == {"a": ("r2",), "b": ("r3",)}

    # Put back where it was, it is the run's again.
    (tmp_path / "tenants.yaml").write_text(text)
    assert statuses_of(await orchestrator.resume(project.fleet, up)) == {"a": "succeeded", "b": "succeeded"}


async def test_wrong_address_is_mended(tmp_path: Path, shared_database: str) -> None:
    """A tenant that the run could not read has not been met where it was looked for: mended, the run goes on."""
    project = make_project(tmp_path, LINE, schemas("postgresql://postgres@127.0.0.1:1/nowhere", "a"))
    up = await project.upgrade()
    assert statuses_of(up) == {"a": "failed"}
    (tmp_path / "tenants.yaml").write_text(schemas(shared_database, "a"))
    execute(shared_database, "DROP SCHEMA IF EXISTS a CASCADE")

    assert statuses_of(await orchestrator.resume(project.fleet, up.run.id)) == {"a": "succeeded"}
