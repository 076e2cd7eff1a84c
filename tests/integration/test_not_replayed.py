"""What must never be replayed: whatever may come out differently for another tenant, or does more than it tells."""

from __future__ import annotations

import logging
from pathlib import Path
from textwrap import indent

import pytest

from tests.catalog import catalogs
from tests.projects import ACCOUNTS, ENV, PROJECTS, make_project, one, schemas, statuses, tables
from tests.replays import EMPTY, paths, reasons, revisions
from tests.servers import execute, fetch
from tests.workspace import Workspace

IDS = ("a", "b", "c", "d")
SUCCEEDED = dict.fromkeys(IDS, "succeeded")
ALEMBIC = dict.fromkeys(IDS, "alembic")
REPLAYED = {"a": "alembic", "b": "alembic", "c": "replay", "d": "replay"}
MIXED = {"a": "alembic", "b": "alembic", "c": "mixed", "d": "mixed"}

#: What is different for every tenant, without being foreseen.
DISTINCT = "distinct"
_INSERT = "op.execute(f\"INSERT INTO seen VALUES ('{found}')\")"
_TABLE = "seen = sa.Table('seen', sa.MetaData(), sa.Column('what', sa.Text, default=lambda: str(uuid.uuid4())))"
#: A revision between two that may be replayed, and what is in the table ``seen`` afterwards; ``{id}`` is the tenant's.
REVISIONS = {
    "reads a row": (
        f"found = op.get_bind().exec_driver_sql('SELECT name FROM site').scalar()\n{_INSERT}",
        "site of {id}",
    ),
    "asks for the schema": (
        f"found = op.get_bind().exec_driver_sql('SELECT current_schema()').scalar()\n{_INSERT}",
        "{id}",
    ),
    "inspects": (
        f"(found,) = [n for n in sa.inspect(op.get_bind()).get_table_names() if n.startswith('only_')]\n{_INSERT}",
        "only_{id}",
    ),
    "counts rows": (
        'done = op.get_bind().exec_driver_sql("UPDATE site SET name = name WHERE name = current_schema()")\n'
        f"found = done.rowcount + 5\n{_INSERT}",
        "5",
    ),
    "uuid": (f"import uuid\nfound = uuid.uuid4()\n{_INSERT}", DISTINCT),
    "bound uuid": (f"import uuid\n{_TABLE}\nop.execute(seen.insert().values(what=str(uuid.uuid4())))", DISTINCT),
    "a default of Python's": (f"import uuid\n{_TABLE}\nop.bulk_insert(seen, [{{}}])", DISTINCT),
    "now": (f"from datetime import datetime\nfound = datetime.now()\n{_INSERT}", DISTINCT),
    "state": (f"found = next(_numbers)\n{_INSERT}", DISTINCT),
    "the environment": (f"import os\nfound = 'HOME' in os.environ\n{_INSERT}", "True"),
    "the context": (f"found = op.get_context().opts['version_table_schema']\n{_INSERT}", "{id}"),
    "the dialect": (f"found = op.get_bind().dialect.default_schema_name\n{_INSERT}", "{id}"),
    "a caught error": (
        "op.execute('SAVEPOINT x')\nfound = 'there'\n"
        "try:\n    op.execute('SELECT * FROM only_a')\n"
        f"except Exception:\n    op.execute('ROLLBACK TO x')\n    found = 'missing'\n{_INSERT}",
        "there missing",
    ),
    "an autocommit block": (
        "with op.get_context().autocommit_block():\n    op.execute('CREATE INDEX CONCURRENTLY ix_seen ON seen (what)')",
        None,
    ),
    "a savepoint": ("with op.get_bind().begin_nested():\n    op.execute(\"INSERT INTO seen VALUES ('x')\")", "x"),
    "a savepoint in text": ('op.execute("SAVEPOINT x")\nop.execute("RELEASE x")', None),
    "COMMIT": ('op.execute("COMMIT")\nop.execute("INSERT INTO seen VALUES (\'x\')")\nop.execute("COMMIT")', "x"),
    "END": ('op.execute("/* now */ END")\nop.execute("INSERT INTO seen VALUES (\'x\')")\nop.execute("COMMIT")', "x"),
    "search_path": (
        "op.execute(\"SELECT set_config('own.path', current_setting('search_path'), true)\")\n"
        'op.execute("SET search_path TO public")\n'
        "op.execute(\"SELECT set_config('search_path', current_setting('own.path'), false)\")",
        None,
    ),
    "a setting": ("op.execute(\"SET work_mem = '5MB'\")", None),
    "a role": ('op.execute("SET ROLE NONE")', None),
}
_SETUP = 'op.create_table("seen", sa.Column("what", sa.Text))'
_MODULE = "import itertools\n\n_numbers = itertools.count()\n\n\ndef upgrade():\n{body}\n\n\ndef downgrade():\n    pass"


