"""Traps of scope: public, search_path, env.py, names. Each is walked into on purpose; DESIGN.md lists them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.projects import (
    ACCOUNTS,
    ALL,
    ENV,
    PROJECTS,
    make_project,
    one,
    schemas,
    statuses,
    tables,
)
from tests.servers import execute, fetch
from tests.workspace import Workspace


def env_with(before: str = "", configure: str = "", after: str = "") -> str:
    """The usual env.py with statements before configure, arguments to it, and statements in place of the run."""
    text = ENV.replace("    context.configure(", f"    {before}\n    context.configure({configure}")
    return text if not after else text.replace("        context.run_migrations()", f"        {after}")


async def test_public_at_head_does_not_stand_for_a_tenant(tmp_path: Path, database: str) -> None:
    """The same application in public, at head, makes no tenant current and is not touched."""
    execute(
        database,
        "CREATE TABLE accounts (own int); CREATE TABLE alembic_version (version_num text);"
        " INSERT INTO alembic_version VALUES ('r2')",
    )
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": 'op.drop_table("accounts")'}, schemas(database, "a", "b"))

    result = await project.upgrade()

    assert statuses(result) == {"a": "succeeded", "b": "succeeded"}
    assert [one(result, id)["from"] for id in "ab"] == [[], []]
    assert tables(database, "public") == {"accounts", "alembic_version"}
    assert tables(database, "a") == tables(database, "b") == {"alembic_version"}


async def test_env_that_sets_search_path_without_commit(tmp_path: Path, database: str) -> None:
    """An env.py that executes SET search_path first does not have its migrations rolled back at close."""
    env = env_with(before="connection.exec_driver_sql(f'SET search_path TO \"{tenant.schema}\"')")
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": PROJECTS}, schemas(database, "a", "b"), env)

    result = await project.upgrade()

    assert statuses(result) == {"a": "succeeded", "b": "succeeded"}
    assert tables(database, "a") == {"accounts", "projects", "alembic_version"}


async def test_env_that_sets_local_search_path(tmp_path: Path, database: str) -> None:
    """An env.py with SET LOCAL to public in front does not lead the migrations there."""
    env = env_with(before="connection.exec_driver_sql('SET LOCAL search_path TO public')")
    project = make_project(tmp_path, {"r1": ACCOUNTS}, schemas(database, "a"), env)

    assert statuses(await project.upgrade()) == {"a": "succeeded"}
    assert tables(database, "a") == {"accounts", "alembic_version"}
    assert tables(database, "public") == set()


async def test_env_that_forgets_version_table_schema(tmp_path: Path, database: str) -> None:
    """The version table lies in the tenant's schema although env.py does not say so."""
    execute(database, "CREATE TABLE alembic_version (version_num text); INSERT INTO alembic_version VALUES ('r1')")
    env = ENV.replace("version_table_schema=tenant.schema, ", "")
    project = make_project(tmp_path, {"r1": ACCOUNTS}, schemas(database, "a"), env)

    assert statuses(await project.upgrade()) == {"a": "succeeded"}
    assert tables(database, "a") == {"accounts", "alembic_version"}


async def test_env_that_passes_another_tenants_version_table(tmp_path: Path, database: str) -> None:
    """version_table_schema of another tenant is refused before anything is read or written there."""
    env = ENV.replace("version_table_schema=tenant.schema", 'version_table_schema="a"')
    project = make_project(tmp_path, {"r1": ACCOUNTS}, schemas(database, "a", "b"), env)

    result = await project.upgrade(execution=ALL)

    assert statuses(result) == {"a": "succeeded", "b": "failed"}
    assert "version_table_schema='a'" in one(result, "b")["error"]["message"]
    assert "version_table_schema=tenant.schema" in one(result, "b")["error"]["hint"]
    assert tables(database, "b") == set()


async def test_env_that_runs_nothing(tmp_path: Path, database: str) -> None:
    """An env.py that never calls run_migrations makes the tenant failed, not succeeded."""
    project = make_project(tmp_path, {"r1": ACCOUNTS}, schemas(database, "a"), env_with(after="pass"))

    result = await project.upgrade()

    assert statuses(result) == {"a": "failed"}
    assert one(result, "a")["error"]["type"] == "not_run"
    assert "run_migrations()" in one(result, "a")["error"]["hint"]


