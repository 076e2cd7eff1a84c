"""The gate for deployments: ``check`` for a fleet, ``require`` for an application's own tenant."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import orchestrator
from orchestrator import OrchestratorError, RevisionMissing
from orchestrator.errors import UsageError
from tests.command_line import FIRST, SECOND, THIRD, assert_error
from tests.command_line import Project as Small
from tests.projects import ACCOUNTS, PROJECTS, files, make_project, schemas
from tests.servers import execute, fetch


def test_gate_opens_when_everybody_has_it(project: Small) -> None:
    """0 where every tenant has the revision, 3 with those that do not; the document is that of the contract."""
    project.fleet("acme", "globex", "{id: held, pin: " + FIRST + ", reason: OPS-12}", "{id: lost, schema: nowhere}")
    project.execute("DROP SCHEMA lost")
    project.json("upgrade", SECOND, "-t", "acme")
    project.json("upgrade", FIRST, "-t", "globex", "-t", "held")

    ready = project.json("check", "--min-revision", FIRST[:5], "--exclude", "lost")
    assert (ready["ready"], ready["min_revision"], ready["not_ready"], ready["tenants"]) == (True, FIRST, [], 3)

    closed = project.json("check", "--min-revision", SECOND, exit_code=3)
    assert (closed["ready"], closed["min_revision"]) == (False, SECOND)
    assert [(each["tenant"], each["heads"], each["state"]) for each in closed["not_ready"]] == [
        ("globex", [FIRST], "behind"),
        # A pin excuses nobody from what the application needs.
        ("held", [FIRST], "pinned"),
        ("lost", [], "unprovisioned"),
    ]

    own = project.json("check", exit_code=3)
    assert (own["min_revision"], [each["tenant"] for each in own["not_ready"]]) == (None, ["acme", "globex", "lost"])
    shown = project.run("check")
    assert shown.returncode == 3
    assert "not ready: 3 of 4 tenants" in shown.stdout
    assert project.run("check", "-t", "held").stdout == f"ready: 1 tenant at {FIRST} or beyond\n"


def test_gate_stays_closed_for_who_cannot_be_asked(project: Small) -> None:
    """A tenant whose server is away, or that is at a revision nobody knows, is not known to have anything."""
    project.fleet("acme", "{id: strange}", "{id: away, url: 'postgresql://postgres@127.0.0.1:1/app'}")
    project.json("upgrade", "-t", "acme", "-t", "strange")
    project.execute("UPDATE strange.alembic_version SET version_num = 'feed'")
    document = project.json("check", "--min-revision", FIRST, exit_code=3)
    assert [(each["tenant"], each["heads"], each["state"]) for each in document["not_ready"]] == [
        ("strange", ["feed"], "unknown_revision"),
        ("away", None, "unreachable"),
    ]
    older = project.json("status", "--older-than", FIRST)
    assert [each["tenant"] for each in older["tenants"]] == ["strange", "away"]


def test_gate_refuses_what_is_no_revision(project: Small) -> None:
    """A mistyped revision must not open the gate, nor close it: it is an error."""
    project.fleet("acme")
    assert_error(project.run("check", "--min-revision", "dead"), "no revision 'dead'")
    assert_error(project.run("check", "--min-revision", "+1"), "another revision for each tenant")
    assert_error(project.run("status", "--older-than", "-1"), "another revision for each tenant")


async def test_application_requires_a_revision(tmp_path: Path, database: str) -> None:
    """A head, and what is before a head, is there; what is after it is not, and the error tells the heads."""
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": PROJECTS, "r3": "pass"}, schemas(database, "a", "b"))
    await project.upgrade("r2", tenants=["a"])
    fleet = project.fleet
    for revision in ("r2", "r1", "base"):
        await orchestrator.require(fleet, "a", revision)
    await orchestrator.require(fleet, fleet.tenants[0], "r2")
    # Any tenant has what is one before where it is.
    with pytest.raises(UsageError, match="another revision for each tenant"):
        await orchestrator.require(fleet, "a", "-1")
    for revision in ("r3", "heads"):
        with pytest.raises(RevisionMissing, match=f"tenant a is at r2 and does not have {revision}") as caught:
            await orchestrator.require(fleet, "a", revision)
        assert caught.value.heads == ("r2",)
        assert caught.value.hint == f"migrate it first: orchestrator upgrade {revision} -t a"
    with pytest.raises(RevisionMissing, match="does not exist") as caught:
        await orchestrator.require(fleet, "b", "r1")
    assert caught.value.heads == ()
    with pytest.raises(OrchestratorError, match="no tenant 'aa'"):
        await orchestrator.require(fleet, "aa", "r1")
    execute(database, "UPDATE a.alembic_version SET version_num = 'feed'")
    with pytest.raises(RevisionMissing, match="feed is not in this directory") as caught:
        await orchestrator.require(fleet, "a", "r1")
    assert caught.value.heads == ("feed",)


async def test_an_empty_revision_is_not_the_heads(tmp_path: Path, database: str) -> None:
    """What an unset variable leaves is refused by all that take a revision, and nothing is touched."""
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": PROJECTS}, schemas(database, "a"))
    await project.upgrade("r1")
    fleet = project.fleet
    for blank in ("", " ", "r1,"):
        for asked in (
            orchestrator.upgrade(fleet, blank),
            orchestrator.downgrade(fleet, blank, everyone=True),
            orchestrator.stamp(fleet, blank, everyone=True),
            orchestrator.plan(fleet, blank),
            orchestrator.status(fleet, blank),
            orchestrator.rehearse(fleet, blank),
            orchestrator.lint(fleet, blank),
            orchestrator.lint(fleet, blank, every_revision=True),
            orchestrator.check(fleet, blank),
            orchestrator.status(fleet, narrowed=orchestrator.Narrowed(older_than=blank)),
            orchestrator.revision(fleet, "more", head=blank),
            orchestrator.revision(fleet, "more", depends_on=(blank,)),
            orchestrator.require(fleet, "a", blank),
        ):
            with pytest.raises(UsageError, match=r"revision is empty|names no revision") as caught:
                await asked
            assert caught.value.hint
            assert caught.value.exit_code == 2
    assert fetch(database, "SELECT version_num FROM a.alembic_version") == [("r1",)]
    assert len(list((tmp_path / "alembic" / "versions").glob("*.py"))) == 2


def test_an_unset_variable_stamps_nobody(project: Small) -> None:
    """On the command line, too: exit code 2 and what may have happened."""
    project.fleet("acme")
    for command in (("stamp", "", "--all"), ("check", "--min-revision", ""), ("onboard", "new", "--target", "")):
        assert_error(project.run(*command), "hint: ")
    assert project.heads("acme") == []


async def test_application_requires_of_sources_and_files(tmp_path: Path, database: str) -> None:
    """A tenant that only a source lists is found there; SQLite works; who cannot be read has no heads."""
    text = json.dumps({"servers": {"main": database}, "sources": [{"schemas": "s_*", "server": "main"}], "tenants": []})
    project = make_project(tmp_path, {"r1": ACCOUNTS}, text)
    execute(database, "CREATE SCHEMA s_1")
    await project.upgrade()
    await orchestrator.require(project.fleet, "s_1", "r1")

    inside = tmp_path / "inside"
    inside.mkdir()
    lite = make_project(inside, {"r1": ACCOUNTS}, files(inside / "data", "a"))
    await lite.upgrade()
    await orchestrator.require(lite.fleet, "a", "r1")

    away = json.dumps({"servers": {"main": "postgresql://postgres@127.0.0.1:1/app"}, "tenants": ["a"]})
    (tmp_path / "tenants.yaml").write_text(away, encoding="utf-8")
    with pytest.raises(RevisionMissing, match="could not be read") as caught:
        await orchestrator.require(project.fleet, "a", "r1")
    assert caught.value.heads is None


def test_requiring_a_head_imports_neither_alembic_nor_env(tmp_path: Path, database: str) -> None:
    """An application that starts waits for one connection: env.py would end it here, and nothing heavy is imported."""
    project = make_project(tmp_path, {"r1": ACCOUNTS}, schemas(database, "a"))
    execute(database, "CREATE SCHEMA a; CREATE TABLE a.alembic_version (version_num text)")
    execute(database, "INSERT INTO a.alembic_version VALUES ('r1')")
    (tmp_path / "alembic" / "env.py").write_text("raise SystemExit('env.py was run')\n", encoding="utf-8")
    code = (
        "import asyncio, sys, orchestrator\n"
        "asyncio.run(orchestrator.require(orchestrator.load('tenants.yaml'), 'a', 'r1'))\n"
        "print({'alembic', 'sqlalchemy', 'orchestrator.rollout.run'} & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project.path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "set()\n", done.stderr


def test_contract_of_the_third(project: Small) -> None:
    """Several heads are several revisions: each must be there, and ``min_revision`` names none of them alone."""
    project.revision("d4d4d4d4d4d4", SECOND)
    project.fleet("acme")
    project.json("upgrade", THIRD)
    document = project.json("check", "--min-revision", "heads", exit_code=3)
    assert (document["min_revision"], document["target"]) == (None, sorted([THIRD, "d4d4d4d4d4d4"]))