@pytest.fixture
def database(shared_database: str) -> str:
    """Address of an empty database."""
    execute(shared_database, EMPTY)
    return shared_database


def env_with(before: str = "", configure: str = "", run: str = "", after: str = "", module: str = "") -> str:
    """The usual env.py with statements before configure, arguments to it, to the run, after it, and above migrate."""
    text = ENV.replace("    context.configure(", f"    {before or 'pass'}\n    context.configure({configure}")
    text = text.replace("run_migrations()", f"run_migrations({run})").replace(
        "def migrate", f"{module}\n\n\ndef migrate"
    )
    return text.replace("\n\nfor_each_tenant", f"    {after or 'pass'}\n\n\nfor_each_tenant")


def sites(*ids: str) -> str:
    """Tenants that are not alike: a row of its own in each, and a table that only one has."""
    made = (
        f"CREATE SCHEMA {id}; CREATE TABLE {id}.site AS SELECT 'site of {id}' AS name; CREATE TABLE {id}.only_{id} ();"
        for id in ids
    )
    return "".join(made)


@pytest.mark.parametrize(("body", "seen"), REVISIONS.values(), ids=REVISIONS)
async def test_a_revision_that_must_not_be_replayed(tmp_path: Path, database: str, body: str, seen: str | None) -> None:
    """It goes through Alembic on every tenant, and each has what is its own; the revisions around it are replayed."""
    execute(database, sites(*IDS))
    middle = _MODULE.format(body=indent(body, "    ")) if "_numbers" in body else body
    project = make_project(tmp_path, {"r1": _SETUP, "r2": middle, "r3": PROJECTS}, schemas(database, *IDS))

    result = await project.upgrade()

    assert (statuses(result), paths(result)) == (SUCCEEDED, MIXED)
    assert revisions(project, "d") == ["r1", "r2", "r3"]
    rows = [[row[0] for row in fetch(database, f"SELECT what FROM {id}.seen")] for id in IDS]
    if seen == DISTINCT:
        assert len({what for (what,) in rows}) == len(IDS)
    elif seen == "there missing":
        assert rows == [["there"], ["missing"], ["missing"], ["missing"]]
    else:
        assert rows == [[] if seen is None else [seen.format(id=id)] for id in IDS]


@pytest.mark.parametrize(
    "body",
    [
        "import uuid\nop.execute(f\"INSERT INTO seen VALUES ('{uuid.uuid4()}')\")",
        "own = op.get_bind().exec_driver_sql('SELECT current_schema()').scalar()\nop.create_table(f'of_{own}')",
    ],
)
async def test_alone_it_is_not_even_recorded(tmp_path: Path, database: str, body: str) -> None:
    """Where nothing can be replayed, everybody goes through Alembic at once, and nobody waits."""
    execute(database, "".join(f"CREATE SCHEMA {id}; CREATE TABLE {id}.seen (what text);" for id in IDS))
    project = make_project(tmp_path, {"r1": body}, schemas(database, *IDS))

    result = await project.upgrade()

    assert (statuses(result), paths(result)) == (SUCCEEDED, ALEMBIC)


