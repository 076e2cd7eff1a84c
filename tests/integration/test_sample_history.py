"""The shared history by itself, under Alembic alone: every revision goes up and down cleanly on both dialects."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from tests.workspace import REPOSITORY

VERSIONS = REPOSITORY / "alembic" / "versions"
#: A schema's name that only works where it is quoted.
SCHEMA = "Tenant-1"

#: Just enough of an env.py to run the history on the connection it is given.
ENV = """
from alembic import context
from examples.saas import metadata

schema = context.config.attributes["schema"]
options = {"target_metadata": metadata, "version_table_schema": schema, "transaction_per_migration": True}
if context.is_offline_mode():
    context.configure(dialect_name="postgresql", literal_binds=True, **options)
else:
    context.configure(connection=context.config.attributes["connection"], compare_server_default=True, **options)
with context.begin_transaction():
    context.run_migrations()
"""

#: Everything the tenant's schema holds, but for the version table. Column numbers are left out: a dropped column
#: keeps its number.
POSTGRESQL_CATALOG = """
WITH tenant AS (SELECT oid FROM pg_namespace WHERE nspname = current_schema()), own AS (
    SELECT * FROM pg_class WHERE relnamespace = (SELECT oid FROM tenant) AND relname NOT LIKE 'alembic_version%'
)
SELECT 'relation', relname, relkind::text, '' FROM own
UNION ALL
SELECT 'column', relname, attname,
    format_type(atttypid, atttypmod) || attnotnull || coalesce(pg_get_expr(adbin, adrelid), '')
FROM own JOIN pg_attribute ON attrelid = own.oid LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attnum > 0 AND NOT attisdropped
UNION ALL
SELECT 'constraint', relname, conname, pg_get_constraintdef(con.oid)
FROM own JOIN pg_constraint AS con ON conrelid = own.oid
UNION ALL
SELECT 'index', relname, indisvalid::text, pg_get_indexdef(indexrelid) FROM own JOIN pg_index ON indexrelid = own.oid
UNION ALL
SELECT 'trigger', relname, tgname, pg_get_triggerdef(trg.oid) FROM own JOIN pg_trigger AS trg ON tgrelid = own.oid
WHERE NOT tgisinternal
UNION ALL
SELECT 'view', relname, '', pg_get_viewdef(oid) FROM own WHERE relkind = 'v'
UNION ALL
SELECT 'type', typname, '', coalesce((SELECT string_agg(enumlabel, ',' ORDER BY enumsortorder) FROM pg_enum
    WHERE enumtypid = pg_type.oid), '') FROM pg_type
WHERE typnamespace = (SELECT oid FROM tenant) AND typname NOT LIKE '%alembic_version'
UNION ALL
SELECT 'function', proname, proconfig::text, prosrc FROM pg_proc WHERE pronamespace = (SELECT oid FROM tenant)
"""
#: Tables made anew list their constraints in any order, so their text is no measure.
SQLITE_CATALOG = """
SELECT 'object', type, name, CASE WHEN type = 'table' THEN '' ELSE sql END
FROM sqlite_master WHERE tbl_name <> 'alembic_version'
UNION ALL
SELECT 'column', t.name, c.name, c.type || c."notnull" || c.pk || coalesce(c.dflt_value, '')
FROM sqlite_master AS t JOIN pragma_table_info(t.name) AS c
WHERE t.type = 'table' AND t.name <> 'alembic_version'
UNION ALL
SELECT 'key', t.name, k."from", k."table" || k.on_delete
FROM sqlite_master AS t JOIN pragma_foreign_key_list(t.name) AS k WHERE t.type = 'table'
"""


@pytest.fixture
def migrate(tmp_path: Path) -> Callable[..., str]:
    """``migrate(connection, command, *arguments)``: one of Alembic's commands over the history; what it wrote."""
    (tmp_path / "env.py").write_text(ENV)

    def run(
        connection: Connection | None,
        function: Callable[..., None],
        *args: str,
        schema: str | None = None,
        **options: bool,
    ) -> str:
        output = io.StringIO()
        attributes = {"connection": connection, "schema": schema}
        config = Config(output_buffer=output, stdout=output, attributes=attributes)
        for name, value in (("script_location", tmp_path), ("version_locations", VERSIONS), ("path_separator", "os")):
            config.set_main_option(name, str(value))
        function(config, *args, **options)
        if connection is not None:
            # Alembic leaves its last reading open, and a transaction found open would swallow the next command's.
            connection.rollback()
        return output.getvalue()

    return run


