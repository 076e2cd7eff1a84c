"""A tenant's fingerprint on PostgreSQL: what changes it, what does not, and that the tenant's name never does."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.databases.postgresql.adapter import PostgreSQL
from orchestrator.databases.postgresql.script import identifier
from orchestrator.databases.postgresql.shapes import fingerprint
from orchestrator.databases.postgresql.shapes.fingerprint import fingerprints
from orchestrator.databases.postgresql.shapes.statements import shapes_sql
from orchestrator.errors import DatabaseError
from orchestrator.fleet.secrets import Template
from orchestrator.fleet.tenant import Isolation, Server, Tenant
from tests.catalog import catalogs, difference
from tests.projects import with_role
from tests.servers import PostgresServer, execute
from tests.shapes import BASE, CHANGES

VERSIONS = "alembic_version"
NO_CHANGES = [
    "INSERT INTO data (amount) VALUES (1); INSERT INTO alembic_version VALUES ('1')",
    "SELECT nextval('numbers')",
    "COMMENT ON TABLE data IS 'x'; COMMENT ON COLUMN data.id IS 'x'; COMMENT ON FUNCTION touch() IS 'x'",
    "GRANT SELECT ON data TO pg_monitor; GRANT EXECUTE ON FUNCTION touch() TO pg_monitor",
    "ALTER TABLE data OWNER TO pg_monitor",
    "ALTER TABLE data ADD extra int; ALTER TABLE data DROP extra",
    "ALTER TABLE child DROP shape; ALTER TABLE child ADD shape span",
    "ALTER TABLE parts DROP id; ALTER TABLE parts ADD id int",
    "INSERT INTO data DEFAULT VALUES; ANALYZE data; REFRESH MATERIALIZED VIEW counts",
    "DROP INDEX by_amount; CREATE INDEX by_amount ON data (amount) WHERE state = 'new'",
    "DROP INDEX by_word; ALTER TABLE data RENAME word TO term; CREATE INDEX by_word ON data (term, number);"
    "ALTER TABLE data RENAME term TO word",
    "DROP INDEX by_word; ALTER TABLE data ADD extra int; CREATE INDEX by_word ON data (word, number);"
    "ALTER TABLE data DROP extra",
    "ALTER TABLE goal DROP b; ALTER TABLE goal ADD b int CONSTRAINT goal_b UNIQUE; ALTER TABLE leads DROP a;"
    "ALTER TABLE leads ADD a int CONSTRAINT lead REFERENCES goal (a) ON DELETE SET NULL (a)",
    "ALTER TYPE spot DROP ATTRIBUTE y; ALTER TYPE spot ADD ATTRIBUTE y int",
    "ALTER TABLE data DROP word; ALTER TABLE data ADD word text; CREATE INDEX by_word ON data (word, number);"
    "CREATE INDEX by_four ON data (word, number, amount, note); CREATE INDEX by_hash ON data USING hash (word)",
]
#: Names that a definition holds in other places too, that need quotes, or that are another's beginning or end.
NAMES = ["data", "a", "old", "new", "state", "acme", "acme_2", "x.acme", "acme.", "Te nant", 'q"uote', "it's", "schöne"]
NAMES += ["public_", "select", "id", "pg", "$1", "a, b", r"back\slash"]
#: The least that a schema has, and what makes the statement ask more of every schema that it reads.
PLAIN = "CREATE TABLE t (id int PRIMARY KEY, word text NOT NULL)"
RARE = [
    "CREATE TABLE s (id serial)",
    "CREATE TABLE s (id int) WITH (fillfactor = 50)",
    "CREATE TABLE s () INHERITS (t)",
    "CREATE TYPE s AS (x int, y int)",
    "CREATE TYPE s AS ENUM ('x')",
    "CREATE VIEW s AS SELECT id FROM t",
    "CREATE FUNCTION s() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE POLICY s ON t USING (true)",
]
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def shared(pg: PostgresServer) -> Iterator[str]:
    """Address of a database for all tests here, each in schemas of its own; ``base`` holds one of everything."""
    url = pg.create_database()
    make(url, "base")
    yield url
    pg.drop_database(url)


@pytest_asyncio.fixture
async def raw(shared: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the shared database."""
    connection = await asyncpg.connect(shared)
    yield connection
    await connection.close()


