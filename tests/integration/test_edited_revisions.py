"""A revision that tenants have must stay as it was when they got it: an edited one stops the run before anything."""

from __future__ import annotations

import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

import orchestrator
from orchestrator.actions.execution import Execution
from orchestrator.actions.integrity import EditedRevision
from orchestrator.errors import HistoryError
from tests.command_line import FIRST, SECOND, assert_error
from tests.command_line import Project as CommandLine
from tests.projects import ACCOUNTS, PROJECTS, Project, files, make_project, schemas, statuses
from tests.servers import execute

FRAGILE = 'op.execute("SELECT 1 FROM public.mended")'


def edit(project: Project, revision: str, old: str = '"""r', new: str = '"""R') -> Path:
    """Change a revision file."""
    file = project.path / "alembic" / "versions" / f"{revision}.py"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    return file


def two(path: Path, *tenants: str) -> Project:
    """Tenants with files of their own, and two revisions."""
    return make_project(path, {"r1": ACCOUNTS, "r2": PROJECTS}, files(path, *(tenants or ("a", "b"))))


def test_an_edited_revision_stops_every_command(project: CommandLine) -> None:
    """Exit code 2 before a run is begun: which revision, which file, since which run, and what to type."""
    project.fleet("acme", "globex")
    git = ("git", "-c", "user.name=me", "-c", "user.email=me@example.org")
    for arguments in (("init", "-q"), ("add", "alembic"), ("commit", "-qm", "first")):
        subprocess.run([*git, *arguments], cwd=project.workspace.path, check=True, capture_output=True)
    head = subprocess.run(
        [*git, "rev-parse", "HEAD"], cwd=project.workspace.path, check=True, capture_output=True, text=True
    ).stdout.strip()
    run = project.json("upgrade", SECOND, "-t", "acme")["run"]
    project.revision(FIRST, None, "op.create_table('other', sa.Column('id', sa.Integer))")
    catalog = project.catalog()

    for command in (("upgrade", "-t", "globex"), ("downgrade", "base", "--all", "--yes", "--allow-data-loss")):
        assert_error(
            project.run(*command),
            f"revision {FIRST} was edited after it was applied: alembic/versions/{FIRST}.py",
            f"run {run} applied on 20",
            "(1 tenants have it, for example acme)",
            f"git diff {head} -- alembic/versions/{FIRST}.py",
            f"--accept-edited {FIRST}",
        )
    assert project.catalog() == catalog

    (told,) = project.json("status")["edited"]
    assert (told["run"], told["commit"], told["tenants"], told["example"]) == (run, head, 1, "acme")
    assert "was edited after it was applied" in project.run("plan").stdout
    assert project.json("upgrade", "-t", "acme", "--accept-edited", FIRST[:4])["summary"] == {"succeeded": 1}


async def test_accepted_for_good(tmp_path: Path) -> None:
    """An accepted text is remembered, and the next edit stops again; what was accepted before needs no word."""
    project = two(tmp_path)
    await project.upgrade("r1")
    edit(project, "r1")
    with pytest.raises(HistoryError, match="no revision 'nosuch'"):
        await project.upgrade(execution=Execution(accept_edited=("nosuch",)))
    with pytest.raises(EditedRevision, match="revision r1 was edited"):
        await project.upgrade(execution=Execution(accept_edited=("r2",)))
    accepted = Execution(accept_edited=("r1",))
    assert (await orchestrator.plan(project.fleet, execution=accepted)).edited == ()
    assert statuses(await project.upgrade(execution=accepted)) == {"a": "succeeded", "b": "succeeded"}
    await orchestrator.stamp(project.fleet, "r2", everyone=True)
    assert (await orchestrator.status(project.fleet)).edited == ()
    assert statuses(await project.upgrade()) == {"a": "already_current", "b": "already_current"}
    edit(project, "r1", '"""R', '"""And again r')
    with pytest.raises(EditedRevision):
        await project.upgrade()


async def test_resume_is_stopped(tmp_path: Path, database: str) -> None:
    """What some tenants have been migrated with must not be something else for the others."""
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": FRAGILE}, schemas(database, "a"))
    await project.upgrade()
    execute(database, "CREATE TABLE public.mended ()")
    edit(project, "r1")
    with pytest.raises(EditedRevision, match="revision r1 was edited"):
        await orchestrator.resume(project.fleet)
    accepted = Execution(accept_edited=("r1",))
    assert statuses(await orchestrator.resume(project.fleet, execution=accepted)) == {"a": "succeeded"}


async def test_a_revision_that_nobody_has_may_be_edited(tmp_path: Path, database: str) -> None:
    """One that failed everywhere is mended and resumed; so may be one that everybody was taken back from."""
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": FRAGILE}, schemas(database, "a"))
    assert statuses(await project.upgrade()) == {"a": "failed"}
    edit(project, "r2", "public.mended", "accounts")
    assert statuses(await orchestrator.resume(project.fleet)) == {"a": "succeeded"}

    await orchestrator.downgrade(project.fleet, "r1", tenants=["a"])
    edit(project, "r2", "accounts", "accounts LIMIT 1")
    assert (await orchestrator.status(project.fleet)).edited == ()
    assert statuses(await project.upgrade()) == {"a": "succeeded"}
    # What counts now is the text that it was applied with the last time.
    edit(project, "r2", "accounts LIMIT 1", "accounts")
    with pytest.raises(EditedRevision):
        await project.upgrade()