#: What env.py does, and what each tenant has afterwards of it; ``{tenant.id}`` must be everybody's own.
OWN_SQL = "connection.exec_driver_sql(f\"INSERT INTO public.audit VALUES ('{tenant.id}')\")"
ENVIRONMENTS = {
    "SQL before configure": env_with(before=OWN_SQL),
    "SQL after the run": env_with(after=f"{OWN_SQL}; connection.commit()"),
    "SQL by Alembic's context": env_with(
        after="context.execute(f\"INSERT INTO public.audit VALUES ('{tenant.id}')\"); connection.commit()"
    ),
    "SQL within the transaction": ENV.replace("        context.run", f"        {OWN_SQL}\n        context.run"),
    "the context's connection": env_with(
        after="context.get_bind().exec_driver_sql(f\"INSERT INTO public.audit VALUES ('{tenant.id}')\");"
        " connection.commit()"
    ),
    "on_version_apply": env_with(
        configure="on_version_apply=applied(tenant), ",
        module="def applied(tenant):\n    def note(*, ctx, **_):\n"
        "        ctx.connection.exec_driver_sql(f\"INSERT INTO public.audit VALUES ('{tenant.id}')\")\n    return note",
    ),
    "a listener": env_with(
        before="event.listen(connection, 'commit', lambda c: c.exec_driver_sql("
        "f\"INSERT INTO public.audit VALUES ('{tenant.id}')\"), once=True)",
        module="from sqlalchemy import event",
    ),
}