def make(url: str, schema: str, sql: str = BASE) -> str:
    """Make ``schema`` with what ``sql`` makes in it."""
    execute(url, f"CREATE SCHEMA {identifier(schema)}; SET search_path = {identifier(schema)}; {sql}")
    return schema


def new(url: str, sql: str = BASE) -> str:
    """Make a schema with a name of its own."""
    return make(url, f"s_{next(_numbers)}", sql)


async def digests(raw: asyncpg.Connection, *schemas: str) -> list[str]:
    """Digests of ``schemas``, in their order."""
    found = await fingerprints(raw, schemas, VERSIONS)
    return [found[schema].digest for schema in schemas]


@pytest.mark.parametrize("change", CHANGES)
async def test_what_counts(shared: str, raw: asyncpg.Connection, change: str) -> None:
    """A difference in any kind of object is another digest."""
    schema = new(shared)
    before = await digests(raw, "base", schema)
    execute(shared, f"SET search_path = {schema}; {change}")

    after = await digests(raw, "base", schema)

    assert before[0] == before[1] == after[0] != after[1]


@pytest.mark.parametrize("change", NO_CHANGES)
async def test_what_does_not_count(shared: str, raw: asyncpg.Connection, change: str) -> None:
    """Rows, comments, grants, owners, positions of columns, OIDs and where sequences stand are not the shape."""
    schema = new(shared)
    execute(shared, f"SET search_path = {schema}; {change}")

    one, other = await digests(raw, "base", schema)

    assert one == other


@pytest.mark.parametrize("name", NAMES)
async def test_name_does_not_count(shared: str, raw: asyncpg.Connection, name: str) -> None:
    """A schema whose name occurs in its definitions, or needs quotes, has the digest of any other."""
    make(shared, name)

    one, other = await digests(raw, "base", name)

    assert one == other


async def test_name_in_a_text_counts(shared: str, raw: asyncpg.Connection) -> None:
    """A literal or a body that holds the tenant's own name is not that name: it is not the same in two tenants."""
    for name in ("lit_a", "lit_b"):
        make(shared, name, f"CREATE TABLE t (x text DEFAULT '{name}.t')")
        make(shared, f"f{name}", f"CREATE FUNCTION f() RETURNS text LANGUAGE sql AS 'SELECT ''f{name}.x'''")
    make(shared, "lit_c", "CREATE TABLE t (x text DEFAULT 'lit_a.t')")

    a, b, c, f, g = await digests(raw, "lit_a", "lit_b", "lit_c", "flit_a", "flit_b")

    assert a == c != b
    assert f != g


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE t (x {}.kind)",
        "CREATE TABLE t (x int REFERENCES {}.home)",
        "CREATE VIEW t AS SELECT id FROM {}.home",
        "CREATE TABLE t (x int DEFAULT nextval('{}.numbers'))",
        "CREATE TABLE t () INHERITS ({}.home)",
        "CREATE FUNCTION t({}.home) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    ],
)
async def test_bound_to_another_tenant(shared: str, raw: asyncpg.Connection, sql: str) -> None:
    """What reaches into another tenant's schema differs from what stays at home, wherever it is used."""
    home = "CREATE TABLE home (id int PRIMARY KEY); CREATE TYPE kind AS ENUM ('x'); CREATE SEQUENCE numbers;"
    one, two, strayed = new(shared, home), new(shared, home), new(shared, home)
    for schema, to in ((one, one), (two, two), (strayed, one)):
        execute(shared, f"SET search_path = {schema}; {sql.format(to)}")

    a, b, c = await digests(raw, one, two, strayed)

    assert a == b != c


