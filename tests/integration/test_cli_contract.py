"""The documents and exit codes that scripts rely on: every command's ``--json``, on success and on error."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import FIRST, SECOND, THIRD, Project, assert_error, statuses, tenant_of

RUN_FIELDS = {
    "run", "command", "target", "status", "started_at", "finished_at", "actor", "directory_digest", "tenants", "causes",
    "summary",
}  # fmt: skip
TENANT_FIELDS = {"tenant", "status", "from", "to", "wave", "attempts", "duration_ms", "path", "error"}
ERROR_FIELDS = {"type", "sqlstate", "message", "revision", "statement", "hint"}


def assert_run(document: dict[str, Any], command: str, status: str) -> None:
    """The document of a run has every field of the contract, each of its kind."""
    assert document.keys() >= RUN_FIELDS
    assert (document["command"], document["status"]) == (command, status)
    assert datetime.fromisoformat(document["started_at"]).tzinfo is not None
    assert datetime.fromisoformat(document["finished_at"]) >= datetime.fromisoformat(document["started_at"])
    assert document["actor"]
    assert len(document["directory_digest"]) == 64
    for tenant in document["tenants"]:
        assert tenant.keys() >= TENANT_FIELDS
        assert tenant["error"] is None or tenant["error"].keys() >= ERROR_FIELDS
    assert sum(document["summary"].values()) == len(document["tenants"])


def test_reading(project: Project) -> None:
    """status and plan say where each tenant is and what upgrade would do, in the fields of the contract."""
    project.fleet("acme", "{id: eu-one, tags: [eu]}")
    status = project.json("status")
    assert status["target"] == [THIRD]
    assert status["summary"] == {"behind": 2}
    assert status["tenants"][1] == {
        "tenant": "eu-one", "server": "main", "database": project.url.rpartition("/")[2], "schema": "eu-one",
        "tags": ["eu"], "heads": [], "state": "behind", "pending": 3, "noticed": None, "error": None,
    }  # fmt: skip
    plan = project.json("plan")
    assert plan["target"] == [THIRD]
    assert plan["waves"] == [{"name": "all", "tenants": ["acme", "eu-one"]}]
    (cohort,) = plan["cohorts"]
    assert (cohort["dialect"], cohort["from"], cohort["to"], cohort["tenants"]) == ("postgresql", [], [THIRD], 2)
    assert cohort["revisions"] == [FIRST, SECOND, THIRD]
    assert plan["hazards"] == []
    assert "estimate_s" in plan


def test_migrating(project: Project) -> None:
    """upgrade, downgrade, stamp and resume each print the document of their run, and the journal gives it back."""
    project.fleet("acme", "globex")
    upgraded = project.json("upgrade", "head")
    assert_run(upgraded, "upgrade", "succeeded")
    acme = tenant_of(upgraded, "acme")
    assert (acme["status"], acme["from"], acme["to"], acme["wave"]) == ("succeeded", [], [THIRD], "all")
    assert (acme["attempts"], acme["path"], acme["error"]) == (1, "alembic", None)
    assert acme["duration_ms"] > 0

    downgraded = project.json("downgrade", SECOND, "-t", "acme", "--yes", "--allow-data-loss")
    assert_run(downgraded, "downgrade", "succeeded")
    assert (tenant_of(downgraded, "acme")["from"], tenant_of(downgraded, "acme")["to"]) == ([THIRD], [SECOND])

    stamped = project.json("stamp", FIRST, "-t", "acme")
    assert_run(stamped, "stamp", "succeeded")
    assert project.heads("acme") == [FIRST]

    resumed = project.json("resume")
    assert_run(resumed, "stamp", "succeeded")
    assert project.json("runs", "show", upgraded["run"]) == upgraded
    runs = project.json("runs", "list")["runs"]
    assert [run["command"] for run in runs] == ["stamp", "downgrade", "upgrade"]
    assert all(run["status"] == "succeeded" and run["run"] and run["actor"] and run["summary"] for run in runs)
    assert [run["command"] for run in project.json("runs", "list", "-t", "globex")["runs"]] == ["upgrade"]


def test_rollback(project: Project) -> None:
    """rollback prints the document of its run, alone or with --all; --dry-run prints the plan's and touches nothing."""
    project.fleet("acme", "globex", "initech")
    project.json("upgrade", SECOND, "-t", "acme")
    run = project.json("upgrade")["run"]
    plan = project.json("rollback", run, "--dry-run")
    assert [(each["from"], each["to"]) for each in plan["cohorts"]] == [([THIRD], []), ([THIRD], [SECOND])]
    assert project.heads("acme") == [THIRD]
    agreed = ("--yes", "--allow-data-loss")
    some = project.json("rollback", run, "-t", "globex", *agreed)
    assert_run(some, "rollback", "succeeded")
    assert (statuses(some), project.heads("initech")) == ({"globex": "succeeded"}, [THIRD])
    rest = project.json("rollback", run, "--all", *agreed)
    assert statuses(rest) == {"acme": "succeeded", "globex": "already_current", "initech": "succeeded"}
    acme = tenant_of(rest, "acme")
    assert (acme["from"], acme["to"], acme["wave"], acme["path"]) == ([THIRD], [SECOND], "all", "alembic")
    assert rest["target"] == [SECOND]
    assert project.json("runs", "show", "last") == rest