@pytest.fixture(params=["postgresql", "sqlite"])
async def connection(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AsyncConnection]:
    """A connection to an empty tenant: a schema of a database, or a file."""
    if request.param == "sqlite":
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'tenant.db'}")
    else:
        engine = await _schema(request.getfixturevalue("database"), SCHEMA)
    async with engine.connect() as connected:
        yield connected
    await engine.dispose()


async def test_base_leaves_nothing(connection: AsyncConnection, migrate: Callable[..., str]) -> None:
    """Up to the head and back to base: no table, type, function, view or index is left over."""
    await connection.run_sync(migrate, command.upgrade, "head")
    assert await connection.run_sync(_catalog)
    await connection.run_sync(migrate, command.downgrade, "base")
    assert await connection.run_sync(_catalog) == []


async def test_each_step_can_be_undone(connection: AsyncConnection, migrate: Callable[..., str]) -> None:
    """Each revision up, down and up again: down restores what was there before, up makes the same again."""
    script = ScriptDirectory(str(VERSIONS.parent))
    for revision in reversed(list(script.walk_revisions())):
        before = await connection.run_sync(_catalog)
        await connection.run_sync(migrate, command.upgrade, revision.revision)
        made = await connection.run_sync(_catalog)
        await connection.run_sync(migrate, command.downgrade, _below(revision.revision, revision.down_revision))
        assert await connection.run_sync(_catalog) == before, revision.doc
        await connection.run_sync(migrate, command.upgrade, revision.revision)
        assert await connection.run_sync(_catalog) == made, revision.doc


async def test_models_are_in_step(connection: AsyncConnection, migrate: Callable[..., str]) -> None:
    """``alembic check`` finds nothing that the models have and the history lacks, or the other way round."""
    await connection.run_sync(migrate, command.upgrade, "head")
    await connection.run_sync(migrate, command.check)


async def test_same_application_in_public(database: str, migrate: Callable[..., str]) -> None:
    """With public behind the tenant on the path and the same tables there, the tenant gets all of its own."""
    catalogs = []
    for schema, path in (("public", "public"), ("tenant", "tenant, public")):
        engine = await _schema(database, schema, path)
        async with engine.connect() as connection:
            await connection.run_sync(migrate, command.upgrade, "head", schema=schema)
            rows = await connection.run_sync(_catalog)
        catalogs.append([[part.replace(f"{schema}.", "") for part in row] for row in rows])
        await engine.dispose()
    assert catalogs[0] == catalogs[1]


async def test_totals_are_filled(connection: AsyncConnection, migrate: Callable[..., str]) -> None:
    """The data migration fills every invoice, over more rows than one batch, and spares those with a total."""
    await connection.run_sync(migrate, command.upgrade, "0c96d8e1f573")
    await connection.execute(text("INSERT INTO accounts (name, slug) VALUES ('A', 'a')"))
    numbers = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1100) "
    await connection.execute(
        text(
            "INSERT INTO invoices (account_id, number, issued_on, due_on, total_cents) "
            f"{numbers} SELECT 1, 'no ' || i, date('2025-01-01'), date('2025-01-31'), CASE i WHEN 7 THEN -7 END FROM n"
        )
    )
    await connection.execute(
        text(
            "INSERT INTO invoice_lines (invoice_id, position, description, quantity, unit_price_cents) "
            "SELECT id, 1, 'x', 2, id FROM invoices WHERE id > 2"
        )
    )
    await connection.commit()
    await connection.run_sync(migrate, command.upgrade, "head")
    wrong = "total_cents <> CASE WHEN id <= 2 THEN 0 WHEN id = 7 THEN -7 ELSE 2 * id END"
    assert (await connection.scalars(text(f"SELECT id FROM invoices WHERE {wrong}"))).all() == []


