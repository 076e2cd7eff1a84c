"""revision: write a new revision file, through Alembic."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from alembic import command
from alembic.script import Script
from alembic.util import CommandError

from orchestrator.errors import HistoryError, OrchestratorError, UsageError
from orchestrator.fleet.fleet import Fleet
from orchestrator.history.directory import History
from orchestrator.migration.loop import load_loop

#: The environment variable by which env.py is told of a fleet that is not beside alembic.ini.
_CONFIG = "ORCHESTRATOR_CONFIG"


def write_revision(
    fleet: Fleet,
    message: str,
    *,
    autogenerate: bool = False,
    tenant: str | None = None,
    head: str = "head",
    splice: bool = False,
    branch_label: str | None = None,
) -> Path:
    """Do what ``alembic revision`` does, with one tenant as the database to compare the models with.

    Args:
        fleet: as loaded from tenants.yaml.
        message: what the revision is for.
        autogenerate: compare the models with the reference tenant.
        tenant: the reference tenant; ``None`` for the first one that is at its target.
        head: the revision it comes after.
        splice: allow ``head`` to be no head.
        branch_label: name of the branch it starts.

    Returns:
        The file that was written.

    Raises:
        UsageError: there is no message.
        ConfigurationError: env.py cannot be run.
        HistoryError: Alembic refuses.
        OrchestratorError: the reference tenant cannot be read. Whatever is raised, nothing was written.
    """
    if not message.strip():
        raise UsageError("a revision needs a message: it is what colleagues read at night", hint="-m 'add user phone'")
    history = History.beside(fleet.root)
    _check_head(history, head)
    if autogenerate:
        # Alembic is about to run env.py, and would show whatever is wrong there as a traceback.
        load_loop(history)
    config = history.config
    # Where `alembic -x tenant=...` would leave it: env.py's for_each_tenant reads it there.
    config.cmd_opts = argparse.Namespace(x=[f"tenant={tenant}"] if tenant is not None else [])
    try:
        # Alembic tells of its progress on stdout, where a script expects the file's name alone.
        with _fleet_named(fleet), contextlib.redirect_stdout(sys.stderr):
            written = command.revision(
                config, message, autogenerate=autogenerate, head=head, splice=splice, branch_label=branch_label
            )
    except CommandError as error:
        if isinstance(error.__cause__, OrchestratorError):
            raise error.__cause__ from error
        raise HistoryError(str(error), hint=_hint(str(error), history)) from error
    except OSError as error:
        missing = str(error.filename).endswith("script.py.mako")
        raise HistoryError(
            f"the revision cannot be written: {error}",
            hint="take the script.py.mako that `orchestrator init` makes in an empty directory"
            if missing
            else f"see who may write there: ls -ld {history.script.versions}",
        ) from error
    if not isinstance(written, Script):
        raise HistoryError(
            "no revision was written: process_revision_directives in env.py took it back",
            hint="the reference tenant and the models agree, it seems; see: alembic check",
        )
    return Path(written.path)


def _check_head(history: History, head: str) -> None:
    if head == "head" and len(history.heads) > 1:
        raise HistoryError(
            f"the directory has {len(history.heads)} heads ({', '.join(history.heads)}): after which one?",
            hint=f"name it: --head {history.heads[0]}; or join them first: alembic merge -m 'merge heads' heads",
        )
    history.resolve(head)


def _hint(refusal: str, history: History) -> str:
    """What to do about a refusal, by what Alembic's text says."""
    if "not up to date" in refusal:
        return "bring the reference tenant to the head first: orchestrator upgrade; or take another one: -t TENANT"
    if "MetaData" in refusal:
        return f"set target_metadata in {history.script.env_py_location} to your tables' MetaData"
    if "--splice" in refusal:
        return "add --splice to start a branch there, or leave --head out"
    return "look at the revisions with: alembic history"


@contextlib.contextmanager
def _fleet_named(fleet: Fleet) -> Iterator[None]:
    """Let env.py find this fleet, and leave the environment as it was."""
    before = os.environ.get(_CONFIG)
    os.environ[_CONFIG] = str(fleet.path)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_CONFIG]
        else:
            os.environ[_CONFIG] = before