def test_rollback_refused(project: Project) -> None:
    """A tenant that has moved on: exit code 1, and its error names the later run. A wrong run: 2, nothing touched."""
    project.fleet("acme", "globex")
    run = project.json("upgrade", SECOND)["run"]
    later = project.json("upgrade", "-t", "acme")["run"]
    agreed = ("--yes", "--allow-data-loss")
    assert_error(project.run("rollback", "20990101-000000-xxxxx", *agreed), "no run", "runs list")
    assert_error(project.run("rollback", run, *agreed, "-t", "acne"), "did you mean 'acme'?")
    assert_error(project.run("rollback", run, "--yes"), "--yes --allow-data-loss", "--dry-run")
    assert_error(project.run("rollback", run), "--yes --allow-data-loss", "--dry-run")
    assert (project.heads("acme"), project.heads("globex")) == ([THIRD], [SECOND])
    document = project.json("rollback", run, *agreed, exit_code=1)
    assert_run(document, "rollback", "failed")
    assert statuses(document) == {"acme": "blocked", "globex": "succeeded"}
    error = tenant_of(document, "acme")["error"]
    assert (error["type"], later in error["message"], "--to-before" in error["hint"]) == ("moved_on", True, True)
    assert project.json("rollback", run, "--to-before", *agreed)["summary"] == {"succeeded": 1, "already_current": 1}
    assert project.heads("acme") == project.heads("globex") == []


def test_tenants(project: Project) -> None:
    """tenants list, show and validate print the fleet as it was read."""
    project.fleet("{id: acme, tags: [eu]}", "globex", schemas=False)
    assert [tenant["tenant"] for tenant in project.json("tenants", "list")["tenants"]] == ["acme", "globex"]
    shown = project.json("tenants", "show", "acme")
    assert (shown["tenant"], shown["server"], shown["schema"], shown["tags"]) == ("acme", "main", "acme", ["eu"])
    valid = project.json("tenants", "validate")
    assert (valid["valid"], valid["tenants"]) == (True, 2)


def test_revision(project: Project) -> None:
    """revision prints the file that it wrote; without a message it writes none."""
    project.fleet("acme")
    file = project.json("revision", "-m", "add phone")["file"]
    assert THIRD in Path(file).read_text()
    before = list(project.versions.iterdir())
    assert_error(project.run("revision", "-m", " "), "needs a message", "hint: -m")
    assert list(project.versions.iterdir()) == before


def test_failed_run(project: Project) -> None:
    """A failure is told with everything needed to act, in the same fields, and grouped by cause; exit code 1."""
    project.fleet("acme", "globex", "initech")
    project.execute("CREATE TABLE acme.extras (id int); CREATE TABLE globex.extras (id int)")
    document = project.json("upgrade", "--continue-on-error", exit_code=1)
    assert_run(document, "upgrade", "failed")
    assert document["summary"] == {"succeeded": 1, "failed": 2}
    acme = tenant_of(document, "acme")
    assert (acme["status"], acme["from"], acme["to"], acme["attempts"]) == ("failed", [], [SECOND], 1)
    error = acme["error"]
    assert (error["sqlstate"], error["revision"]) == ("42P07", THIRD)
    assert "extras" in error["message"]
    assert error["statement"].strip().startswith("CREATE TABLE extras")
    (cause,) = document["causes"]
    assert cause.keys() >= {"fingerprint", "count", "message", "example", "retry"}
    assert (cause["count"], cause["example"]) == (2, "acme")
    assert cause["retry"] == f"orchestrator resume {document['run']}"


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "-t", "acne"),
        ("upgrade", "nosuch"),
        ("downgrade", "base"),
        ("downgrade", "base", "--all"),
        ("stamp", "head"),
        ("resume",),
        ("runs", "show", "nosuch"),
        ("tenants", "show", "acne"),
        ("plan", "--shard", "3/2"),
        ("upgrade", "--no-such-flag"),
        ("upgrad",),
        ("status", "--config", "nosuch.yaml"),
    ],
    ids=" ".join,
)
def test_error_document(project: Project, arguments: tuple[str, ...]) -> None:
    """What cannot be done as asked: exit code 2, one document with the error, and the same for people on stderr."""
    project.fleet("acme")
    result = project.run(*arguments, "--json")
    assert result.returncode == 2, result.stderr
    error = json.loads(result.stdout)["error"]
    assert error["message"]
    assert error["hint"]
    assert result.stderr.startswith(f"error: {error['message']}")
    assert project.heads("acme") == []