async def test_status_change_is_logged(connection: AsyncConnection, migrate: Callable[..., str]) -> None:
    """The trigger writes to the log of the tenant whose invoice changed, whatever the search path says."""
    await connection.run_sync(migrate, command.upgrade, "head")
    await connection.execute(text("INSERT INTO accounts (name, slug) VALUES ('A', 'a')"))
    columns = "account_id, number, issued_on, due_on"
    await connection.execute(text(f"INSERT INTO invoices ({columns}) VALUES (1, '1', '2025-01-01', '2025-01-31')"))
    schema = f'"{SCHEMA}".' if connection.dialect.name == "postgresql" else ""
    if schema:
        await connection.execute(text("SET search_path = pg_catalog"))
    await connection.execute(text(f"UPDATE {schema}invoices SET status = 'sent'"))
    assert (await connection.scalars(text(f"SELECT action FROM {schema}audit_log"))).all() == ["invoice.sent"]


async def test_half_built_index_is_replaced(database: str, migrate: Callable[..., str]) -> None:
    """What a failed CREATE INDEX CONCURRENTLY left behind is not taken for the index."""
    name = "ix_audit_log_account_id_created_at"
    engine = await _schema(database, SCHEMA)
    async with engine.connect() as connection:
        await connection.run_sync(migrate, command.upgrade, "6a1785f2cd3e")
        await connection.execute(text("INSERT INTO accounts (name, slug) VALUES ('A', 'a')"))
        await connection.execute(text("INSERT INTO audit_log (account_id, action) VALUES (1, 'x'), (1, 'x')"))
        await connection.commit()
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        with pytest.raises(IntegrityError):
            await connection.execute(
                text(f"CREATE UNIQUE INDEX CONCURRENTLY {name} ON audit_log (account_id, created_at)")
            )
    async with engine.connect() as connection:
        await connection.run_sync(migrate, command.upgrade, "d05bc3987e41")
        index = await connection.execute(
            text(f"SELECT indisvalid, indisunique FROM pg_index WHERE indexrelid = '{name}'::regclass")
        )
        assert index.one() == (True, False)
    await engine.dispose()


def test_sql_is_complete(migrate: Callable[..., str]) -> None:
    """``upgrade head --sql`` writes all of the history, the data migration too, and doubles no percent sign."""
    sql = migrate(None, command.upgrade, "head", sql=True)
    assert "UPDATE invoices SET total_cents=(SELECT coalesce(sum(" in sql
    assert "CREATE VIEW account_balances" in sql
    assert "%" not in sql


async def _schema(url: str, schema: str, path: str | None = None) -> AsyncEngine:
    """An engine whose connections work in ``schema``, which is made."""
    address = "postgresql+asyncpg:" + url.partition(":")[2]
    engine = create_async_engine(address, connect_args={"server_settings": {"search_path": path or f'"{schema}"'}})
    async with engine.begin() as connection:
        await connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))
    return engine


def _catalog(connection: Connection) -> list[tuple[str, ...]]:
    query = POSTGRESQL_CATALOG if connection.dialect.name == "postgresql" else SQLITE_CATALOG
    rows = sorted(tuple(str(part) for part in row) for row in connection.execute(text(query)))
    connection.rollback()
    return rows


def _below(revision: str, down_revision: str | tuple[str, ...] | None) -> str:
    """The target that undoes ``revision`` alone: with two heads, a bare revision would undo both branches."""
    if down_revision is None:
        return "base"
    return down_revision[0] if isinstance(down_revision, tuple) else f"{revision}@{down_revision}"
