"""Project directories: one history for the orchestrator, for Alembic's cookbook, and as plain SQL; Django's site."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from benchmarks.histories import FIRST, History
from benchmarks.measuring import plain_environment

_FILES = Path(__file__).with_name("peer_files")
_SERVER = "bench"
#: The env.py that the orchestrator's documentation shows.
_ENV = """
from alembic import context
from orchestrator import for_each_tenant


def migrate(connection, tenant):
    context.configure(
        connection=connection, version_table_schema=tenant.schema, transaction_per_migration=True
    )
    with context.begin_transaction():
        context.run_migrations()


for_each_tenant(migrate)
"""
_INI = """
[alembic]
script_location = %(here)s/alembic
path_separator = os
"""


def tenants(count: int) -> list[str]:
    """Their names, which are those of their schemas."""
    return [f"tenant_{number:05}" for number in range(1, count + 1)]


def ours(directory: Path, history: History, url: str, source: Mapping[str, str], at_once: int) -> Path:
    """A project of the orchestrator.

    Args:
        directory: where to make it, replacing what is there.
        history: its revisions.
        url: address of the server, with the database that holds the schemas.
        source: where the tenants are: ``{"schemas": "tenant_*"}`` or ``{"databases": ...}``.
        at_once: the server's ``max_concurrency``.
    """
    _write(directory, history, _ENV, _INI)
    servers = {_SERVER: {"url": url, "max_concurrency": at_once}}
    document = {"servers": servers, "sources": [{**source, "server": _SERVER}]}
    # JSON is YAML.
    (directory / "tenants.yaml").write_text(json.dumps(document), encoding="utf-8")
    return directory


def forget(project: Path) -> None:
    """Remove what earlier runs of the orchestrator left: its journal, and whatever it kept to be quicker next time."""
    shutil.rmtree(project / ".orchestrator", ignore_errors=True)


def cookbook(directory: Path, history: History, url: str) -> Path:
    """A project as Alembic's cookbook has it, with psycopg."""
    address = url.replace("postgresql://", "postgresql+psycopg://", 1).replace("%", "%%")
    _write(directory, history, (_FILES / "cookbook_env.py").read_text(), f"{_INI}sqlalchemy.url = {address}\n")
    return directory


def django(directory: Path) -> Path:
    """The django-tenants site."""
    if not directory.exists():
        shutil.copytree(_FILES / "django_site", directory, ignore=shutil.ignore_patterns("__pycache__"))
    return directory


def bare_asyncpg() -> Path:
    """The script that uses asyncpg alone."""
    return _FILES / "bare_asyncpg.py"


def sql(alembic: Path, project: Path, target: str, start: str | None = None) -> str:
    """What Alembic itself would send, transactions and version table included.

    Args:
        alembic: the program.
        project: made by :func:`cookbook`.
        target: the revision to end at.
        start: the revision to begin at; ``None`` for an empty database.
    """
    span = target if start is None else f"{start}:{target}"
    run = subprocess.run(
        [alembic, "upgrade", span, "--sql"],
        cwd=project,
        env=plain_environment(),
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=60,
    )
    return "\n".join(line for line in run.stdout.splitlines() if line and not line.startswith("--"))


def pending_sql(alembic: Path, project: Path, history: History) -> str:
    """The part of it after the first revision."""
    return sql(alembic, project, history.head, FIRST)


def _write(directory: Path, history: History, env: str, ini: str) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    versions = directory / "alembic" / "versions"
    versions.mkdir(parents=True)
    for name, text in history.files().items():
        (versions / name).write_text(text, encoding="utf-8")
    (directory / "alembic" / "env.py").write_text(env, encoding="utf-8")
    (directory / "alembic.ini").write_text(ini, encoding="utf-8")