async def test_env_that_never_commits(tmp_path: Path, database: str) -> None:
    """An env.py without begin_transaction leaves its work to be rolled back: failed, by the version table."""
    env = ENV.replace("    with context.begin_transaction():\n        ", "    ").replace(
        "transaction_per_migration=True", "transaction_per_migration=False"
    )
    project = make_project(tmp_path, {"r1": ACCOUNTS}, schemas(database, "a"), env)

    result = await project.upgrade()

    assert statuses(result) == {"a": "failed"}
    assert one(result, "a")["error"]["type"] == "not_committed"
    assert one(result, "a")["to"] == []


async def test_search_path_survives_an_autocommit_block(tmp_path: Path, database: str) -> None:
    """Statements inside, between and after autocommit blocks stay in the tenant's schema."""
    body = """
        op.execute("CREATE TABLE before (id int)")
        with op.get_context().autocommit_block():
            op.execute("CREATE TABLE inside (id int)")
            op.execute("CREATE INDEX CONCURRENTLY ix_before ON before (id)")
        op.execute("CREATE TABLE after (id int)")
        with op.get_context().autocommit_block():
            op.execute("CREATE TABLE again (id int)")
    """
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": body, "r3": PROJECTS}, schemas(database, "a", "b"))

    assert statuses(await project.upgrade()) == {"a": "succeeded", "b": "succeeded"}
    names = {"accounts", "before", "inside", "after", "again", "projects", "alembic_version"}
    assert tables(database, "a") == tables(database, "b") == names
    assert tables(database, "public") == set()


@pytest.mark.parametrize(
    "change",
    [
        "SET search_path TO public",
        "SET LOCAL search_path TO public",
        "RESET search_path",
        "SELECT set_config('search_path', '', false)",
    ],
)
async def test_migration_that_leaves_the_schema(tmp_path: Path, database: str, change: str) -> None:
    """A revision that turns search_path away fails and is rolled back: nothing of it is left elsewhere."""
    body = f'op.execute("{change}")\nop.execute("CREATE TABLE IF NOT EXISTS public.elsewhere (id int)")'
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": body, "r3": PROJECTS}, schemas(database, "a"))

    result = await project.upgrade()

    found = one(result, "a")
    assert (found["status"], found["to"], found["error"]["revision"]) == ("failed", ["r1"], "r2")
    assert "search_path" in found["error"]["message"]
    assert (tables(database, "a"), tables(database, "public")) == ({"accounts", "alembic_version"}, set())


async def test_migration_that_leaves_the_schema_and_comes_back(tmp_path: Path, database: str) -> None:
    """A revision may turn search_path away and back again."""
    body = """
        own = op.get_bind().exec_driver_sql("SHOW search_path").scalar()
        op.execute("SET search_path TO public")
        op.execute(f"SET search_path TO {own}")
    """
    project = make_project(tmp_path, {"r1": body, "r2": PROJECTS}, schemas(database, "a"))

    assert statuses(await project.upgrade()) == {"a": "succeeded"}
    assert tables(database, "a") == {"projects", "alembic_version"}


async def test_enum_of_the_same_name_in_public(tmp_path: Path, database: str) -> None:
    """A column's ENUM is the tenant's own type, although public has one of that name."""
    execute(database, "CREATE TYPE mood AS ENUM ('other')")
    body = """
        from sqlalchemy.dialects.postgresql import ENUM
        mood = ENUM("good", "bad", name="mood", create_type=False)
        mood.create(op.get_bind(), checkfirst=True)
        op.create_table("people", sa.Column("mood", mood))
        op.execute("INSERT INTO people VALUES ('good')")
    """
    project = make_project(tmp_path, {"r1": body}, schemas(database, "a", "b"))

    assert statuses(await project.upgrade()) == {"a": "succeeded", "b": "succeeded"}
    used = "SELECT table_schema, udt_schema FROM information_schema.columns WHERE column_name = 'mood' ORDER BY 1"
    assert [tuple(row) for row in fetch(database, used)] == [("a", "a"), ("b", "b")]