async def test_somebody_else_has_it(tmp_path: Path) -> None:
    """Also where the tenants that are selected have not: they would come out different from those that have."""
    project = two(tmp_path)
    await project.upgrade("r2", tenants=["a"])
    edit(project, "r2")
    with pytest.raises(EditedRevision, match="for example a"):
        await project.upgrade(tenants=["b"])
    edit(project, "r2", '"""R', '"""r')
    assert statuses(await project.upgrade()) == {"a": "already_current", "b": "succeeded"}


async def test_only_line_endings_differ(tmp_path: Path) -> None:
    """A checkout on another system is no edit."""
    project = two(tmp_path)
    await project.upgrade()
    file = project.path / "alembic" / "versions" / "r1.py"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert statuses(await project.upgrade()) == {"a": "already_current", "b": "already_current"}
    file.write_bytes(file.read_bytes().replace(b"\r\n", b"\n\n", 1))
    with pytest.raises(EditedRevision):
        await project.upgrade()


async def test_found_applied(tmp_path: Path) -> None:
    """Tenants that were migrated before there was a journal: what the files are at the first run counts."""
    project = two(tmp_path)
    await project.upgrade("r1")
    for file in (tmp_path / ".orchestrator").glob("journal.db*"):
        file.unlink()
    edit(project, "r1")
    await project.upgrade()
    edit(project, "r1", '"""R', '"""r')
    with pytest.raises(EditedRevision, match="revision r1 was edited"):
        await project.upgrade()


async def test_killed_before_it_was_noted(tmp_path: Path) -> None:
    """A run writes down what it is about to apply: killed after a commit, the edit is still noticed."""
    project = two(tmp_path)
    await project.upgrade()
    with closing(sqlite3.connect(tmp_path / ".orchestrator" / "journal.db")) as journal:
        journal.execute("UPDATE orchestrator_revisions SET applied_at = NULL")
        journal.commit()
    assert statuses(await project.upgrade()) == {"a": "already_current", "b": "already_current"}
    with closing(sqlite3.connect(tmp_path / ".orchestrator" / "journal.db")) as journal:
        journal.execute("UPDATE orchestrator_revisions SET applied_at = NULL")
        journal.commit()
    edit(project, "r2")
    with pytest.raises(EditedRevision, match="revision r2 was edited"):
        await project.upgrade()


async def test_a_server_that_is_away_may_have_it(tmp_path: Path, database: str) -> None:
    """Where nobody can be asked, the journal's word counts."""
    project = make_project(tmp_path, {"r1": ACCOUNTS}, schemas(database, "a"))
    await project.upgrade()
    (tmp_path / "tenants.yaml").write_text(schemas("postgresql://nobody@127.0.0.1:1/none", "a"))
    edit(project, "r1")
    with pytest.raises(HistoryError, match="servers are away"):
        await project.upgrade()


async def test_one_row_for_each_file(tmp_path: Path) -> None:
    """However many tenants have it: twenty tenants, two revisions, two rows."""
    project = two(tmp_path, *(f"t{number}" for number in range(20)))
    await project.upgrade()
    with closing(sqlite3.connect(tmp_path / ".orchestrator" / "journal.db")) as journal:
        rows = journal.execute("SELECT revision, applied_at IS NOT NULL FROM orchestrator_revisions").fetchall()
    assert sorted(rows) == [("r1", 1), ("r2", 1)]


async def test_blocked_tenants_do_not_hold_up_the_others(tmp_path: Path, database: str) -> None:
    """An unknown revision, one that is not on the way, several heads: each is blocked by itself, the rest go on."""
    module = "{variables}\n\n\ndef upgrade():\n    pass\n\n\ndef downgrade():\n    pass"
    revisions = {
        "r1": ACCOUNTS,
        "r2": "",
        "x2": module.format(variables='down_revision = "r1"'),
        "m3": module.format(variables='down_revision = "r2"'),
    }
    ids = ("unknown", "diverged", "heads", "fine")
    project = make_project(tmp_path, revisions, schemas(database, *ids, policy={"max_failures": 0}))
    await project.upgrade("r1")
    execute(database, "UPDATE unknown.alembic_version SET version_num = 'gone'")
    execute(database, "UPDATE diverged.alembic_version SET version_num = 'x2'")
    execute(database, "UPDATE heads.alembic_version SET version_num = 'r2'")
    execute(database, "INSERT INTO heads.alembic_version VALUES ('x2')")

    result = await project.upgrade("m3")
    assert statuses(result) == {"unknown": "blocked", "diverged": "blocked", "heads": "succeeded", "fine": "succeeded"}
    back = await orchestrator.downgrade(project.fleet, "-1", everyone=True)
    assert statuses(back)["heads"] == "blocked"
    assert statuses(back)["fine"] == "succeeded"
