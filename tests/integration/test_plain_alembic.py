"""Plain Alembic's commands over the same env.py and the sample history, for all tenants or those that -x names."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.catalog import catalog, difference
from tests.servers import execute, fetch
from tests.workspace import Workspace

HEAD, BEFORE_HEAD = "5ce7308fb946", "4b9e15d27fa0"
#: Calls Alembic's API from inside a running event loop, as an application does when it starts.
INSIDE_A_LOOP = """
import asyncio
from alembic import command
from alembic.config import Config

async def main():
    command.upgrade(Config("alembic.ini"), "head")
    print("still running:", asyncio.get_running_loop().is_running())

asyncio.run(main())
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """The repository's own project with two tenants in schemas and one in a database."""

    workspace: Workspace
    url: str
    own: str

    def alembic(self, *args: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run ``alembic ARGS``; never a traceback."""
        result = self.workspace.python("-m", "alembic", *args)
        assert "Traceback" not in result.stderr, result.stderr
        assert code is None or result.returncode == code, result.stdout + result.stderr
        return result

    def refused(self, *args: str) -> str:
        """Run ``alembic ARGS``, which must fail, and return all it says."""
        result = self.alembic(*args, code=None)
        assert result.returncode != 0
        return result.stdout + result.stderr

    def heads(self) -> list[str | None]:
        """The revision of each tenant; ``None`` without a version table."""
        found: list[str | None] = []
        for url, schema in ((self.url, "acme"), (self.url, "globex"), (self.own, "public")):
            exists = fetch(url, f"SELECT to_regclass('{schema}.alembic_version') IS NOT NULL")[0][0]
            found.append(fetch(url, f"SELECT version_num FROM {schema}.alembic_version")[0][0] if exists else None)
        return found


@pytest.fixture
def sample(workspace: Workspace, make_database: Callable[..., str]) -> Sample:
    """Nothing migrated yet, every place there."""
    url, own = make_database(), make_database()
    execute(url, "CREATE SCHEMA acme; CREATE SCHEMA globex")
    workspace.write(
        "tenants.yaml",
        f'servers: {{main: {{url: "{url}"}}}}\ndefaults: {{server: main}}\ntenants:\n'
        f'  - {{id: acme, tags: [eu]}}\n  - globex\n  - {{id: initech, url: "{own}"}}\n',
    )
    return Sample(workspace, url, own)


def test_upgrade_and_readings(sample: Sample) -> None:
    """upgrade head migrates every tenant alike; current tells each, history, heads and check work; a record is kept."""
    sample.alembic("upgrade", "head")
    assert sample.heads() == [HEAD] * 3
    first = catalog(sample.url, "acme")
    assert difference(first, catalog(sample.url, "globex")) == []
    assert difference(first, catalog(sample.own)) == []

    current = sample.alembic("current").stdout
    assert [line for line in current.splitlines() if line.startswith("--")] == ["-- acme", "-- globex", "-- initech"]
    assert current.count(f"{HEAD} (head)") == 3
    assert sample.alembic("-x", "tenant=acme", "current").stdout.count(HEAD) == 1
    assert f"{BEFORE_HEAD} -> {HEAD} (head)" in sample.alembic("history").stdout
    assert sample.alembic("heads").stdout.split()[0] == HEAD
    assert "No new upgrade operations detected" in sample.alembic("check").stdout
    (run,) = sample.workspace.json("runs", "list")["runs"]
    assert (run["command"], run["summary"]) == ("upgrade", {"succeeded": 3})
    assert sample.workspace.json("status")["summary"] == {"current": 3}


def test_selected_tenants(sample: Sample) -> None:
    """-x tenant= and -x tag= name tenants, by glob, repeatedly; nobody else is touched; a mistyped one is an error."""
    sample.alembic("-x", "tag=eu", "upgrade", BEFORE_HEAD)
    assert sample.heads() == [BEFORE_HEAD, None, None]
    sample.alembic("-x", "tenant=glo*", "-x", "tenant=initech", "upgrade", BEFORE_HEAD)
    assert sample.heads() == [BEFORE_HEAD] * 3
    assert "did you mean 'acme'" in sample.refused("-x", "tenant=acne", "upgrade", "head")
    assert sample.heads() == [BEFORE_HEAD] * 3


def test_downgrade_and_stamp_need_tenants(sample: Sample) -> None:
    """downgrade and stamp say what is missing, and do it for those that -x names or for all."""
    sample.alembic("upgrade", "head")
    for command in (("downgrade", "-1"), ("stamp", BEFORE_HEAD)):
        told = sample.refused(*command)
        assert "-x tenant=" in told
        assert "-x all=true" in told
    assert sample.heads() == [HEAD] * 3
    sample.alembic("-x", "tenant=acme", "downgrade", "-1")
    assert sample.heads() == [BEFORE_HEAD, HEAD, HEAD]
    sample.alembic("-x", "all=true", "stamp", HEAD)
    assert sample.heads() == [HEAD] * 3
    sample.alembic("-x", "all=true", "stamp", BEFORE_HEAD)
    sample.alembic("-x", "tenant=acme", "stamp", HEAD)
    assert sample.heads() == [HEAD, BEFORE_HEAD, BEFORE_HEAD]


def test_autogenerate(sample: Sample) -> None:
    """revision --autogenerate compares the models with one tenant and writes what is missing; check finds it before."""
    sample.alembic("upgrade", "head")
    models = sample.workspace.path / "examples/saas/accounts.py"
    models.write_text(f"{models.read_text()}\n\nAccount.__table__.append_column(__import__('sqlalchemy').Column"
                      "('phone', __import__('sqlalchemy').Text))\n")  # fmt: skip
    assert "New upgrade operations detected" in sample.refused("check")
    sample.alembic("revision", "--autogenerate", "-m", "add phone")
    (written,) = (sample.workspace.path / "alembic/versions").glob("*add_phone*.py")
    text = written.read_text()
    assert "op.add_column('accounts', sa.Column('phone'" in text
    assert text.count("op.add_column") == 1
    assert f"down_revision = '{HEAD}'" in text.replace('"', "'").replace(": str | None", "")
    sample.alembic("upgrade", "head")
    assert "No new upgrade operations detected" in sample.alembic("check").stdout


def test_sql(sample: Sample) -> None:
    """--sql needs no database: once without a name in it, or for each tenant that is named, with its search path."""
    sql = sample.alembic("upgrade", "head", "--sql").stdout
    assert "CREATE TABLE accounts" in sql
    assert "search_path" not in sql
    named = sample.alembic("-x", "tenant=acme", "upgrade", "head", "--sql").stdout
    assert 'SET search_path TO "acme"' in named
    assert "CREATE TABLE accounts" in named
    assert "globex" not in named
    assert sample.heads() == [None] * 3


def test_failure(sample: Sample) -> None:
    """A tenant that fails ends the command with an error that names tenant, cause and how to go on."""
    execute(sample.url, "CREATE TABLE acme.plans (id int)")
    told = sample.refused("-x", "tenant=acme", "upgrade", "head")
    assert 'relation "plans" already exists' in told
    assert "acme" in told
    assert "orchestrator resume" in told
    execute(sample.url, "DROP TABLE acme.plans")
    assert sample.workspace.json("resume")["summary"] == {"succeeded": 1}


def test_edited_revision(sample: Sample) -> None:
    """An edited revision stops upgrade and downgrade with what to type here; -x accept-edited= takes it, for good."""
    sample.alembic("upgrade", BEFORE_HEAD)
    (file,) = (sample.workspace.path / "alembic/versions").glob(f"*_{BEFORE_HEAD}.py")
    file.write_text(f"{file.read_text()}\n# Edited.\n")
    for command in (("upgrade", "head"), ("-x", "tenant=acme", "downgrade", "-1")):
        told = sample.refused(*command)
        assert f"revision {BEFORE_HEAD} was edited after it was applied" in told
        assert f"-x accept-edited={BEFORE_HEAD} before the command" in told
        assert "--accept-edited" not in told
    assert "does not say which revision" in sample.refused("-x", "accept-edited=", "upgrade", "head")
    assert "no revision 'nosuch'" in sample.refused("-x", "accept-edited=nosuch", "upgrade", "head")
    assert sample.heads() == [BEFORE_HEAD] * 3

    sample.alembic("-x", "accept-edited=4b9e", "-x", "tenant=acme", "upgrade", "head")
    assert sample.heads() == [HEAD, BEFORE_HEAD, BEFORE_HEAD]
    sample.alembic("upgrade", "head")
    assert sample.heads() == [HEAD] * 3


def test_inside_a_running_loop(sample: Sample) -> None:
    """alembic.command.upgrade works where an event loop is running already, and leaves it running."""
    result = sample.workspace.python("-c", INSIDE_A_LOOP)
    assert result.returncode == 0, result.stderr
    assert "still running: True" in result.stdout
    assert sample.heads() == [HEAD] * 3
