"""What the operator or a colleague got wrong: exit code 2, file and line, what to do about it, and nothing touched."""

from __future__ import annotations

import json

import pytest

from tests.command_line import FIRST, SECOND, THIRD, Project, assert_error, statuses, tenant_of

OTHER = "d4d4d4d4d4d4"
NOTHING = "pass"

#: Runs its arguments as a command; root, too, then has to ask the mode bits (prctl(2): 24 is PR_CAPBSET_DROP, 1 and 2
#: are CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH).
AS_ANYBODY = """
import ctypes, os, sys
for capability in (1, 2):
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
os.execv(sys.executable, [sys.executable, "-m", "orchestrator", *sys.argv[1:]])
"""


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("syntax", "def upgrade(:", ("broken.py:1: SyntaxError",)),
        ("import", "import os\nimport nosuch", ("broken.py:2: ModuleNotFoundError", "nosuch")),
        ("nameless", "def upgrade(): pass", ("broken.py", "`revision =`", "orchestrator revision")),
        ("duplicate", f"revision = '{SECOND}'\ndown_revision = '{FIRST}'", ("broken.py", SECOND, f"{SECOND}.py too")),
        ("orphan", f"revision = '{OTHER}'\ndown_revision = 'nosuch'", ("broken.py:2", "'nosuch'", "another branch")),
        ("cycle", f"revision = '{OTHER}'\ndown_revision = '{OTHER}'", (OTHER, "alembic history")),
    ],
)
def test_broken_revision_file(project: Project, name: str, text: str, parts: tuple[str, ...]) -> None:
    """A revision file that cannot be read ends every command before anything is connected to."""
    project.fleet("acme")
    project.workspace.write("alembic/versions/broken.py", text)
    assert_error(project.run("upgrade"), *parts, "hint: ")
    assert project.heads("acme") == []
    assert not project.journal.exists()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("def migrate(:", ("env.py:1", "SyntaxError")),
        ("import nosuch", ("env.py:1", "nosuch")),
        ("pass", ("env.py", "for_each_tenant", "init --adopt")),
        (None, ("env.py",)),
    ],
)
def test_broken_env(project: Project, text: str | None, parts: tuple[str, ...]) -> None:
    """An env.py that fails, lacks the loop or is not there is named, with the line."""
    project.fleet("acme")
    env = project.versions.parent / "env.py"
    env.unlink() if text is None else env.write_text(text)
    assert_error(project.run("upgrade"), *parts, "hint: ")
    assert project.heads("acme") == []


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (None, ("no alembic.ini", "orchestrator init")),
        ("[alembic]\n", ("alembic.ini", "script_location")),
        ("[alembic]\nscript_location = elsewhere\n", ("alembic.ini", "elsewhere", "script_location")),
    ],
)
def test_broken_ini(project: Project, text: str | None, parts: tuple[str, ...]) -> None:
    """An alembic.ini that is missing or leads nowhere is named, with the line to write."""
    project.fleet("acme")
    ini = project.workspace.path / "alembic.ini"
    ini.unlink() if text is None else ini.write_text(text)
    assert_error(project.run("upgrade"), *parts, "hint: ")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("tenants: []\n", ("tenants.yaml:1", "empty")),
        ("", ("tenants.yaml", "empty", "orchestrator init")),
        ("tenants:\n  - {id: acme, sever: main}\n", ("tenants.yaml:2:16", "sever", "did you mean", "server")),
        ("tenants:\n  - {id: acme}\n  - {id: acme}\n", ("tenants.yaml:3:", "acme")),
        ("tenants:\n  - {id: acme, server: mian}\n", ("tenants.yaml:2:", "mian", "main")),
        ("tenants:\n  - {id: no}\n", ("tenants.yaml:2:", "quote")),
        ("tenants:\n  - {id: acme\n", ("tenants.yaml:3:",)),
        ("tenants: [acme]\ntenants: [globex]\n", ("tenants.yaml:2:1", "tenants")),
    ],
)
def test_broken_fleet(project: Project, text: str, parts: tuple[str, ...]) -> None:
    """An error in tenants.yaml names file, line and column, and what may have been meant."""
    servers = f'servers: {{main: {{url: "{project.url}"}}}}\n' if text else ""
    # The servers come last so that the lines of the cases are those of the file.
    project.workspace.write("tenants.yaml", text + servers)
    result = project.run("tenants", "validate", "--json")
    assert result.returncode == 2
    assert json.loads(result.stdout)["error"]["type"] == "ConfigurationError"
    for part in parts:
        assert part in result.stderr.replace(str(project.workspace.path) + "/", ""), result.stderr


