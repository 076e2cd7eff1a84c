"""demo: the main job on a throw-away fleet, with real commands on two real servers. Leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from orchestrator.databases.embedded import EmbeddedServer
from orchestrator.databases.server_binaries import clean_environment
from orchestrator.errors import OrchestratorError

#: What the example project consists of.
_PROJECT = ("alembic.ini", "alembic", "examples/saas", "tenants.yaml")
#: The example history's last revision; the demo adds one after it.
_LAST, _NEW = "5ce7308fb946", "d3b07384d113"
_REVISION = f'''"""give every account a name of its own

Revision ID: {_NEW}
Revises: {_LAST}
"""

from alembic import op

revision = "{_NEW}"
down_revision = "{_LAST}"


def upgrade() -> None:
    op.create_unique_constraint("uq_accounts_name", "accounts", ["name"])


def downgrade() -> None:
    op.drop_constraint("uq_accounts_name", "accounts")
'''
#: The tenant that is made to fail, and its database on the first server.
_TROUBLED, _TROUBLED_DATABASE = "initech", "initech_prod"
_PLANT = "INSERT INTO accounts (name, slug) VALUES ('Initech', 'initech'), ('Initech', 'initech-2')"
_FIX = "UPDATE accounts SET name = 'Initech (2)' WHERE slug = 'initech-2'"
#: A quick start is no place to wait for disks.
_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclass(frozen=True, slots=True)
class Ran:
    """One command of the demo."""

    command: str
    exit_code: int


def demo(say: Callable[[str], None], output: int | None = None) -> list[Ran]:
    """Show the main job: migrate all, meet a failing tenant, mend it, resume, take two tenants back.

    Args:
        say: narrates what is about to happen.
        output: file descriptor that the commands' stdout goes to; ``None`` for this process's own.

    Returns:
        The commands that were run, with their exit codes.

    Raises:
        OrchestratorError: no PostgreSQL binaries, no example project, or a command ended otherwise than it should.
    """
    ran: list[Ran] = []
    with _project() as (directory, environment, troubled):

        def run(*arguments: str, expected: int = 0) -> None:
            command = "orchestrator " + " ".join(arguments)
            say(f"\n$ {command}")
            done = subprocess.run(
                [sys.executable, "-m", "orchestrator", *arguments],
                cwd=directory,
                env=environment,
                stdout=output,
                stdin=subprocess.DEVNULL,
                check=False,
            )
            ran.append(Ran(command, done.returncode))
            if done.returncode != expected:
                raise OrchestratorError(f"`{command}` ended with {done.returncode} instead of {expected}")

        say("# 14 tenants on two servers, and nothing made for them yet: every schema and database is to be created")
        run("upgrade", "--provision")
        run("status")
        say(f"\n# a new revision wants unique account names; {_TROUBLED} has two accounts of one name")
        (directory / "alembic" / "versions" / f"2025_10_06_unique_account_names_{_NEW}.py").write_text(_REVISION)
        asyncio.run(_execute(troubled, _PLANT))
        run("upgrade", "--jobs", "1", expected=1)
        run("status")
        say(f"\n# the fix, in {_TROUBLED}'s database: {_FIX}")
        asyncio.run(_execute(troubled, _FIX))
        run("resume")
        say("\n# two customers want the old behaviour back")
        run("downgrade", _LAST, "-t", "acme", "-t", "jaguar", "--yes", "--allow-data-loss")
        run("status")
        run("runs", "list")
    return ran


@contextmanager
def _project() -> Iterator[tuple[Path, dict[str, str], str]]:
    """The example project in a directory of its own, two servers, and the address of the troubled tenant."""
    source = _example()
    with (
        tempfile.TemporaryDirectory(prefix="orchestrator-demo-") as name,
        EmbeddedServer.start(settings=_FAST) as main,
        EmbeddedServer.start(settings=_FAST) as europe,
    ):
        directory = Path(name)
        for part in _PROJECT:
            if (source / part).is_dir():
                shutil.copytree(source / part, directory / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source / part, directory / part)
        environment = {
            **clean_environment(),
            "MAIN_URL": main.url.removesuffix("postgres") + "app",
            "EU_URL": europe.url.removesuffix("postgres") + "app",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        environment.pop("ORCHESTRATOR_CONFIG", None)
        yield directory, environment, main.url.removesuffix("postgres") + _TROUBLED_DATABASE


def _example() -> Path:
    """The example project: inside an installed package, or the checkout around it."""
    package = Path(__file__).resolve().parents[1]
    for place in (package / "example", package.parent):
        if all((place / part).exists() for part in _PROJECT):
            return place
    raise OrchestratorError("the example project is not here", hint="run the demo from a checkout: make demo")


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
