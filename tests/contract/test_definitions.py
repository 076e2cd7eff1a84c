"""Definitions in full: what changes a fingerprint is told, with what takes it back, or why nothing does."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.databases.connect import connect
from orchestrator.databases.definitions import Definition
from orchestrator.databases.port.database import Database
from orchestrator.databases.postgresql.shapes.definitions import bare, parse_array, parse_row
from orchestrator.fleet.ignoring import ObjectKind
from orchestrator.fleet.secrets import Template
from orchestrator.fleet.tenant import Isolation, Server, Tenant
from orchestrator.rollout.differences import differences
from orchestrator.rollout.remedies import in_order, operations
from orchestrator.rollout.telling import told
from tests.drifting import carry_out
from tests.servers import PostgresServer, execute, fetch
from tests.shapes import BASE, CHANGES

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def shared(pg: PostgresServer) -> Iterator[str]:
    """Address of a database for all tests here, each in schemas of its own; ``base`` holds one of everything."""
    url = pg.create_database()
    make(url, "base")
    yield url
    pg.drop_database(url)


def make(url: str, schema: str, change: str = "") -> Tenant:
    """A tenant whose schema has one of everything, and then a change."""
    execute(url, f"CREATE SCHEMA {schema}; SET search_path = {schema}; {BASE}")
    if change:
        execute(url, f"SET search_path = {schema}; {change}")
    return Tenant(schema, "main", Isolation.SCHEMA, schema=schema)


def server(url: str) -> Database:
    """The adapter."""
    return connect(Server("main", Template(url, Path())))


async def read(url: str, *schemas: str) -> list[tuple[Definition, ...]]:
    """Definitions of schemas, in their order."""
    database = server(url)
    try:
        tenants = [Tenant(schema, "main", Isolation.SCHEMA, schema=schema) for schema in schemas]
        found = await database.definitions(tenants)
        return [tuple(found[schema]) for schema in schemas]
    finally:
        await database.close()


@pytest.mark.parametrize("change", CHANGES)
async def test_whatever_changes_a_fingerprint_is_told(shared: str, change: str) -> None:
    """There is a line and an operation for it; what is no comment takes the difference away when it is carried out."""
    schema = f"s_{next(_numbers)}"
    make(shared, schema, change)
    base, changed = await read(shared, "base", schema)
    found = differences(base, changed)
    assert found, change
    lines = [line for each in in_order(found) for line in operations(each, "postgresql")]
    assert all(told(each) for each in found)
    assert lines, [told(each) for each in found]
    assert schema not in " ".join([*lines, *map(told, found)])
    if any(line.startswith("#") for line in lines):
        return
    await carry_out(shared, schema, lines)
    (mended,) = await read(shared, schema)
    assert [told(each) for each in differences(base, mended)] == [], lines


#: What depends on one another, by names that the alphabet has the wrong way round.
ENTANGLED = """
    CREATE TYPE z_kind AS ENUM ('one', 'two');
    CREATE DOMAIN dd AS text CONSTRAINT dd_short CHECK (length(VALUE) < 9);
    CREATE TABLE zz_owner (id int PRIMARY KEY, kind z_kind DEFAULT 'one', short dd);
    CREATE TABLE aa_child (id int PRIMARY KEY, owner int CONSTRAINT aa_fk REFERENCES zz_owner (id));
    ALTER TABLE data ADD zz_id int CONSTRAINT data_zz REFERENCES zz_owner (id);
    ALTER TABLE data ADD aa_kind z_kind;
    CREATE VIEW b_base AS SELECT id, kind FROM zz_owner;
    CREATE VIEW a_on_base AS SELECT id FROM b_base;
    CREATE VIEW c_on_base AS SELECT id FROM b_base;
    CREATE FUNCTION a_fill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
    CREATE TRIGGER a_filled BEFORE INSERT ON zz_owner FOR EACH ROW EXECUTE FUNCTION a_fill();
"""
#: Tables that only hang together when they go: nobody suggests how such are made.
PARTITIONED = """
    CREATE TABLE a_whole (id int) PARTITION BY RANGE (id);
    CREATE TABLE b_part PARTITION OF a_whole FOR VALUES FROM (0) TO (9);
