"""What a short command waits for: few imports, little garbage collection, no taking apart of the process at its end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_line import THIRD, Project
from tests.workspace import Workspace

#: env.py that leaves a note when the process ends.
_ENV = """
import atexit
from pathlib import Path
from alembic import context
from orchestrator import for_each_tenant

atexit.register(Path("ended").write_text, "yes")


def migrate(connection, tenant):
    context.configure(connection=connection, version_table_schema=tenant.schema, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


for_each_tenant(migrate)
"""


def imported(workspace: Workspace, *args: str) -> set[str]:
    """Names of the modules that a command imports."""
    result = workspace.python("-X", "importtime", "-m", "orchestrator", *args)
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


@pytest.mark.parametrize("command", ["status", "upgrade"])
def test_imports_what_it_needs(project: Project, command: str) -> None:
    """Off a terminal no bar is drawn; error pages and examples of YAML are for others; asyncpg is needed."""
    project.fleet("acme")
    modules = imported(project.workspace, command)
    assert {"asyncpg", "alembic", "sqlalchemy", "orchestrator.fleet.load"} <= modules
    assert not {name.partition(".")[0] for name in modules} & {"rich", "pygments", "ruamel"}


def test_help_starts_no_event_loop(workspace: Workspace) -> None:
    """--help imports the commands' modules, and none of them waits for what only running it needs."""
    assert not imported(workspace, "--help") & {"asyncio", "orchestrator.fleet.load", "orchestrator.journal.records"}


def test_alembic_may_still_colour(project: Project) -> None:
    """Pygments is kept from Alembic's import, not from the process."""
    code = "import orchestrator.history, mako.ext.pygmentplugin as plugin; print(plugin.syntax_highlight.__name__)"
    result = project.workspace.python("-c", code)
    assert result.stdout == "syntax_highlight\n", result.stderr


def test_process_ends_as_promised(project: Project) -> None:
    """What was registered for the end of the process is run."""
    project.fleet("acme")
    project.workspace.write("alembic/env.py", _ENV)
    project.run("status")
    assert project.workspace.path.joinpath("ended").read_text() == "yes"


def test_process_waits_for_its_threads(workspace: Workspace) -> None:
    """A thread that somebody started ends before the process does, and so does the file it writes."""
    code = """
import sys, threading, time
from pathlib import Path
started, go = threading.Event(), threading.Event()

def work():
    started.set()
    threading.main_thread().join()
    Path("worked").write_text("yes")

threading.Thread(target=work).start()
started.wait()
sys.argv[1:] = ["--version"]
from orchestrator.cli import main
main()
"""
    assert workspace.python("-c", code).returncode == 0
    assert workspace.path.joinpath("worked").read_text() == "yes"


def test_exit_code_survives(workspace: Workspace) -> None:
    """The process ends with the command's exit code."""
    assert workspace.run("status").returncode == 2
    assert workspace.run("--version").returncode == 0


def test_full_disk_is_told(workspace: Workspace) -> None:
    """Output that cannot be written is an error, as Python makes it one."""
    device = Path("/dev/full")
    if not device.exists():
        pytest.fail("the tests need /dev/full, which every Linux has")
    with device.open("w") as full:
        command = [sys.executable, "-m", "orchestrator", "--version"]
        result = subprocess.run(command, check=False, cwd=workspace.path, stdout=full, stderr=subprocess.PIPE)
    assert result.returncode != 0


def test_json_is_one_line(project: Project) -> None:
    """The document reaches a pipe whole, with a newline at its end."""
    project.fleet("acme")
    text = project.workspace.run("status", "--json", env={"PYTHONUNBUFFERED": ""}).stdout
    assert text.count("\n") == 1
    assert json.loads(text)["target"] == [THIRD]
