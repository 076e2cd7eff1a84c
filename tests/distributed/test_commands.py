"""Distributed runs by the real command line: given over, left, followed, refused; and the worker's own ends."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from orchestrator.actions.execution import Execution
from orchestrator.engine.queues import SCHEMA
from tests.projects import Project, held, until
from tests.servers import execute, fetch
from tests.workers import GATE, sampled, start_worker, steered_project, tenants, workers
from tests.workspace import Workspace

DBOS = ("--executor", "dbos")
#: A test run in the background of a shell has SIGINT ignored, and commands would inherit that.
SIGNALLED = ("env", "--default-signal=INT")
TEN = [f"t{number}" for number in range(10)]


@pytest.fixture
def url(begun_database: str) -> str:
    """Where all of it is; runs have been carried out there before."""
    return begun_database


@pytest.fixture
def project(tmp_path: Path, url: str) -> Project:
    """Ten tenants, and nobody at work."""
    return ten_tenants(tmp_path, url)


def ten_tenants(path: Path, url: str) -> Project:
    """A project in the directory ``path``, all of it in one database."""
    made = steered_project(path, url)
    tenants(made, url, *TEN)
    return made


@pytest.fixture
def command(project: Project) -> Workspace:
    """The command line in the project's directory."""
    return Workspace(project.path)


def gated(url: str, *names: str) -> None:
    """Have these tenants wait."""
    execute(url, f"INSERT INTO public.gated VALUES {', '.join(f'({name!r})' for name in names)}")


