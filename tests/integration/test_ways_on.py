"""What a run says to go on with leads on: typed as it stands, it does what is left, and nothing twice."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path

import pytest

from orchestrator.actions.stopping import cancel
from tests.command_line import FIRST, SECOND, THIRD, Project, statuses, tenant_of
from tests.projects import held, make_project, schemas, waiting_backend
from tests.rollbacks import GATE, LINE, gate
from tests.servers import fetch
from tests.workspace import Workspace

LOSE = ("--yes", "--allow-data-loss")


def last_line(project: Project | Workspace, *args: str) -> str:
    """What a command says last."""
    return project.run(*args).stdout.splitlines()[-1]


async def test_restore_of_some(project: Project) -> None:
    """After a restore of two of which one failed, only that one is named: the other one has rows since."""
    project.fleet("acme", "beta")
    project.json("upgrade")
    run = project.json("backup", "--to", "backups")["run"]
    async with held(project.url, GATE) as reader:
        # Its schema cannot get another name as long as its rights are being changed.
        await reader.execute("BEGIN; GRANT USAGE ON SCHEMA beta TO pg_monitor")
        both = ("restore", run, "-t", "*", "--keep", *LOSE, "--lock-timeout", "100ms")
        said = await asyncio.to_thread(last_line, project, *both)
        await reader.execute("ROLLBACK")
    assert said == f"go on with: orchestrator restore {run} -t beta --keep"
    project.execute("INSERT INTO acme.notes (body) VALUES ('since')")

    assert f"hint: {said.partition('with: ')[2]}\n" in project.run("resume", "last").stderr
    (cause,) = project.json("runs", "show", "last")["causes"]
    assert cause["retry"] == said.partition("with: ")[2]
    assert statuses(project.json(*said.split()[4:], *LOSE)) == {"beta": "succeeded"}
    assert fetch(project.url, "SELECT body FROM acme.notes") == [("since",)]


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (("upgrade", THIRD, "-t", "acme"), f"upgrade {THIRD} -t acme"),
        (("downgrade", FIRST, "-t", "acme", *LOSE), f"downgrade {FIRST} -t acme"),
        (("downgrade", FIRST, "--all", *LOSE), f"downgrade {FIRST} --all"),
        # Counted again, it would go further.
        (("downgrade", "-1", "--all", *LOSE), f"downgrade {FIRST} --all"),
        (("rollback", "last", *LOSE), "rollback {up}"),
        (("rollback", "last", "-t", "a*", "--to-before", *LOSE), "rollback {up} -t 'a*' --to-before"),
        (("downgrade", FIRST, "--all", "--wave", "all", *LOSE), f"downgrade {FIRST} -t TENANT"),
    ],
    ids=["upgrade", "downgrade", "all", "relative", "rollback", "of some", "of a wave"],
)
def test_cancelled(project: Project, asked: tuple[str, ...], named: str) -> None:
    """Instead of a run that was cancelled, its own command is to be typed, for those whom it meant."""
    project.fleet("acme")
    up = project.json("upgrade", SECOND)["run"]
    project.execute("CREATE VIEW acme.mine AS SELECT body FROM acme.notes; CREATE TABLE acme.extras ()")
    failed = project.run(*asked)
    assert failed.returncode == 1, failed.stderr
    assert project.run("runs", "cancel", "last").returncode == 0

    way = f"begin a new one: orchestrator {named.format(up=up)}"
    assert last_line(project, "runs", "show", "last") == way
    assert f"hint: {way}\n" in project.run("resume").stderr

    project.execute("DROP VIEW acme.mine; DROP TABLE acme.extras")
    again = [*shlex.split(way.replace("TENANT", "acme"))[5:], *(() if asked[0] == "upgrade" else LOSE)]
    assert statuses(project.json(*again)) == {"acme": "succeeded"}


async def test_while_it_goes_on(tmp_path: Path, database: str) -> None:
    """A run that somebody is at is not to be resumed, nor before it has heeded that it is to end."""
    project = make_project(tmp_path, LINE, schemas(database, "a"))
    gate(project, "r3")
    shell = Workspace(project.path)
    async with held(database, GATE) as key:
        running = asyncio.create_task(project.upgrade())
        await waiting_backend(key)
        shown = [await asyncio.to_thread(shell.run, "runs", "show", "last")]
        await cancel(project.fleet, "last")
        shown.append(await asyncio.to_thread(shell.run, "runs", "show", "last"))
    await running
    for each in shown:
        assert each.returncode == 0
        assert "orchestrator" not in each.stdout
    assert "running" in shown[0].stdout


def test_stamp_of_what_is_missing(project: Project) -> None:
    """A stamp makes nothing, also when it is resumed: the hint names what makes the tenant at that revision."""
    project.fleet("acme", schemas=False)
    stamped = project.json("stamp", SECOND, "-t", "acme", exit_code=1)
    (cause,) = stamped["causes"]
    assert cause["retry"] == f"orchestrator resume {stamped['run']}"
    _, _, make = tenant_of(stamped, "acme")["error"]["hint"].partition("revision: orchestrator ")

    assert statuses(project.json(*shlex.split(make))) == {"acme": "succeeded"}
    assert project.heads("acme") == [SECOND]
    assert project.json("resume", stamped["run"])["status"] == "succeeded"