async def test_revision_with_global_state_runs_one_tenant_at_a_time(tmp_path: Path, database: str) -> None:
    """A module's global is written and read by one tenant before the next one enters the file."""
    body = """
        current = None

        def upgrade():
            global current
            connection = op.get_bind()
            current = connection.exec_driver_sql("SELECT current_schema()").scalar()
            for _ in range(10):
                connection.exec_driver_sql("SELECT 1")
            op.create_table(f"of_{current}", sa.Column("id", sa.Integer))

        def downgrade():
            pass
    """
    ids = [f"t{number}" for number in range(8)]
    project = make_project(tmp_path, {"r1": body}, schemas(database, *ids))

    assert set(statuses(await project.upgrade()).values()) == {"succeeded"}
    assert {id: tables(database, id) for id in ids} == {id: {f"of_{id}", "alembic_version"} for id in ids}


@pytest.mark.parametrize("given", ["noted", "[noted]"], ids=["function", "list"])
async def test_on_version_apply_of_env_is_called(tmp_path: Path, database: str, given: str) -> None:
    """A callback that env.py hands to Alembic is called for each revision, as one function or as a list."""
    env = env_with(configure=f"on_version_apply={given}, ").replace(
        "def migrate",
        "def noted(*, ctx, step, **kw):\n"
        "    ctx.connection.exec_driver_sql(f\"INSERT INTO noted VALUES ('{step.up_revision_id}')\")\n\n\ndef migrate",
    )
    first = 'op.execute("CREATE TABLE noted (revision text)")'
    project = make_project(tmp_path, {"r1": first, "r2": PROJECTS}, schemas(database, "a"), env)

    assert statuses(await project.upgrade()) == {"a": "succeeded"}
    assert [row[0] for row in fetch(database, "SELECT revision FROM a.noted ORDER BY 1")] == ["r1", "r2"]


NAMES = [
    'we"ird',
    "o'brien",
    "two words",
    "Großkunde-日本",
    "a.b",
    "percent%s:bind",
    "x" * 63,
    "ж" * 31,
    "{brace}",
    "back\\slash",
]


async def test_names_that_need_quoting(tmp_path: Path, database: str) -> None:
    """Schemas with quotes, spaces, other scripts and full length are made, migrated, read and left alone by others."""
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": PROJECTS}, schemas(database, *NAMES))

    result = await project.upgrade(execution=ALL)

    wanted = {"accounts", "projects", "alembic_version"}
    assert statuses(result) == dict.fromkeys(NAMES, "succeeded")
    assert {name: tables(database, name) for name in NAMES} == dict.fromkeys(NAMES, wanted)
    assert tables(database, "public") == set()


async def test_inspector_sees_the_tenants_own_schema(tmp_path: Path, database: str) -> None:
    """default_schema_name is the tenant's own, also for tenants that are migrated at the same time."""
    execute(database, "CREATE TABLE elsewhere (id int)")
    body = """
        inspector = sa.inspect(op.get_bind())
        own = op.get_bind().exec_driver_sql("SELECT current_schema()").scalar()
        assert inspector.default_schema_name == own, (inspector.default_schema_name, own)
        assert set(inspector.get_table_names()) == {"alembic_version", f"of_{own}"}, inspector.get_table_names()
    """
    first = """
        own = op.get_bind().exec_driver_sql("SELECT current_schema()").scalar()
        op.create_table(f"of_{own}", sa.Column("id", sa.Integer))
    """
    ids = [f"t{number}" for number in range(12)]
    project = make_project(tmp_path, {"r1": first, "r2": body}, schemas(database, *ids))

    assert statuses(await project.upgrade(execution=ALL)) == dict.fromkeys(ids, "succeeded")


def test_arguments_of_plain_alembic_reach_a_migration(tmp_path: Path, database: str) -> None:
    """What stands after -x on plain Alembic's command line is read in a migration, by context and by its config."""
    body = """
        op.create_table(context.get_x_argument(as_dictionary=True)["name"], sa.Column("id", sa.Integer))
        assert context.config.cmd_opts.x == ["name=of_x"]
    """
    execute(database, "CREATE SCHEMA a; CREATE SCHEMA b")
    make_project(tmp_path, {"r1": body}, schemas(database, "a", "b"))

    ran = Workspace(tmp_path).python("-m", "alembic", "-x", "name=of_x", "upgrade", "head")

    assert ran.returncode == 0, ran.stderr
    assert tables(database, "a") == tables(database, "b") == {"of_x", "alembic_version"}