def test_several_heads(project: Project) -> None:
    """With two heads `head` is refused, `heads` goes to both, and `-1` does not guess which branch is meant."""
    project.fleet("acme")
    project.revision(OTHER, SECOND, NOTHING)
    assert_error(project.run("upgrade", "head"), "2 heads", THIRD, OTHER, "heads", "alembic merge")
    assert project.heads("acme") == []
    assert project.json("upgrade", "heads")["target"] == [THIRD, OTHER]
    assert project.heads("acme") == [THIRD, OTHER]
    refused = project.json("downgrade", "-1", "-t", "acme", "--yes", "--allow-data-loss", exit_code=1)
    assert statuses(refused) == {"acme": "blocked"}
    assert "2 heads" in tenant_of(refused, "acme")["error"]["message"]
    assert project.heads("acme") == [THIRD, OTHER]


def test_raising_migration(project: Project) -> None:
    """A revision that raises is rolled back whole, the ones before it stay, and the line that raised is named."""
    project.fleet("acme", "globex")
    raising = "op.create_table('half', sa.Column('id', sa.Integer)); raise RuntimeError('three a.m.')"
    project.revision(THIRD, SECOND, raising)
    document = project.json("upgrade", "--jobs", "1", exit_code=1)
    acme = tenant_of(document, "acme")
    assert (acme["status"], acme["from"], acme["to"]) == ("failed", [], [SECOND])
    error = acme["error"]
    assert (error["type"], error["message"], error["revision"]) == ("RuntimeError", "three a.m.", THIRD)
    assert f"{THIRD}.py:13" in error["hint"]
    assert project.heads("acme") == [SECOND]
    assert ("acme", "half", "id") not in project.catalog()
    assert statuses(document)["globex"] == "not_started"


def test_unknown_revision_in_a_tenant(project: Project) -> None:
    """A tenant at a revision that the directory does not have is blocked and left alone; the others are migrated."""
    project.fleet("acme", "globex", "initech")
    project.execute(
        "CREATE TABLE acme.alembic_version (version_num varchar(32)); INSERT INTO acme.alembic_version VALUES ('dead')"
    )
    assert project.json("status")["summary"] == {"behind": 2, "unknown_revision": 1}
    document = project.json("upgrade", "--jobs", "1", exit_code=1)
    assert statuses(document) == {"acme": "blocked", "globex": "succeeded", "initech": "succeeded"}
    error = tenant_of(document, "acme")["error"]
    assert error["type"] == "unknown_revision"
    assert "dead" in error["message"]
    assert "orchestrator stamp" in error["hint"]
    assert project.heads("acme") == ["dead"]
    assert project.json("stamp", THIRD, "-t", "acme")["summary"] == {"succeeded": 1}
    assert project.json("resume")["status"] == "succeeded"


def test_corrupt_journal(project: Project) -> None:
    """With a journal that is none, nothing is migrated without a record; reading where tenants stand still works."""
    project.fleet("acme")
    project.workspace.write(".orchestrator/journal.db", "no database " * 1000)
    assert_error(project.run("upgrade"), "journal.db", "not a SQLite database", "move the file away")
    assert project.heads("acme") == []
    assert project.json("status")["summary"] == {"behind": 1}
    assert project.json("plan")["cohorts"][0]["tenants"] == 1
    assert_error(project.run("runs", "list"), "journal.db")


def test_read_only_journal(project: Project) -> None:
    """A journal directory that may not be written to: exit code 2 before any tenant; reading still works."""
    project.fleet("acme")
    project.json("upgrade", FIRST)
    directory = project.journal.parent
    project.journal.chmod(0o400)
    directory.chmod(0o500)
    try:
        assert_error(project.workspace.python("-c", AS_ANYBODY, "upgrade"), "journal.db", "hint: ")
        assert project.heads("acme") == [FIRST]
        for command in (("status",), ("plan",), ("runs", "list")):
            reading = project.workspace.python("-c", AS_ANYBODY, *command)
            assert reading.returncode == 0, reading.stderr
    finally:
        directory.chmod(0o700)