"""


async def test_suggestions_can_be_carried_out_in_their_order(shared: str) -> None:
    """What others depend on comes before them and goes after them, be it there too much or too little."""
    make(shared, "much", ENTANGLED + PARTITIONED)
    make(shared, "little")
    make(shared, "rich", ENTANGLED)
    base, much, little, rich = await read(shared, "base", "much", "little", "rich")
    for schema, wanted, there in (("much", base, much), ("little", rich, little)):
        lines = [line for each in in_order(differences(wanted, there)) for line in operations(each, "postgresql")]
        assert not any(line.startswith("#") for line in lines), lines
        await carry_out(shared, schema, lines)
        (mended,) = await read(shared, schema)
        assert [told(each) for each in differences(wanted, mended)] == [], lines


@pytest.mark.parametrize(
    ("kind", "field", "value", "there", "gone"),
    [
        (ObjectKind.TABLE, "replica identity", "full", "is full, expected default", "is default, expected full"),
        (
            ObjectKind.COLUMN,
            "generated as",
            "(a)",
            "is generated as (a), expected not generated",
            "is not generated, expected generated as (a)",
        ),
    ],
)
def test_what_is_usual_is_called_by_its_name(kind: ObjectKind, field: str, value: str, there: str, gone: str) -> None:
    """Where a table or column has nothing special, the words say what that is."""
    plain, special = Definition(kind, "x", "t"), Definition(kind, "x", "t", {field: value})
    for wanted, found, words in ((plain, special, there), (special, plain, gone)):
        (change,) = differences([wanted], [found])
        assert told(change).endswith(words)


async def test_two_schemas_of_one_shape_do_not_differ(shared: str) -> None:
    """Whatever the schema is called."""
    for name in ("plain", '"Sch ema, (x)"'):
        make(shared, name)
    base, plain, odd = await read(shared, "base", "plain", "Sch ema, (x)")
    assert differences(base, plain) == differences(base, odd) == ()


async def test_who_is_not_there_is_left_out(shared: str) -> None:
    """Neither a schema nor a database that is missing is an error."""
    database = server(shared)
    missing = Tenant("missing", "main", Isolation.SCHEMA, schema="missing")
    elsewhere = Tenant("elsewhere", "main", Isolation.DATABASE, database="no_such_database")
    base = Tenant("base", "main", Isolation.SCHEMA, schema="base")
    found = await database.definitions([missing, elsewhere, base])
    await database.close()
    assert list(found) == ["base"]


@pytest.mark.parametrize(
    "text", ["", "a", 'q"uote', "comma, (and) {braces}", "back\\slash", "line\nbreak", " ", "NULL"]
)
def test_rows_and_arrays_are_read_as_postgresql_writes_them(shared: str, text: str) -> None:
    """Texts with what is special in rows and arrays come back as they were."""
    value = "'" + text.replace("'", "''") + "'"
    row, array, name = fetch(
        shared, f"SELECT ROW('x', {value}, NULL, {value})::text, ARRAY[{value}, 'b']::text, quote_ident({value})"
    )[0]
    assert parse_row(row) == ["x", text, None, text]
    if text:
        assert bare(f"other.{name}") == text
    assert parse_array(array) == [text, "b"]


SQLITE = """
    CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL);
    CREATE TABLE accounts (id INTEGER PRIMARY KEY, name VARCHAR(40) NOT NULL DEFAULT 'a ,b', rate NUMERIC DEFAULT -1.5,
        note TEXT, CONSTRAINT ck_name CHECK (name <> ''), CONSTRAINT uq_note UNIQUE (note));
    CREATE INDEX ix_name ON accounts (name);
    CREATE VIEW named AS SELECT name FROM accounts;
    CREATE TRIGGER g AFTER UPDATE ON accounts BEGIN DELETE FROM accounts WHERE name = 'Old'; END;