async def test_settings_do_not_count(shared: str, raw: asyncpg.Connection) -> None:
    """The same definition reads the same, however the session prints times and names; that stays as it was."""
    (usual,) = await digests(raw, "base")
    await raw.execute(
        "SET timezone = 'Asia/Tokyo'; SET datestyle = 'SQL, DMY'; SET quote_all_identifiers = on;"
        "SET search_path = base, public"
    )

    (other,) = await digests(raw, "base")

    assert other == usual
    assert await raw.fetchval("SHOW search_path") == '"base", "public"'
    assert await raw.fetchval("SHOW quote_all_identifiers") == "on"


@pytest.mark.parametrize("extension", ["hstore", "pg_stat_statements"])
async def test_extensions_objects_are_not_the_tenants(database: str, extension: str) -> None:
    """What an extension owns (a type and functions, a view) is left out, wherever it was put."""
    execute(database, f"CREATE SCHEMA a; CREATE SCHEMA b; CREATE EXTENSION {extension} SCHEMA a")
    connection = await asyncpg.connect(database)
    try:
        a, b = await digests(connection, "a", "b")
    finally:
        await connection.close()

    assert a == b


async def test_access_method_counts(database: str) -> None:
    """A table in another access method than the server's own differs; its name says which, and not its OID."""
    made = "CREATE ACCESS METHOD {} TYPE TABLE HANDLER heap_tableam_handler"
    execute(database, "; ".join(made.format(name) for name in ("one", "other")))
    for schema, method in (("a", "heap"), ("b", "one"), ("c", "one"), ("d", "other")):
        make(database, schema, f"CREATE TABLE t (id int) USING {method}")
    connection = await asyncpg.connect(database)
    try:
        a, b, c, d = await digests(connection, "a", "b", "c", "d")
        (alone,) = await digests(connection, "a")
    finally:
        await connection.close()

    assert a == alone
    assert b == c
    assert len({a, b, d}) == 3


async def test_foreign_key_that_is_not_enforced(shared: str, raw: asyncpg.Connection) -> None:
    """A foreign key that the server does not enforce, as PostgreSQL 18 can have it, differs from one that it does."""
    if raw.get_server_version().major < 18:
        pytest.skip("NOT ENFORCED came with PostgreSQL 18")
    sql = "CREATE TABLE goal (a int PRIMARY KEY); CREATE TABLE leads (a int);"
    sql += "ALTER TABLE leads ADD CONSTRAINT lead FOREIGN KEY (a) REFERENCES goal {}"
    enforced, other = new(shared, sql.format("NOT VALID")), new(shared, sql.format("NOT ENFORCED"))

    assert len(set(await digests(raw, enforced, other))) == 2


@pytest.mark.parametrize("rare", RARE)
async def test_neighbours_do_not_count(shared: str, raw: asyncpg.Connection, rare: str) -> None:
    """What is asked because of one schema among many says nothing of the others."""
    plain, same = new(shared, PLAIN), new(shared, PLAIN)
    rich = new(shared, f"{PLAIN}; {rare}")

    (alone,) = await digests(raw, plain)
    one, other, third = await digests(raw, plain, same, rich)

    assert alone == one == other != third


async def test_many_are_few_statements(shared: str, raw: asyncpg.Connection) -> None:
    """Schemas are read set-wise: fifty of them cost as many statements as two."""
    schemas = [new(shared, "CREATE TABLE t (id int)") for _ in range(50)]
    sent: list[str] = []
    raw.add_query_logger(lambda record: sent.append(record.query))

    await fingerprints(raw, schemas[:2], VERSIONS)
    await asyncio.sleep(0)  # asyncpg logs a query in the loop's next turn
    few = len(sent)
    found = await fingerprints(raw, schemas, VERSIONS)
    await asyncio.sleep(0)

    assert len(found) == 50
    assert len(sent) == 2 * few


