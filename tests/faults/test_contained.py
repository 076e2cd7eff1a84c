"""Migrations that misbehave on one tenant: it ends with a clear word, and the others are migrated right.

The tenants are migrated one by one, the misbehaving one in their midst: whatever it leaves in its connection, in the
task or in the event loop is met by those that follow.
"""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import pytest

import orchestrator
from orchestrator.actions.execute import Execution
from tests.catalog import catalogs, difference
from tests.projects import ACCOUNTS, PROJECTS, Project, make_project, one, schemas, statuses, tables
from tests.replays import paths
from tests.workspace import Workspace

TENANTS = ["a", "b", "c", "d", "e"]
#: The one that misbehaves; two others have been recorded by then.
BAD = "c"
ONE_BY_ONE = Execution(jobs=1, continue_on_error=True)
#: Quick about what is tried again, and about what hangs.
POLICY = {"statement_timeout": "500ms", "retries": 1}


def misbehaving(path: Path, url: str, deed: str) -> Project:
    """A second revision that makes a table and then, for one tenant, does ``deed``."""
    body = f"""
op.create_table("before", sa.Column("id", sa.Integer))
if op.get_bind().exec_driver_sql("SELECT current_schema()").scalar() == {BAD!r}:
{indent(dedent(deed).strip(), "    ")}
"""
    return make_project(path, {"r1": ACCOUNTS, "r2": body, "r3": PROJECTS}, schemas(url, *TENANTS, policy=POLICY))


def assert_others_are_right(result: orchestrator.RunResult, url: str) -> None:
    """Everybody else has all of the history, and nothing else."""
    assert {**statuses(result), BAD: "?"} == {**dict.fromkeys(TENANTS, "succeeded"), BAD: "?"}
    held = catalogs(url, [*TENANTS, "public"])
    assert {name for name in held["a"] if name.startswith("rows")} == {
        *("rows accounts", "rows before", "rows projects", "rows alembic_version")
    }
    for tenant in set(TENANTS) - {BAD}:
        assert not difference(held["a"], held[tenant]), tenant
    assert not held["public"]


#: What a revision raises, and what the failure says.
RAISED = {
    "raise SystemExit('no more')": ("SystemExit", "no more"),
    "import sys; sys.exit(3)": ("SystemExit", "3"),
    "raise KeyboardInterrupt": ("KeyboardInterrupt", "KeyboardInterrupt"),
    "import asyncio; raise asyncio.CancelledError('its own')": ("CancelledError", "its own"),
    "raise BaseException('bare')": ("BaseException", "bare"),
    "raise GeneratorExit": ("GeneratorExit", "GeneratorExit"),
    "raise TimeoutError('its own')": ("TimeoutError", "its own"),
    "def f(): f()\nf()": ("RecursionError", "maximum recursion depth"),
    "raise StopIteration": ("RuntimeError", "StopIteration"),
    "op.get_bind().begin()": ("InvalidRequestError", "begin()"),
    "op.get_bind().close()": ("ResourceClosedError", "closed"),
    """
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor() as threads:
        threads.submit(op.execute, "CREATE TABLE elsewhere (id int)").result()
    """: ("NameError", "outside of a tenant's migration"),
    "op.execute('SELECT pg_sleep(60)')": ("QueryCanceledError", "statement timeout"),
    "op.get_bind().rollback()": ("DatabaseError", "rolled back what it had done"),
    "raise RuntimeError": ("RuntimeError", ""),
}


@pytest.mark.parametrize("deed", RAISED)
async def test_raised(tmp_path: Path, database: str, deed: str) -> None:
    """Whatever a revision raises fails its own tenant, once, with the revision's name, and leaves nothing of it."""
    kind, message = RAISED[deed]
    project = misbehaving(tmp_path, database, deed)

    result = await project.upgrade(execution=ONE_BY_ONE)

    found = one(result, BAD)
    assert (found["status"], found["to"], found["attempts"]) == ("failed", ["r1"], 1), found
    assert (found["error"]["type"], found["error"]["revision"]) == (kind, "r2")
    assert message in found["error"]["message"]
    assert found["error"]["hint"] or kind == "RuntimeError"
    assert tables(database, BAD) == {"accounts", "alembic_version"}
    assert_others_are_right(result, database)


#: How a revision loses its connection.
LOST = [
    "op.execute('SELECT pg_terminate_backend(pg_backend_pid())')",
    "op.get_bind().invalidate()",
    "op.get_bind().engine.dispose()",
    "from sqlalchemy.util import await_only; await_only(op.get_bind().connection.driver_connection.close())",
]


@pytest.mark.parametrize("deed", LOST)
async def test_lost(tmp_path: Path, database: str, deed: str) -> None:
    """A revision that loses its connection each time is `unknown` after the last try, and half of it is nowhere."""
    project = misbehaving(tmp_path, database, deed)

    result = await project.upgrade(execution=ONE_BY_ONE)

    found = one(result, BAD)
    assert (found["status"], found["attempts"], found["error"]["revision"]) == ("unknown", 2, "r2")
    assert tables(database, BAD) == {"accounts", "alembic_version"}
    assert_others_are_right(result, database)