@pytest.mark.parametrize("env", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
async def test_an_env_with_sql_of_its_own(tmp_path: Path, database: str, env: str) -> None:
    """What env.py sends itself is sent for every tenant, whether replay could have been or not."""
    execute(database, "CREATE TABLE public.audit (tenant text)")
    project = make_project(tmp_path, {"r1": ACCOUNTS}, schemas(database, *IDS), env)

    result = await project.upgrade()

    assert (statuses(result), paths(result)) == (SUCCEEDED, ALEMBIC)
    assert sorted(row[0] for row in fetch(database, "SELECT tenant FROM public.audit")) == list(IDS)


@pytest.mark.parametrize(
    "option",
    [
        "target_metadata=sa.MetaData(naming_convention={'uq': f'uq_{tenant.id}_%(table_name)s'}), ",
        "transaction_per_migration=tenant.id != 'd', ",
        "version_table_pk=tenant.id != 'd', ",
    ],
)
async def test_an_env_that_configures_by_tenant(tmp_path: Path, database: str, option: str) -> None:
    """An option that differs for one tenant is that tenant's: what was recorded under another is not its."""
    base = ENV.replace(", transaction_per_migration=True", "") if "transaction" in option else ENV
    env = base.replace("connection=connection, ", f"connection=connection, {option}").replace(
        "from alembic import", "import sqlalchemy as sa\nfrom alembic import"
    )
    body = 'op.create_table("named", sa.Column("a", sa.Integer))\nop.create_unique_constraint(None, "named", ["a"])'
    project = make_project(tmp_path, {"r1": body, "r2": PROJECTS}, schemas(database, *IDS), env)

    result = await project.upgrade()

    assert (statuses(result), paths(result)["d"]) == (SUCCEEDED, "alembic")
    if "metadata" in option:
        constraints = {id: {name for name in catalogs(database, [id])[id] if "uq_" in name} for id in IDS}
        assert all(f"constraint named.uq_{id}_named" in found for id, found in constraints.items())
    else:
        assert (paths(result)["c"], set(reasons(project))) == ("replay", {"d"})
        assert "configures Alembic differently" in reasons(project)["d"]
        has_key = {id: "constraint alembic_version.alembic_version_pkc" in catalogs(database, [id])[id] for id in IDS}
        assert has_key == {**dict.fromkeys("abc", True), "d": "pk" not in option}


async def test_an_env_that_skips_a_tenant(tmp_path: Path, database: str) -> None:
    """A tenant that migrate() leaves out is left out: failed as not run, its schema untouched."""
    env = env_with(before="if tenant.id == 'd': return")
    project = make_project(tmp_path, {"r1": ACCOUNTS}, schemas(database, *IDS), env)

    result = await project.upgrade()

    assert (statuses(result), one(result, "d")["error"]["type"]) == ({**SUCCEEDED, "d": "failed"}, "not_run")
    assert tables(database, "d") == set()
    assert "0 times" in reasons(project)["d"]


async def test_an_env_that_raises_for_a_tenant(tmp_path: Path, database: str) -> None:
    """What migrate() raises for one tenant is that tenant's error."""
    env = env_with(before="assert tenant.id != 'd', 'not this one'")
    project = make_project(tmp_path, {"r1": ACCOUNTS}, schemas(database, *IDS), env)

    result = await project.upgrade()

    assert statuses(result) == {**SUCCEEDED, "d": "failed"}
    assert "not this one" in one(result, "d")["error"]["message"]
    assert "AssertionError" in reasons(project)["d"]


@pytest.mark.parametrize(
    ("use", "said"),
    [
        ("connection.info", ".info"),
        ("connection.exec_driver_sql('SELECT 1')", ".exec_driver_sql"),
        ("connection.marked = True", ".marked"),
        ("context.get_context()", "migration context"),
        ("context.execute('SELECT 1')", "SQL of its own"),
    ],
)
async def test_an_env_that_uses_its_connection_for_one_tenant(
    tmp_path: Path, database: str, use: str, said: str
) -> None:
    """Also where env.py catches the error that the stand-in raises, that tenant goes through Alembic."""
    before, after = (use, "") if use.startswith("connection") else ("", use)
    guarded = "\n    if tenant.id == 'd':\n        try:\n            {}\n        except Exception:\n            pass"
    env = env_with(before=before and guarded.format(before), after=after and guarded.format(after))
    if "marked" in use:
        env = env.replace("connection.marked = True", "connection.info['marked'] = True")
        said = ".info"
    project = make_project(tmp_path, {"r1": ACCOUNTS}, schemas(database, *IDS), env)

    result = await project.upgrade()

    assert (statuses(result), paths(result)) == (SUCCEEDED, {**REPLAYED, "d": "alembic"})
    assert said in reasons(project)["d"]


@pytest.mark.parametrize(
    "before",
    [
        "if tenant.id == 'd': context.configure(connection=connection, version_table_schema='d', tag='first')",
        "if tenant.id == 'd': connection = connection.execution_options(own=True)",
    ],
    ids=["twice", "another connection"],
)
async def test_an_env_that_configures_in_a_way_of_its_own(tmp_path: Path, database: str, before: str) -> None:
    """Configured twice, or with a connection that is not the one it was given, a tenant goes through Alembic."""
    project = make_project(tmp_path, {"r1": ACCOUNTS}, schemas(database, *IDS), env_with(before=before))

    result = await project.upgrade()

    assert (statuses(result), paths(result)) == (SUCCEEDED, {**REPLAYED, "d": "alembic"})
    assert set(reasons(project)) == {"d"}


async def test_an_env_that_passes_another_tenants_version_table(tmp_path: Path, database: str) -> None:
    """What env.py must not pass is refused for a tenant that was to be replayed as for any other."""
    env = ENV.replace(
        "version_table_schema=tenant.schema", "version_table_schema='a' if tenant.id == 'd' else tenant.schema"
    )
    project = make_project(tmp_path, {"r1": ACCOUNTS}, schemas(database, *IDS), env)

    result = await project.upgrade()

    assert statuses(result) == {**SUCCEEDED, "d": "failed"}
    assert "version_table_schema='a'" in one(result, "d")["error"]["message"]


async def test_arguments_to_the_revisions(tmp_path: Path, database: str) -> None:
    """What env.py hands to run_migrations() reaches every tenant's revision."""
    body = """
        def upgrade(name=None):
            op.create_table(f"of_{name}")

        def downgrade():
            pass
    """
    env = env_with(run="name=tenant.id")
    project = make_project(tmp_path, {"r1": body}, schemas(database, *IDS), env)

    result = await project.upgrade()

    assert (statuses(result), paths(result)) == (SUCCEEDED, ALEMBIC)
    assert {id: tables(database, id) for id in IDS} == {id: {f"of_{id}", "alembic_version"} for id in IDS}


async def test_arguments_that_no_revision_takes(tmp_path: Path, database: str) -> None:
    """Arguments for one tenant alone are noticed when it is asked how it is to be migrated."""
    env = env_with(run="**({'name': 1} if tenant.id == 'd' else {})")
    project = make_project(tmp_path, {"r1": ACCOUNTS}, schemas(database, *IDS), env)

    result = await project.upgrade()

    assert statuses(result) == {**SUCCEEDED, "d": "failed"}
    assert "passes arguments" in reasons(project)["d"]


async def test_a_log_for_each_tenant(tmp_path: Path, database: str, caplog: pytest.LogCaptureFixture) -> None:
    """What migrate() logs is logged once for every tenant, replayed or not."""
    env = env_with(before="logging.getLogger('own').warning('migrates %s', tenant.id)", module="import logging")
    project = make_project(tmp_path, {"r1": ACCOUNTS}, schemas(database, *IDS), env)
    with caplog.at_level(logging.WARNING, "own"):
        assert paths(await project.upgrade()) == REPLAYED

    assert sorted(record.getMessage() for record in caplog.records if record.name == "own") == [
        f"migrates {id}" for id in IDS
    ]


LISTENERS = {
    "connect": "def role(dbapi, _):\n    if 'asyncpg' in type(dbapi).__module__:\n"
    "        cursor = dbapi.cursor()\n        cursor.execute('SET ROLE pg_monitor')\n        dbapi.commit()",
    "checkout": "def role(dbapi, *_):\n    if 'asyncpg' in type(dbapi).__module__:\n"
    "        cursor = dbapi.cursor()\n        cursor.execute('SET ROLE pg_monitor')\n        dbapi.commit()",
    "engine_connect": "def role(connection):\n    if connection.dialect.name == 'postgresql':\n"
    "        connection.exec_driver_sql('SET ROLE pg_monitor')\n        connection.commit()",
    "begin": "def role(connection):\n    if connection.dialect.name == 'postgresql':\n"
    "        connection.exec_driver_sql('SET LOCAL ROLE pg_monitor')",
}


@pytest.mark.parametrize("name", LISTENERS)
def test_a_listener_on_every_engine(tmp_path: Path, database: str, name: str) -> None:
    """What env.py has done to each new connection (a role that is to own the tables) is done for every tenant."""
    execute(database, "".join(f"CREATE SCHEMA {id}; GRANT ALL ON SCHEMA {id} TO pg_monitor;" for id in IDS))
    module = f"from sqlalchemy import Engine, event\n\n\n@event.listens_for(Engine, {name!r})\n{LISTENERS[name]}"
    make_project(tmp_path, {"r1": ACCOUNTS}, schemas(database, *IDS), env_with(module=module))

    # In a process of its own: the listener would stay.
    Workspace(tmp_path).json("upgrade")

    owners = "SELECT schemaname, tableowner FROM pg_tables WHERE tablename = 'accounts' ORDER BY 1"
    assert {row[0]: row[1] for row in fetch(database, owners)} == dict.fromkeys(IDS, "pg_monitor")