async def test_views_are_read_in_parts(shared: str, raw: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """No transaction takes more locks than it may, though every view locks what it reads."""
    monkeypatch.setattr(fingerprint, "_LOCKS_PER_STATEMENT", 20)
    sql = "".join(f"CREATE TABLE t{i} (id int); CREATE VIEW v{i} AS SELECT * FROM t{i};" for i in range(4))
    schemas = [new(shared, sql) for _ in range(12)]
    spaces = await fingerprint._survey(raw, schemas)

    parts = list(fingerprint._chunks(spaces))
    found = await fingerprints(raw, schemas, VERSIONS)

    assert [len(part) for part in parts] == [2] * 6
    assert len(found) == 12
    assert len({shape.digest for shape in found.values()}) == 1


async def test_one_that_is_being_altered(shared: str, raw: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A schema whose tables somebody holds is left out, and the others are read."""
    schemas = [new(shared, "CREATE TABLE t (id int); CREATE VIEW v AS SELECT id FROM t") for _ in range(5)]
    monkeypatch.setattr(fingerprint, "SETTINGS", fingerprint.SETTINGS.replace("'1s'", "'20ms'"))
    other = await asyncpg.connect(shared)
    try:
        async with other.transaction():
            await other.execute(f"LOCK TABLE {schemas[2]}.t")
            found = await fingerprints(raw, schemas, VERSIONS)
    finally:
        await other.close()

    assert sorted(found) == sorted({*schemas} - {schemas[2]})


async def test_another_path_is_not_believed(raw: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines read under another search path than the schema's own are an error, not a digest."""

    def unset(version: int, kinds: frozenset[str]) -> str:
        sql = shapes_sql(version, kinds)
        return sql.replace("set_config('search_path', ", "concat(").replace("pg_temp', true)", "pg_temp')")

    monkeypatch.setattr(fingerprint, "shapes_sql", unset)

    with pytest.raises(DatabaseError, match="search path"):
        await digests(raw, "base")


#: What grows with every tenant.
LARGE = {"pg_class", "pg_attribute", "pg_attrdef", "pg_constraint", "pg_index", "pg_trigger", "pg_type", "pg_depend"}


async def test_nothing_is_read_whole(make_database: Callable[..., str]) -> None:
    """Every object is looked up by an index, also once the catalogs were analyzed: most constraints are no domain's."""
    url = make_database()
    make(url, "base")
    many = "FOR i IN 1..400 LOOP EXECUTE format('CREATE TABLE t%s (id int CHECK (id > 0))', i); END LOOP;"
    execute(url, f"CREATE SCHEMA many; SET search_path = many; DO $$ BEGIN {many} END $$; ANALYZE")
    raw = await asyncpg.connect(url)
    try:
        (space,) = await fingerprint._survey(raw, ["base"])
        sql = shapes_sql(raw.get_server_version().major, frozenset(space.kinds))
        async with fingerprint._reading(raw, within=False):
            arguments = [space.name], space.relations, space.types, space.functions
            plan = json.loads(await raw.fetchval(f"EXPLAIN (FORMAT JSON) {sql}", *arguments))
    finally:
        await raw.close()

    looked_up = [node for node in nodes(plan[0]["Plan"]) if node.get("Relation Name") in LARGE]
    assert {node["Relation Name"] for node in looked_up} == LARGE
    whole = [node for node in looked_up if "Index Cond" not in node and node["Node Type"] != "Bitmap Heap Scan"]
    assert [(node["Relation Name"], node.get("Index Name"), node.get("Filter")) for node in whole] == []


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan's node, and all below it."""
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


# What a generated schema is made of; the order of columns is the same in all, as tests.catalog counts it.
COLUMNS = {
    "a": ["int", "bigint", "int DEFAULT 1", "int NOT NULL"],
    "b": ["text", "varchar(9)", 'text COLLATE "C"', "kind"],
    "c": ["int REFERENCES root", "int CHECK (c > 0)", "int UNIQUE", "serial"],
}
tables = st.fixed_dictionaries({}, optional={name: st.sampled_from(kinds) for name, kinds in COLUMNS.items()})
extras = st.sets(
    st.sampled_from(
        [
            "CREATE VIEW v AS SELECT * FROM root",
            "CREATE INDEX i ON root (id) WHERE id > 1",
            "ALTER TYPE kind RENAME VALUE 'x' TO 'y'",
            "CREATE FUNCTION f(kind) RETURNS kind LANGUAGE sql AS 'SELECT $1'",
            "CREATE SEQUENCE q CYCLE MAXVALUE 9",
        ]
    ),
    max_size=2,
)


@given(st.lists(st.tuples(tables, extras), min_size=2, max_size=5))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_agrees_with_the_tests_own_reading(shared: str, given_schemas: list[tuple[dict[str, str], set[str]]]) -> None:
    """For generated schemas: digests are equal exactly where the catalogs are, as the tests read them one by one."""
    schemas = []
    for columns, more in given_schemas:
        parts = ", ".join(f"{name} {kind}" for name, kind in sorted(columns.items()))
        sql = f"CREATE TYPE kind AS ENUM ('x'); CREATE TABLE root (id int PRIMARY KEY); CREATE TABLE t ({parts})"
        schemas.append(new(shared, ";".join([sql, *sorted(more)])))
    held = catalogs(shared, schemas)

    found = _run_digests(shared, schemas)

    for one, other in itertools.combinations(schemas, 2):
        assert (found[one] == found[other]) == (not difference(held[one], held[other])), (one, other)
    execute(shared, "".join(f"DROP SCHEMA {schema} CASCADE;" for schema in schemas))


def _run_digests(url: str, schemas: list[str]) -> dict[str, str]:
    async def run() -> dict[str, str]:
        connection = await asyncpg.connect(url)
        try:
            return {name: shape.digest for name, shape in (await fingerprints(connection, schemas, VERSIONS)).items()}
        finally:
            await connection.close()

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(run())


_made: list[PostgreSQL] = []


@pytest.fixture(autouse=True)
async def close_connections() -> AsyncIterator[None]:
    """Close what the test's adapters keep."""
    yield
    while _made:
        await _made.pop().close()


def adapter(url: str) -> PostgreSQL:
    """The adapter for the server at ``url``; closed after the test."""
    _made.append(PostgreSQL(Server("main", Template(url, Path("/")))))
    return _made[-1]


async def test_adapter_over_databases(make_database: object, database: str) -> None:
    """Tenants in schemas and in databases of their own are compared by one call; who is not there is left out."""
    second = make_database()  # type: ignore[operator]
    for url, schema in ((database, "a"), (database, "b"), (second, "a")):
        make(url, schema)
    for url in (database, second):
        execute(url, BASE)
    # Nothing in it is the tenant's, but that it is there is: the database is the tenant's.
    execute(second, "CREATE EXTENSION hstore")
    other = urlsplit(second).path.lstrip("/")

    found = await adapter(database).fingerprints(
        [
            Tenant("a", "main", Isolation.SCHEMA, "a"),
            Tenant("b", "main", Isolation.SCHEMA, "b"),
            Tenant("far", "main", Isolation.SCHEMA, "a", other),
            Tenant("missing", "main", Isolation.SCHEMA, "missing"),
            Tenant("nowhere", "main", Isolation.DATABASE, None, "no_such_database"),
            Tenant("whole", "main", Isolation.DATABASE),
            Tenant("more", "main", Isolation.DATABASE, None, other),
        ],
        VERSIONS,
    )

    assert found.keys() == {"a", "b", "far", "whole", "more"}
    assert found["a"] == found["b"] == found["far"]
    assert found["whole"] != found["more"]


async def test_schema_without_usage_is_left_out(pg: PostgresServer, database: str) -> None:
    """A schema that the role may not use would print with its name everywhere: it is not read at all."""
    name = urlsplit(database).path.lstrip("/")
    execute(database, f'CREATE SCHEMA a; CREATE SCHEMA b; CREATE ROLE "{name}" LOGIN')
    execute(database, f'GRANT USAGE ON SCHEMA b TO "{name}"')
    connection = await asyncpg.connect(with_role(database, name, ""))
    try:
        found = await fingerprints(connection, ["a", "b"], VERSIONS)
    finally:
        await connection.close()
        execute(database, f'DROP OWNED BY "{name}"; DROP ROLE "{name}"')

    assert list(found) == ["b"]
