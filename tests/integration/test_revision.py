"""``orchestrator revision``: what it writes, compared with a tenant of each kind, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import orchestrator
from orchestrator.actions.revision import write_revision
from orchestrator.errors import OrchestratorError
from tests.projects import ENV as PLAIN
from tests.projects import Project, files, make_project
from tests.servers import execute
from tests.workspace import REPOSITORY, Workspace

TABLE = "op.create_table('notes', sa.Column('id', sa.Integer, primary_key=True))"
#: An env.py as the documentation shows it, with models beside it.
ENV = """
import sqlalchemy as sa
from alembic import context
from orchestrator import for_each_tenant

metadata = sa.MetaData()
sa.Table("notes", metadata, sa.Column("id", sa.Integer, primary_key=True))


def migrate(connection, tenant):
    context.configure(
        connection=connection, version_table_schema=tenant.schema, transaction_per_migration=True, OPTIONS
    )
    with context.begin_transaction():
        context.run_migrations()


for_each_tenant(migrate)
"""
COMPARING = ENV.replace("OPTIONS", "target_metadata=metadata")


@pytest.fixture(params=["schema", "database", "file"])
def fleet(request: pytest.FixtureRequest, workspace: Workspace) -> dict[str, object]:
    """A tenants.yaml with one tenant, of each isolation."""
    if request.param == "file":
        url = f"sqlite:///{workspace.path / 'data'}"
        return {"servers": {"main": {"url": url}}, "tenants": [{"id": "acme", "isolation": "file"}]}
    url = request.getfixturevalue("database")
    tenant = {"id": "acme", "isolation": request.param}
    if request.param == "database":
        tenant["database"] = url.rpartition("/")[2]
    else:
        # The same application in public, a step further: nobody is to be compared with that.
        execute(url, "CREATE TABLE projects (id int, colour varchar(20)); CREATE TABLE stray (id int)")
    return {"servers": {"main": {"url": url}}, "tenants": [tenant]}


def test_autogenerate(workspace: Workspace, fleet: dict[str, object]) -> None:
    """A column that only the models have becomes one add_column and one drop_column; applied, they are in step."""
    workspace.write("tenants.yaml", json.dumps(fleet))
    workspace.json("upgrade", "--provision")
    models = workspace.path / "examples/saas/work.py"
    column = "    colour: Mapped[str | None] = mapped_column(String(20))\n    archived_at:"
    models.write_text(models.read_text().replace("    archived_at:", column, 1))

    written = Path(workspace.json("revision", "-m", "add colour", "--autogenerate")["file"])

    assert operations(written) == [
        "op.add_column('projects', sa.Column('colour', sa.String(length=20), nullable=True))",
        "op.drop_column('projects', 'colour')",
    ]
    workspace.json("upgrade")
    check = workspace.python("-m", "alembic", "check")
    assert (check.returncode, check.stdout) == (0, "No new upgrade operations detected.\n"), check.stderr


def test_plain_revision_asks_no_database(tmp_path: Path) -> None:
    """Without --autogenerate neither env.py nor a server is needed."""
    project = with_template(tmp_path, {"a1": TABLE}, "raise SystemError")
    written = write_revision(project.fleet, "add phone")
    assert operations(written) == []
    assert "Revises: a1" in written.read_text()


@pytest.mark.parametrize("message", ["", " \t"])
def test_no_message(tmp_path: Path, message: str) -> None:
    """A revision that says nothing of itself is not written."""
    project = with_template(tmp_path, {"a1": TABLE})
    refused(project, lambda: write_revision(project.fleet, message), "needs a message", "-m ")


def test_several_heads(tmp_path: Path) -> None:
    """After which head is not guessed; named, it works."""
    project = with_template(
        tmp_path, {"a1": TABLE, "b1": "pass", "c1": "down_revision = 'a1'\ndef upgrade():\n    pass"}
    )
    refused(project, lambda: write_revision(project.fleet, "x"), "2 heads (b1, c1)", "--head b1; or join")
    assert "Revises: c1" in write_revision(project.fleet, "x", head="c1").read_text()


def test_refused_head(tmp_path: Path) -> None:
    """No such revision, and one that is no head: the hints differ; --splice lets the second through."""
    project = with_template(tmp_path, {"a1": TABLE, "b1": "pass"})
    refused(project, lambda: write_revision(project.fleet, "x", head="z9"), "no revision 'z9'", "alembic history")
    refused(project, lambda: write_revision(project.fleet, "x", head="a1"), "not a head", "--splice")
    assert "Revises: a1" in write_revision(project.fleet, "x", head="a1", splice=True).read_text()


async def test_reference_tenant_behind(tmp_path: Path) -> None:
    """Compared with a tenant that lacks revisions, the models would repeat them: refused."""
    project = with_template(tmp_path, {"a1": TABLE, "b1": "pass"}, COMPARING)
    await project.upgrade("a1")
    refused(
        project, lambda: write_revision(project.fleet, "x", autogenerate=True), "not up to date", "orchestrator upgrade"
    )


def test_no_tenant_to_compare_with(tmp_path: Path) -> None:
    """A fleet of tenants that are still to be made: the hint says how to make one."""
    project = with_template(tmp_path, {"a1": TABLE}, COMPARING)
    refused(
        project, lambda: write_revision(project.fleet, "x", autogenerate=True), "no tenant can be read", "--provision"
    )
    refused(project, lambda: write_revision(project.fleet, "x", autogenerate=True, tenant="acne"), "no tenant", "acme")


@pytest.mark.parametrize(
    ("env", "told", "hint"),
    [
        ("import no_such_models\n" + COMPARING, "env.py:1: env.py cannot be run", "mend it"),
        (ENV.replace("OPTIONS", ""), "MetaData", "set target_metadata in "),
        (
            ENV.replace("OPTIONS", "target_metadata=metadata, process_revision_directives=lambda c, r, d: d.clear()"),
            "no revision was written",
            "alembic check",
        ),
    ],
)
async def test_env_in_the_way(tmp_path: Path, env: str, told: str, hint: str) -> None:
    """What is wrong in env.py is said as such, without a traceback and without a file."""
    project = with_template(tmp_path, {"a1": TABLE}, COMPARING)
    await project.upgrade()
    (tmp_path / "alembic/env.py").write_text(env)
    refused(project, lambda: write_revision(project.fleet, "x", autogenerate=True), told, hint)


def test_file_that_cannot_be_written(tmp_path: Path) -> None:
    """What the operating system refuses is told with the directory to look at."""
    project = with_template(tmp_path, {"a1": TABLE})
    ini = tmp_path / "alembic.ini"
    ini.write_text(ini.read_text() + f"file_template = {'x' * 300}\n")
    refused(project, lambda: write_revision(project.fleet, "x"), "cannot be written", "ls -ld ")
    (tmp_path / "alembic/script.py.mako").unlink()
    refused(project, lambda: write_revision(project.fleet, "x"), "cannot be written", "take the script.py.mako")


async def test_named_fleet(tmp_path: Path) -> None:
    """The tenants of the fleet that was loaded are compared, whatever its file is called; the environment stays."""
    project = with_template(tmp_path, {"a1": TABLE}, COMPARING)
    await project.upgrade()
    (tmp_path / "tenants.yaml").rename(tmp_path / "eu.yaml")
    written = write_revision(orchestrator.load(tmp_path / "eu.yaml"), "x", autogenerate=True)
    assert operations(written) == []
    assert "ORCHESTRATOR_CONFIG" not in os.environ


def with_template(path: Path, revisions: dict[str, str], env: str = PLAIN) -> Project:
    """A project with one tenant in a file, and a template for new revisions."""
    project = make_project(path, revisions, files(path / "data", "acme"), env)
    shutil.copy(REPOSITORY / "alembic/script.py.mako", path / "alembic")
    return project


def operations(revision: Path) -> list[str]:
    """The operations in a revision's file, upgrade's first."""
    lines = (line.strip() for line in revision.read_text().splitlines())
    return [line for line in lines if line.startswith("op.")]


def refused(project: Project, write: Callable[[], Path], told: str, hint: str) -> None:
    """It ends in an error that says so, and no file is there that was not before."""
    before = sorted((project.path / "alembic" / "versions").glob("*.py"))
    with pytest.raises(OrchestratorError) as error:
        write()
    assert told in error.value.message
    assert hint in (error.value.hint or "")
    assert sorted((project.path / "alembic" / "versions").glob("*.py")) == before