#: What a revision leaves behind, or does on the side, that Alembic alone puts up with as well.
HARMLESS = [
    "op.execute('BEGIN')",
    "op.get_bind().begin_nested()",
    "op.execute('SAVEPOINT mine')",
    "op.execute('DECLARE mine CURSOR WITH HOLD FOR SELECT generate_series(1, 1000)')",
    "op.execute('PREPARE mine AS SELECT 1')",
    "op.execute('CREATE TEMP TABLE projects (id text)'); op.execute('SELECT pg_advisory_lock(1)')",
    "op.get_bind().execute(sa.text('SELECT generate_series(1, 9999)'), execution_options={'stream_results': True})",
    "op.get_bind().exec_driver_sql('SELECT generate_series(1, 9999)').fetchone()",
    "import threading; threading.Thread(target=print).start()",
    "import warnings; warnings.simplefilter('ignore')",
    "import asyncio; asyncio.get_running_loop().create_task(asyncio.sleep(0))",
    "op.get_bind().detach()",
    # Connections of the engine: each is one of its own, in the tenant's scope.
    "assert set(sa.inspect(op.get_bind().engine).get_table_names()) == {'accounts', 'alembic_version'}",
    "with op.get_bind().engine.connect() as other: other.exec_driver_sql('INSERT INTO accounts VALUES (1)')",
    "op.get_bind().engine.connect().exec_driver_sql('SELECT 1')",
    "try: op.get_bind().engine.raw_connection().cursor().execute('nonsense')\nexcept Exception: pass",
    # Nothing had been done in the transactions that are rolled back.
    "op.execute('COMMIT'); op.execute('ROLLBACK')",
]


@pytest.mark.filterwarnings("ignore:The garbage collector is trying to clean up:sqlalchemy.exc.SAWarning")
@pytest.mark.parametrize("deed", HARMLESS)
async def test_harmless(tmp_path: Path, database: str, deed: str) -> None:
    """A transaction, cursor, thread or connection that a revision leaves open is met by nobody after it."""
    project = misbehaving(tmp_path, database, deed)

    result = await project.upgrade(execution=ONE_BY_ONE)

    found = one(result, BAD)
    assert (found["status"], found["to"], found["attempts"]) == ("succeeded", ["r3"], 1), found
    held = catalogs(database, ["a", BAD])
    assert not difference(held["a"], held[BAD])
    assert_others_are_right(result, database)


#: How a revision leaves its transaction and fails afterwards.
STAYING = [
    "op.execute('COMMIT'); op.execute('SELECT 1 / 0')",
    "op.execute('ROLLBACK'); op.execute('CREATE TABLE inside (id int)'); op.execute('SELECT 1 / 0')",
    "op.execute('abort work;'); op.execute('CREATE TABLE inside (id int)'); op.execute('SELECT 1 / 0')",
    """
    with op.get_bind().engine.begin() as other:
        other.exec_driver_sql("CREATE TABLE inside (id int)")
    op.execute("SELECT 1 / 0")
    """,
    """
    with op.get_bind().engine.execution_options(isolation_level="AUTOCOMMIT").connect() as other:
        other.exec_driver_sql("CREATE TABLE inside (id int)")
    op.execute("SELECT 1 / 0")
    """,
]


@pytest.mark.parametrize("deed", STAYING)
async def test_staying(tmp_path: Path, database: str, deed: str) -> None:
    """What a revision has committed on the side stays: the tenant is `partial`, not merely failed."""
    project = misbehaving(tmp_path, database, deed)

    result = await project.upgrade(execution=ONE_BY_ONE)

    found = one(result, BAD)
    assert (found["status"], found["to"], found["attempts"]) == ("partial", ["r1"], 1), found
    assert (found["error"]["sqlstate"], found["error"]["revision"]) == ("22012", "r2")
    assert len(tables(database, BAD)) == 3
    assert_others_are_right(result, database)


async def test_a_version_that_would_stand_for_nothing(tmp_path: Path, database: str) -> None:
    """A revision that rolls its own work back by text has run outside its transaction since: partial, never done."""
    project = misbehaving(tmp_path, database, "op.execute('ROLLBACK')")

    result = await project.upgrade(execution=ONE_BY_ONE)

    found = one(result, BAD)
    assert (found["status"], found["error"]["revision"]) == ("partial", "r2")
    assert "rolled back what it had done" in found["error"]["message"]
    assert_others_are_right(result, database)