async def arrived(gate: asyncpg.Connection, count: int = 1) -> None:
    """Wait until so many tenants are at the gate: two commands have to start before that."""
    waiting = (
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = 42 "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    await until(lambda: gate.fetchval(waiting), lambda there: there >= count)


def upgrade(command: Workspace, *options: str) -> subprocess.Popen[str]:
    """Begin, and go on."""
    return subprocess.Popen(
        [
            "env",
            "--default-signal=INT",
            sys.executable,
            "-m",
            "orchestrator",
            "upgrade",
            "--provision",
            *DBOS,
            *options,
        ],
        cwd=command.path,
        env=command.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_left_and_followed(tmp_path: Path, database: str) -> None:
    """--detach leaves at once and says how to come back; runs show --follow ends as the run does; nobody need wait.

    So from the first command on, in a database in which nothing has been made.
    """
    project, command = ten_tenants(tmp_path, database), Workspace(tmp_path)
    left = command.run("upgrade", "--provision", *DBOS, "--detach")
    assert left.returncode == 0, left.stderr
    run = left.stdout.split()[1]
    assert left.stdout == f"run {run} is with the workers; look on with: orchestrator runs show {run} --follow\n"
    assert "no worker is there yet" in left.stderr
    assert command.json("runs", "show", run)["status"] == "running"
    refused = command.run("resume", run)
    assert refused.returncode == 2
    assert f"run {run} is still going: workers have it" in refused.stderr

    with workers(project, 1):
        document = command.json("runs", "show", run, "--follow")
        assert (document["run"], document["status"], document["summary"]) == (run, "succeeded", {"succeeded": 10})
        again = command.json("upgrade", *DBOS)
        assert again["summary"] == {"already_current": 10}
        # One that has ended is shown as it is.
        assert command.json("runs", "show", run, "--follow") == command.json("runs", "show", run) == document


def test_looked_on_at(project: Project, command: Workspace, url: str) -> None:
    """A line for each tenant, the same document and exit code as here; a failure is told as a local one is."""
    execute(url, "INSERT INTO public.broken VALUES ('t3')")
    with workers(project, 1):
        document = command.json("upgrade", "--provision", "--max-failures", "100%", *DBOS, exit_code=1)
        assert document["summary"] == {"succeeded": 9, "failed": 1}
        (cause,) = document["causes"]
        assert (cause["count"], cause["example"]) == (1, "t3")
        assert "broken" in cause["message"]
        execute(url, "DELETE FROM public.broken")
        told = command.run("resume", *DBOS)
    assert told.returncode == 0
    assert [line.split()[:2] for line in told.stderr.splitlines() if "succeeded" in line] == [["t3", "succeeded"]]


async def test_who_looks_on_may_leave(project: Project, command: Workspace, url: str) -> None:
    """SIGINT ends the looking on and not the run; pausing it is another command."""
    gated(url, *TEN)
    with workers(project, 1):
        async with held(url, GATE) as gate:
            process = upgrade(command)
            await arrived(gate)
            process.send_signal(signal.SIGINT)
            out, err = await asyncio.to_thread(process.communicate, timeout=60)
            assert process.returncode == 130, err
            assert "the run goes on without you" in err
            assert "is with the workers; look on with" in out
            assert command.json("runs", "show", "last")["status"] == "running"
        assert command.json("runs", "show", "last", "--follow")["status"] == "succeeded"


async def test_a_worker_is_told_to_end(project: Project, command: Workspace, url: str) -> None:
    """SIGTERM: what it is at is finished, the rest of its chunk is another's, and so is the run that it had."""
    gated(url, *TEN)
    first = start_worker(project)
    try:
        async with held(url, GATE) as gate:
            process = upgrade(command, "--json")
            await arrived(gate, 4)
            first.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(first.hear, "no new tenant starts")
            with workers(project, 1) as crew:
                await gate.execute(f"SELECT pg_advisory_unlock({GATE})")
                assert await asyncio.to_thread(first.ended) == 143
                out, err = await asyncio.to_thread(process.communicate, timeout=120)
                assert crew[0].has_said("carried on, whose worker is gone")
    finally:
        if first.process.poll() is None:
            first.kill()
    document = json.loads(out)
    assert document["summary"] == {"succeeded": 10}, err
    assert {tenant["attempts"] for tenant in document["tenants"]} == {1}
    assert len(fetch(url, "SELECT FROM public.seen")) == 10


def test_before_anybody_has_begun(project: Project, command: Workspace) -> None:
    """A run that no worker has begun is paused and cancelled at once, and a paused one can be given out again."""
    command.run("upgrade", "--provision", *DBOS, "--detach")
    assert command.run("runs", "pause", "last").returncode == 0
    paused = command.json("runs", "show", "last")
    assert (paused["status"], paused["summary"]) == ("paused", {"not_started": 10})
    told = command.run("runs", "show", "last").stdout.splitlines()[-1]
    assert told == f"go on with: orchestrator resume {paused['run']} --executor dbos"
    # As it is pasted, it is the workers' again.
    assert command.run(*told.partition("orchestrator ")[2].split(), "--provision", "--detach").returncode == 0
    follow = command.run("runs", "show", "last").stdout
    assert follow.endswith(f"look on with: orchestrator runs show {paused['run']} --follow\n")
    with workers(project, 1):
        assert command.json("runs", "show", "last", "--follow")["run"] == paused["run"]
    command.run("downgrade", "base", "--all", "--yes", "--allow-data-loss", *DBOS, "--detach")
    assert command.run("runs", "cancel", "last").returncode == 0
    assert command.json("runs", "show", "last")["status"] == "cancelled"
    anew = "begin a new one: orchestrator downgrade base --all --executor dbos"
    assert command.run("runs", "show", "last").stdout.endswith(f"{anew}\n")
    assert anew in command.run("resume").stderr


def test_nobody_has_it_any_more(project: Project, command: Workspace, url: str) -> None:
    """Whoever looks on at a run that the engine has lost ends with 1, not with 0, and says how to go on."""
    process = upgrade(command)
    assert process.stderr is not None
    while "no worker is there yet" not in process.stderr.readline():
        assert process.poll() is None
    run = command.json("runs", "show", "last")["run"]
    execute(url, f"DELETE FROM {SCHEMA}.workflow_status WHERE workflow_uuid = '{run}'")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out.strip()) == (
        1,
        f"run {run} is no longer with the workers, and has no end;"
        f" go on with: orchestrator resume {run} --executor dbos",
    ), err


def test_another_directory_takes_nothing(project: Project, command: Workspace, tmp_path: Path) -> None:
    """A worker with other revisions leaves the run alone, and says so; one with the same takes it."""
    other = tmp_path / "other"
    shutil.copytree(project.path, other, ignore=shutil.ignore_patterns("other", ".orchestrator"))
    text = (other / "alembic" / "versions" / "r2.py").read_text()
    more = text.replace('revision = "r2"', 'revision = "r3"').replace("down_revision = 'r1'", "down_revision = 'r2'")
    (other / "alembic" / "versions" / "r3.py").write_text(more)
    with workers(Project(other), 1) as (stranger,):
        left = command.run("upgrade", "--provision", *DBOS, "--detach")
        assert "1 with another directory or version take no part" in left.stderr
        run = left.stdout.split()[1]
        assert stranger.hear(f"run {run} waits for workers with directory and version").endswith("it is not taken\n")
        with workers(project, 1):
            document = command.json("runs", "show", run, "--follow")
        assert document["summary"] == {"succeeded": 10}
        assert {tuple(tenant["to"]) for tenant in document["tenants"]} == {("r2",)}
        assert not stranger.has_said("begun")


def test_directory_changed_under_a_worker(project: Project, command: Workspace, url: str) -> None:
    """Files put there while it is at a run of others: it applies none, and ends; one with the right ones goes on."""
    file = project.path / "alembic" / "versions" / "r2.py"
    before = file.read_text()
    edit = {"command": f"test -e done || echo '# edited' >> {file}; touch done"}
    tenants(project, url, *TEN, hooks={"before_run": [edit]})
    with workers(project, 1) as (worker,):
        run = command.run("upgrade", "--provision", *DBOS, "--detach").stdout.split()[1]
        worker.hear("the shared directory here is")
        assert worker.ended() == 2
    assert fetch(url, "SELECT FROM public.seen") == []
    file.write_text(before)
    with workers(project, 1):
        assert command.json("runs", "show", run, "--follow")["summary"] == {"succeeded": 10}


def test_another_fleet(project: Project, command: Workspace, url: str, tmp_path: Path) -> None:
    """A worker without one of the tenants does not have the run; where it has lost one since, that one fails."""
    other = tmp_path / "other.yaml"
    whole = (project.path / "tenants.yaml").read_text()
    tenants(project, url, *TEN[1:])
    (project.path / "tenants.yaml").rename(other)
    (project.path / "tenants.yaml").write_text(whole)
    worker = start_worker(project, "--config", str(other))
    try:
        refused = command.run("upgrade", "--provision", *DBOS)
        assert refused.returncode == 2
        assert "has no tenant t0 in its tenants.yaml" in refused.stderr
        assert command.json("runs", "show", "last")["summary"] == {"not_started": 10}
    finally:
        worker.kill()

    loses = {"command": f"cp {other} tenants.yaml"}
    tenants(project, url, *TEN, hooks={"before_run": [loses]})
    with workers(project, 1):
        document = command.json("upgrade", "--provision", "--max-failures", "100%", *DBOS, exit_code=1)
    states = {tenant["tenant"]: (tenant["status"], tenant["error"]) for tenant in document["tenants"]}
    status, error = states.pop("t0")
    assert (status, error["type"]) == ("failed", "not_here")
    assert {status for status, _ in states.values()} == {"succeeded"}


async def test_another_budget(tmp_path: Path, database: str, begun_database: str) -> None:
    """max_concurrency is edited between runs of the same workers: each run has as many tenants at once as it says."""
    journal, url = begun_database, database
    project = steered_project(tmp_path, url)
    most = {}
    tenants(project, url, journal=journal)
    with workers(project, 2):
        for cap in (1, 4, 2):
            names = [f"cap{cap}_{number:02}" for number in range(24)]
            execute(url, f"INSERT INTO public.slow VALUES {', '.join(f'({name!r})' for name in names)}")
            tenants(project, url, *names, servers={"main": {"url": url, "max_concurrency": cap}}, journal=journal)
            async with sampled(journal) as seen:
                result = await project.upgrade(execution=Execution(executor="dbos"))
            assert result.summary == {"succeeded": 24}
            most[cap] = seen[urlsplit(url).path[1:]]
    assert most == {1: 1, 4: 4, 2: 2}


def test_secrets_stay_at_home(tmp_path: Path, database: str) -> None:
    """Neither the servers' passwords nor a webhook's address are in the engine's tables, whatever became of the run."""
    secret, hook, unread = "s3cr3t-passw0rd", "t0ken-of-the-hook", "s0mebody-elses"
    project = steered_project(tmp_path, database)
    url = database.replace("postgres@", f"postgres:{secret}@")
    servers = {"main": {"url": url, "max_concurrency": 2}}
    hooks = {"after_tenant": [{"webhook": f"http://127.0.0.1:9/{hook}"}]}
    tenants(project, url, *TEN[:3], servers=servers, hooks=hooks)
    execute(database, "INSERT INTO public.broken VALUES ('t1')")
    with workers(project, 1):
        document = Workspace(project.path).json("upgrade", "--provision", *DBOS, exit_code=1)
        hooks["before_run"] = [{"command": f"echo postgresql://app:{unread}@db.internal/app is away; exit 1"}]
        tenants(project, url, *TEN[:3], servers=servers, hooks=hooks)
        refused = Workspace(project.path).run("upgrade", *DBOS)
    assert document["summary"]["failed"] == 1
    assert (refused.returncode, "postgresql://app:***@db.internal/app is away" in refused.stderr) == (2, True)
    names = fetch(
        database, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'orchestrator_engine'"
    )
    text = "".join(
        str([tuple(row) for row in fetch(database, f'SELECT * FROM orchestrator_engine."{name}"')]) for (name,) in names
    )
    assert document["run"] in text
    assert secret not in text
    assert hook not in text
    assert unread not in text
    assert "app:***@db.internal/app is away" in text


@pytest.fixture
def no_dbos() -> list[str]:
    """A Python in which DBOS is not installed, running the command line."""
    code = "import sys; sys.modules['dbos'] = None; from orchestrator.cli import main; main()"
    return ["-c", code]


def test_refused(project: Project, command: Workspace, url: str, no_dbos: list[str]) -> None:
    """What cannot be: each says what to do, and touches nothing."""

    def refusal(*args: str, python: list[str] | None = None) -> str:
        result = command.python(*(python or ["-m", "orchestrator"]), *args)
        assert (result.returncode, result.stdout) == (2, ""), result.stderr
        assert "Traceback" not in result.stderr
        return result.stderr

    assert "pip install 'alembic-orchestrator[distributed]'" in refusal("upgrade", "--provision", *DBOS, python=no_dbos)
    assert "DBOS, which is not installed" in refusal("worker", python=no_dbos)
    assert "--executor dbos --detach" in refusal("upgrade", "--detach")
    with workers(project, 1):
        assert "orchestrator worker --slots 2" in refusal("worker", "--slots", "1")

    tenants(project, "sqlite:///journal.db", "t0", servers={"main": {"url": url}})
    for args in (("worker",), ("upgrade", "--provision", *DBOS)):
        told = refusal(*args)
        assert "distributed runs need the journal in a PostgreSQL database" in told
        assert "one process only" in told
    files = {"url": "sqlite:///files", "max_concurrency": 4}
    tenants(project, url, {"id": "f", "isolation": "file"}, servers={"main": files})
    assert "tenant f is in a SQLite file" in refusal("upgrade", "--provision", *DBOS)
    assert fetch(url, "SELECT FROM pg_namespace WHERE nspname = 't0'") == []
    assert not (project.path / "files" / "f").exists()


def test_local_runs_know_nothing_of_it(project: Project, command: Workspace) -> None:
    """Neither DBOS nor its driver is imported where this process attempts the tenants itself."""
    result = command.python("-X", "importtime", "-m", "orchestrator", "upgrade", "--provision")
    assert result.returncode == 0, result.stderr
    modules = {line.rpartition("|")[2].strip().partition(".")[0] for line in result.stderr.splitlines()}
    assert not modules & {"dbos", "psycopg", "croniter"}
    assert "asyncpg" in modules


async def test_asked_while_waiting(project: Project, command: Workspace, url: str) -> None:
    """What runs pause says ends a run of workers, too: exit code 1 for whoever looks on, and resume goes on here."""
    gated(url, "t0")
    with workers(project, 1) as (worker,):
        async with held(url, GATE) as gate:
            process = upgrade(command, "--json", "--jobs", "1")
            await arrived(gate)
            assert (await asyncio.to_thread(command.run, "runs", "pause", "last")).returncode == 0
            await asyncio.to_thread(worker.hear, "is about to end: no new tenant starts")
            await gate.execute(f"SELECT pg_advisory_unlock({GATE})")
            out, _ = await asyncio.to_thread(process.communicate, timeout=60)
    document: dict[str, Any] = json.loads(out)
    assert (process.returncode, document["status"]) == (1, "paused")
    assert document["summary"] == {"succeeded": 1, "not_started": 9}
    # The workers are gone: whoever resumes may do it alone.
    assert command.json("resume", "--provision")["summary"] == {"succeeded": 10}
    shown = command.json("runs", "list")["runs"][0]
    assert shown["status"] == "succeeded"


def test_onboarding(project: Project, command: Workspace, url: str) -> None:
    """Newcomers of a list are made, migrated and registered by workers, where all can write the register."""
    execute(url, "CREATE TABLE public.customers (slug text PRIMARY KEY)")
    register = "INSERT INTO public.customers VALUES (:id) ON CONFLICT DO NOTHING"
    source = {"sql": "SELECT slug AS id FROM public.customers", "server": "main", "register": register}
    (project.path / "new.csv").write_text("id\n" + "\n".join(f"n{number:02}" for number in range(12)) + "\n")
    with workers(project, 1):
        refused = command.run("onboard", "--from", "new.csv", *DBOS)
        assert refused.returncode == 2
        assert "would be written into tenants.yaml" in refused.stderr
        assert "give the workers the new file" in refused.stderr
        assert fetch(url, "SELECT FROM pg_namespace WHERE nspname ~ '^n[0-9]'") == []
        tenants(project, url, sources=[source])
        document = command.json("onboard", "--from", "new.csv", *DBOS)
        again = command.json("onboard", "--from", "new.csv", *DBOS)
    assert document["summary"] == {"succeeded": 12}, document["causes"]
    assert {tuple(tenant["to"]) for tenant in document["tenants"]} == {("r2",)}
    assert again["summary"] == {"already_current": 12}
    assert len(fetch(url, "SELECT FROM public.customers")) == 12
    assert command.json("status")["summary"] == {"current": 12}
