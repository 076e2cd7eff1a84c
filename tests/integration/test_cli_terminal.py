"""What people see: progress and questions on a terminal, plain lines elsewhere, and a quick answer to --help."""

from __future__ import annotations

import re

import pytest

from tests.command_line import SECOND, THIRD, Project
from tests.terminal import in_terminal
from tests.workspace import Workspace

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def test_progress_on_a_terminal(project: Project) -> None:
    """A bar moves while tenants are migrated, a failure is told at once, and the summary stands at the end."""
    project.fleet("acme", "globex", "initech")
    project.execute("CREATE TABLE globex.extras (id int)")
    code, screen = in_terminal(project, "upgrade", "--continue-on-error")
    assert code == 1
    assert "\x1b[" in screen
    assert "3/3" in screen
    assert re.search(r"globex  failed .*extras", screen)
    assert re.search(r"run \S+ failed in [\d.]+ s: 2 succeeded, 1 failed\n", screen)
    assert "go on with: orchestrator resume" in screen.splitlines()[-1]


def test_difference_in_a_narrow_terminal(project: Project) -> None:
    """What a difference ends with may be what matters: it is not cut off where the terminal ends."""
    project.fleet("acme", "globex")
    project.json("upgrade")
    foreign = "FOREIGN KEY (id) REFERENCES acme.notes (id) ON DELETE CASCADE NOT VALID"
    project.execute(f"ALTER TABLE acme.notes ADD CONSTRAINT fk_itself {foreign}")
    code, screen = in_terminal(project, "drift", env={"COLUMNS": "60"})
    assert code == 3
    told = "FOREIGN KEY (id) REFERENCES notes(id) ON DELETE CASCADE NOT VALID"
    assert f"  extra constraint fk_itself on notes: {told}\n" in screen


def test_question(project: Project) -> None:
    """downgrade says what would be lost and asks; no leaves everything as it is, yes does it."""
    project.fleet("acme", "globex")
    project.json("upgrade")
    code, screen = in_terminal(project, "downgrade", "-1", "-t", "acme", answer="n")
    assert (code, project.heads("acme")) == (2, [THIRD])
    assert f"{THIRD} throws data away: drop_table extras" in screen
    assert f"1 tenant from {THIRD} to {SECOND}" in screen
    assert "nothing was touched" in screen
    code, screen = in_terminal(project, "downgrade", "-1", "-t", "acme", answer="y")
    assert (code, project.heads("acme"), project.heads("globex")) == (0, [SECOND], [THIRD])
    code, screen = in_terminal(project, "downgrade", "-1", "-t", "globex", "--yes", "--allow-data-loss")
    assert (code, project.heads("globex")) == (0, [SECOND])
    assert "[y/N]" not in screen


def test_rollback_asks(project: Project) -> None:
    """rollback says what would be lost and asks; no leaves everything as it is, yes does it, --yes is not enough."""
    project.fleet("acme", "globex")
    project.json("upgrade", SECOND, "-t", "acme")
    run = project.json("upgrade")["run"]
    code, screen = in_terminal(project, "rollback", run, "--yes", answer="n")
    assert code == 2
    for part in ("1 tenant from", f"{THIRD} throws data away: drop_table extras", "nothing was touched"):
        assert part in screen, part
    assert project.heads("acme") == [THIRD]
    code, screen = in_terminal(project, "rollback", run, answer="y")
    assert (code, project.heads("acme"), project.heads("globex")) == (0, [SECOND], [])
    assert f"rollback of run {run}, 2 tenants" in screen


@pytest.mark.parametrize("variable", ["CI", "NO_COLOR"])
def test_variables(project: Project, variable: str) -> None:
    """NO_COLOR takes colours and bold away on a terminal; CI makes it no terminal at all."""
    project.fleet("acme")
    code, screen = in_terminal(project, "upgrade", env={variable: "1"})
    assert code == 0
    assert not re.search(r"\x1b\[[\d;]*[1-9][\d;]*m", screen)
    if variable == "CI":
        assert not CONTROL.search(screen)
        assert re.search(r"^acme  succeeded  \d+ ms$", screen, re.MULTILINE)
    code, screen = in_terminal(project, "status", env={variable: "1"})
    assert not CONTROL.search(screen)


def test_plain_lines(project: Project) -> None:
    """Off a terminal: a line for each finished tenant on stderr, the summary on stdout, control codes nowhere."""
    project.fleet("acme", "globex")
    project.execute("CREATE TABLE globex.extras (id int)")
    for arguments in (
        ("upgrade", "--continue-on-error"),
        ("status",),
        ("plan",),
        ("runs", "list"),
        ("runs", "show", "last"),
    ):
        result = project.run(*arguments, env={"FORCE_COLOR": "1", "NO_COLOR": ""})
        assert not CONTROL.search(result.stdout + result.stderr), arguments
        if arguments[0] == "upgrade":
            lines = result.stderr.splitlines()
            assert re.fullmatch(r"run \S+: upgrade to \S+, 2 tenants", lines[0])
            assert {line.split("  ")[0] for line in lines[1:]} == {"acme", "globex"}
            assert result.stdout.startswith("run ")


def test_verbose_and_json_log(project: Project) -> None:
    """-v tells each revision; --log-format json makes the narration objects, one on each line."""
    project.fleet("acme")
    told = project.run("upgrade", "-v").stderr
    assert re.search(rf"^acme  upgrade {THIRD}  \d+ ms$", told, re.MULTILINE)
    told = project.run("--log-format", "json", "downgrade", "-1", "-t", "acme", "--yes", "--allow-data-loss").stderr
    assert all(line.startswith("{") and line.endswith("}") for line in told.splitlines())


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_is_light(workspace: Workspace, flag: str) -> None:
    """Help and version wait for neither SQLAlchemy nor Alembic nor pydantic."""
    result = workspace.python("-X", "importtime", "-m", "orchestrator", flag)
    assert result.returncode == 0
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in result.stderr.splitlines()}
    assert "click" in imported
    assert not imported & {"sqlalchemy", "alembic", "pydantic", "asyncpg", "rich"}