def test_options_on_either_side(project: Project) -> None:
    """--json and --config stand before or after the command, and ORCHESTRATOR_CONFIG names the file too."""
    project.fleet("acme")
    moved = project.workspace.write("deploy/fleet.yaml", (project.workspace.path / "tenants.yaml").read_text())
    for name in ("alembic", "alembic.ini", "examples"):
        (moved.parent / name).symlink_to(project.workspace.path / name)
    (project.workspace.path / "tenants.yaml").unlink()
    for arguments, env in (
        (("--json", "--config", "deploy/fleet.yaml", "status"), {}),
        (("status", "--config", "deploy/fleet.yaml", "--json"), {}),
        (("tenants", "--json", "list", "--config", "deploy/fleet.yaml"), {}),
        (("--json", "status"), {"ORCHESTRATOR_CONFIG": "deploy/fleet.yaml"}),
    ):
        result = project.run(*arguments, env=env)
        assert result.returncode == 0, result.stderr
        assert [tenant["tenant"] for tenant in json.loads(result.stdout)["tenants"]] == ["acme"]
    project.json("upgrade", "--config", "deploy/fleet.yaml")
    assert (moved.parent / ".orchestrator" / "journal.db").is_file()
    assert not project.journal.exists()


def test_mistyped_command(project: Project) -> None:
    """A command that does not exist is answered with the one that was meant."""
    assert_error(project.run("upgrad"), "Did you mean 'upgrade'?")


def test_yes_is_accepted_everywhere(project: Project) -> None:
    """--yes is understood by commands that never ask."""
    project.fleet("acme")
    for arguments in (("status",), ("plan",), ("upgrade",), ("resume",), ("runs", "list"), ("tenants", "validate")):
        assert project.run(*arguments, "--yes").returncode == 0


def statuses_after(project: Project) -> dict[str, str]:
    """Each tenant's state as status reads it."""
    return {tenant["tenant"]: tenant["state"] for tenant in project.json("status")["tenants"]}


def test_heads_is_the_default_target(project: Project) -> None:
    """upgrade without a target goes to the heads, with +1 one revision further; status counts what is left."""
    project.fleet("acme")
    assert statuses(project.json("upgrade", "+1")) == {"acme": "succeeded"}
    assert project.json("status")["tenants"][0]["pending"] == 2
    assert project.json("status", FIRST)["summary"] == {"current": 1}
    project.json("upgrade")
    assert statuses_after(project) == {"acme": "current"}
    assert project.json("status", FIRST)["summary"] == {"ahead": 1}


def test_stdout_is_for_data(project: Project) -> None:
    """What env.py, a revision's module and body, and a program of theirs print is no part of what a command prints."""
    file = project.revision("d4d4d4d4d4d4", THIRD, "print('body'); os.system('echo program'); op.execute('SELECT 4')")
    file.write_text(file.read_text().replace("import sqlalchemy as sa", "import sqlalchemy as sa, os; print('module')"))
    env = project.workspace.path / "alembic" / "env.py"
    env.write_text(f"print('env')\n{env.read_text()}")
    project.fleet("acme")
    planned, upgraded = project.run("plan", "--sql", "--json"), project.run("upgrade", "--json")
    assert "SELECT 4" in json.loads(planned.stdout)["cohorts"][0]["sql"]
    assert json.loads(upgraded.stdout)["status"] == "succeeded"
    for said in ("env", "module", "body", "program"):
        assert said in upgraded.stderr.splitlines()
    listed = project.run("status", "--csv")
    assert [line.partition(",")[0] for line in listed.stdout.splitlines()] == ["tenant", "acme"]