"""
#: What is done to the text above: what is replaced, by what, what is told of it, and how the operations begin.
SQLITE_CHANGES = {
    "type": (
        "note TEXT",
        "note BLOB",
        "column accounts.note type is blob, expected text",
        ['with op.batch_alter_table("accounts") as batch: batch.alter_column("note", type_=sa.Text())'],
    ),
    "nullability": (
        " NOT NULL DEFAULT",
        " DEFAULT",
        "column accounts.name is nullable",
        ['with op.batch_alter_table("accounts") as batch: batch.alter_column("name", nullable=False)'],
    ),
    "default": (
        "DEFAULT -1.5",
        "DEFAULT 2",
        "column accounts.rate default is 2, expected - 1.5",
        ['with op.batch_alter_table("accounts") as batch: batch.alter_column("rate", server_default=sa.text("- 1.5"))'],
    ),
    "missing column": (
        "rate NUMERIC DEFAULT -1.5,",
        "",
        "missing column accounts.rate: numeric default - 1.5",
        ['op.execute("ALTER TABLE accounts ADD COLUMN rate numeric default - 1.5")'],
    ),
    "extra column": (
        "note TEXT",
        "note TEXT, more INT",
        "extra column accounts.more: int",
        ['with op.batch_alter_table("accounts") as batch: batch.drop_column("more")'],
    ),
    "missing constraint": (
        "CONSTRAINT ck_name CHECK (name <> ''), ",
        "",
        "missing constraint ck_name on accounts: check (name < > '')",
        ["# by hand:"],
    ),
    "extra constraint": (
        "CONSTRAINT uq_note UNIQUE (note)",
        "CONSTRAINT uq_note UNIQUE (note), CONSTRAINT ck_rate CHECK (rate > 0)",
        "extra constraint ck_rate on accounts: check (rate > 0)",
        ['with op.batch_alter_table("accounts") as batch: batch.drop_constraint("ck_rate", type_="check")'],
    ),
    "missing index": (
        "CREATE INDEX ix_name ON accounts (name);",
        "",
        "missing index ix_name on accounts: create index ix_name on accounts (name)",
        ['op.create_index("ix_name", "accounts", ["name"])'],
    ),
    "other index": (
        "ix_name ON accounts (name)",
        "ix_name ON accounts (note)",
        "index ix_name on accounts definition is create index ix_name on accounts (note), expected create index ix_name"
        " on accounts (name)",
        ['op.drop_index("ix_name", table_name="accounts")', 'op.create_index("ix_name", "accounts", ["name"])'],
    ),
    "extra table": (
        "CREATE VIEW",
        "CREATE TABLE more (id INT, CHECK (id > 0)); CREATE INDEX ix_more ON more (id); CREATE VIEW",
        "extra table more (1 column, 1 constraint, 1 index)",
        ['op.drop_table("more")'],
    ),
    "missing view": (
        "CREATE VIEW named AS SELECT name FROM accounts;",
        "",
        "missing view named: create view named as select name from accounts",
        ['op.execute("create view named as select name from accounts")'],
    ),
    "missing trigger": (
        "CREATE TRIGGER g AFTER UPDATE ON accounts BEGIN DELETE FROM accounts WHERE name = 'Old'; END;",
        "",
        "missing trigger g on accounts: create trigger g after update on accounts begin delete from accounts where name"
        " = 'Old' ; end",
        ['op.execute("create trigger g after update on accounts begin delete'],
    ),
}


@pytest.mark.parametrize("kind", SQLITE_CHANGES)
async def test_sqlite(tmp_path: Path, kind: str) -> None:
    """What differs in a file is told, with an operation."""
    old, new, expected, starts = SQLITE_CHANGES[kind]
    assert SQLITE.count(old) == 1
    base, changed = await read_files(tmp_path, SQLITE, SQLITE.replace(old, new))
    (found,) = differences(base, changed)
    assert told(found) == expected
    for line, start in zip(operations(found, "sqlite"), starts, strict=True):
        assert line.startswith(start), line


async def test_sqlite_files_of_one_shape_do_not_differ(tmp_path: Path) -> None:
    """Case, quotes, comments and the order of columns are not what a file is."""
    other = SQLITE.replace("note TEXT, CONSTRAINT ck_name", '"note" text /* x */, constraint ck_name')
    other = other.replace("rate NUMERIC DEFAULT -1.5,", "").replace(
        '"note" text', '"note" text, rate numeric default -1.5'
    )
    base, same = await read_files(tmp_path, SQLITE, other)
    assert differences(base, same) == ()


async def read_files(directory: Path, *scripts: str) -> list[tuple[Definition, ...]]:
    """Definitions of files in which ``scripts`` ran."""
    tenants = []
    for number, script in enumerate(scripts):
        file = directory / f"{number}.db"
        with closing(sqlite3.connect(file)) as connection:
            connection.executescript(script)
        tenants.append(Tenant(str(number), "main", Isolation.FILE, file=str(file)))
    missing = Tenant("missing", "main", Isolation.FILE, file=str(directory / "missing.db"))
    database = connect(Server("main", Template(f"sqlite:///{directory}", directory)))
    found = await database.definitions([*tenants, missing])
    assert "missing" not in found
    return [tuple(found[tenant.id]) for tenant in tenants]