#: SQL that misbehaves by itself, on a tenant that is replayed; how often it is tried, and the code that it ends with.
IN_SQL = {
    "SELECT pg_sleep(60) WHERE current_schema() = 'c'": ("failed", 1, "57014"),
    "SELECT 1 / CASE current_schema() WHEN 'c' THEN 0 ELSE 1 END": ("failed", 1, "22012"),
    "SELECT pg_terminate_backend(pg_backend_pid()) WHERE current_schema() = 'c'": ("unknown", 2, None),
    "DO $$BEGIN IF current_schema() = 'c' THEN RAISE 'not here'; END IF; END$$": ("failed", 1, "P0001"),
    "DO $$BEGIN IF current_schema() = 'c' THEN COMMIT; END IF; END$$": ("failed", 1, "2D000"),
    "DO $$BEGIN IF current_schema() = 'c' THEN PERFORM pg_sleep(60); END IF; END$$": ("failed", 1, "57014"),
}


@pytest.mark.parametrize("sql", IN_SQL)
async def test_in_a_replay(tmp_path: Path, database: str, sql: str) -> None:
    """SQL that hangs, fails or kills its backend when replayed ends its tenant alone; those after it are replayed."""
    status, attempts, code = IN_SQL[sql]
    body = f'op.create_table("before", sa.Column("id", sa.Integer))\nop.execute("{sql}")'
    tenants = schemas(database, *TENANTS, policy=POLICY)
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": body, "r3": PROJECTS}, tenants)

    result = await project.upgrade(execution=ONE_BY_ONE)

    found = one(result, BAD)
    assert (found["status"], found["attempts"], found["error"]["revision"]) == (status, attempts, "r2"), found
    assert code in (found["error"]["sqlstate"], None)
    assert tables(database, BAD) == {"accounts", "alembic_version"}
    assert {tenant: paths(result)[tenant] for tenant in "de"} == {"d": "replay", "e": "replay"}
    assert_others_are_right(result, database)


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "BaseException", "asyncio.CancelledError"])
async def test_raised_by_env_py_for_one_tenant(tmp_path: Path, database: str, error: str) -> None:
    """What env.py's migrate() raises for one tenant, asked for a replay or run, is that tenant's alone."""
    env = f"""
import asyncio

from alembic import context
from orchestrator import for_each_tenant


def migrate(connection, tenant):
    if tenant.id == {BAD!r}:
        raise {error}("not this one")
    context.configure(connection=connection, version_table_schema=tenant.schema, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


for_each_tenant(migrate)
"""
    before = 'op.create_table("before", sa.Column("id", sa.Integer))'
    tenants = schemas(database, *TENANTS, policy=POLICY)
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": before, "r3": PROJECTS}, tenants, env)

    result = await project.upgrade(execution=ONE_BY_ONE)

    found = one(result, BAD)
    assert (found["status"], found["error"]["message"]) == ("failed", "not this one")
    assert paths(result)["e"] == "replay"
    assert_others_are_right(result, database)


def test_on_the_command_line(tmp_path: Path, database: str) -> None:
    """KeyboardInterrupt raised by a migration is a failed tenant there too, exit code 1, no interrupt."""
    misbehaving(tmp_path, database, "raise KeyboardInterrupt")
    document = Workspace(tmp_path).json("upgrade", "--provision", "--continue-on-error", exit_code=1)

    assert (document["status"], document["summary"]) == ("failed", {"succeeded": 4, "failed": 1})
    (failed,) = [tenant for tenant in document["tenants"] if tenant["status"] == "failed"]
    assert (failed["tenant"], failed["error"]["type"]) == (BAD, "KeyboardInterrupt")


def test_a_process_that_a_migration_ends(tmp_path: Path, database: str) -> None:
    """os._exit() takes the process with it, which nothing can keep from it; resume does the rest once it is mended."""
    project = misbehaving(tmp_path, database, "import os; os._exit(9)")
    workspace = Workspace(tmp_path)
    assert workspace.run("upgrade", "--provision", "--jobs", "1").returncode == 9
    left = workspace.json("runs", "show", "last")
    assert left["status"] == "interrupted"

    file = project.path / "alembic" / "versions" / "r2.py"
    file.write_text(file.read_text().replace("import os; os._exit(9)", "pass"))
    resumed = workspace.json("resume", "--accept-edited", "r2")

    assert (resumed["run"], resumed["summary"]) == (left["run"], {"succeeded": 5})
    held: dict[str, Any] = catalogs(database, TENANTS)
    assert not any(difference(held["a"], held[tenant]) for tenant in TENANTS)


def test_only_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Python's own handler listens, KeyboardInterrupt is a Ctrl-C, and ends the run."""
    import signal

    from orchestrator.migration.containment import is_its_own

    monkeypatch.setattr(signal, "getsignal", lambda _: signal.default_int_handler)
    assert not is_its_own(KeyboardInterrupt())
    monkeypatch.setattr(signal, "getsignal", lambda _: sys.excepthook)
    assert is_its_own(KeyboardInterrupt())
