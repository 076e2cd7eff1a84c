"""Scripts on a real server: what each guard refuses, what stays when one does, and what is left in the session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import asyncpg
import pytest

from orchestrator.databases.postgresql.script import Place, Step, identifier, literal, script
from tests.servers import PostgresServer, execute, fetch

KEY = -7_000_000_000_000_000_001
#: Heads as nobody writes them, and as everybody does.
STRANGE = ["o'brien", 'we"ird', "back\\slash\\", "日本", "a b", "A", "a", "_", "%s", "$1", "ae1027a6acf", ""]
#: What a fresh session has of everything that one may hold.
_HELD = (
    "SELECT current_user = session_user, (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()"
    " AND locktype = 'advisory'), (SELECT count(*) FROM pg_prepared_statements WHERE from_sql),"
    " (SELECT count(*) FROM pg_cursors WHERE name <> ''), (SELECT count(*) FROM pg_listening_channels()),"
    " (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()),"
    " current_setting('search_path'), current_setting('lock_timeout'), current_setting('application_name')"
)


@pytest.fixture(scope="module")
def database(pg: PostgresServer) -> Iterator[str]:
    """One database for all tests here, each of which makes its schemas anew: making a database takes longer."""
    url = pg.create_database()
    yield url
    pg.drop_database(url)


@pytest.fixture
def place(database: str) -> Place:
    """A tenant in a schema, at r1."""
    execute(
        database,
        "DROP SCHEMA IF EXISTS a, b CASCADE; DROP TABLE IF EXISTS public.alembic_version;"
        "CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.alembic_version (version_num varchar(32) PRIMARY KEY);"
        "INSERT INTO a.alembic_version VALUES ('r1')",
    )
    settings = {"search_path": "a", "application_name": "orchestrator", "lock_timeout": "200"}
    return Place(urlsplit(database).path.lstrip("/"), "a", KEY, "alembic_version", settings)


#: What the server itself says of a version table with more rows than the one that is expected.
_SEVERAL = "more than one row returned by a subquery used as an expression"


@pytest.fixture
async def raw(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection as lanes have them."""
    connection = await asyncpg.connect(database, statement_cache_size=0)
    yield connection
    await connection.close()


def step(*statements: str, before: Iterable[str] = ("r1",), after: Iterable[str] = ("r2",)) -> Step:
    """One transaction."""
    return Step(("rev",), tuple(sorted(before)), tuple(sorted(after)), statements)


def heads(url: str) -> list[str]:
    """What the tenant's version table says."""
    return sorted(row[0] for row in fetch(url, "SELECT version_num FROM a.alembic_version"))


def put(url: str, revisions: Iterable[str]) -> None:
    """Move the tenant's version table."""
    rows = ";".join(f"INSERT INTO a.alembic_version VALUES ({literal(each)})" for each in revisions)
    execute(url, f"DELETE FROM a.alembic_version; {rows}")


def tables(url: str) -> list[str]:
    """What the tenant has, but for its version table."""
    rows = fetch(url, "SELECT relname FROM pg_class WHERE relnamespace = 'a'::regnamespace AND relkind = 'r'")
    return sorted(row[0] for row in rows if row[0] != "alembic_version")


async def refusal(raw: asyncpg.Connection, place: Place, *steps: Step) -> str:
    """The word with which the script refuses."""
    with pytest.raises(asyncpg.PostgresError) as refused:
        await raw.execute(script(place, steps))
    return str(refused.value).rpartition("refuses: ")[2].strip('"')


async def test_a_script_does_what_it_says(database: str, place: Place, raw: asyncpg.Connection) -> None:
    """Both steps' statements are done in the tenant's schema, and its version table moves along."""
    second = step("CREATE TABLE two ()", before=["r2"], after=["r3"])

    await raw.execute(script(place, [step("CREATE TABLE one ()"), second]))

    assert (tables(database), heads(database)) == (["one", "two"], ["r3"])


async def test_locked_by_another(database: str, place: Place, raw: asyncpg.Connection) -> None:
    """Somebody else's lock on the tenant: nothing is done, and nothing is waited for."""
    other = await asyncpg.connect(database)
    try:
        await other.execute(f"SELECT pg_advisory_lock({KEY})")
        assert await refusal(raw, place, step("CREATE TABLE one ()")) == "locked"
    finally:
        await other.close()
    assert (tables(database), heads(database)) == ([], ["r1"])


async def test_another_database(database: str, place: Place, raw: asyncpg.Connection) -> None:
    """A connection that leads elsewhere (a pooler's alias, say) is refused before the lock is taken."""
    elsewhere = replace(place, database="elsewhere")

    assert await refusal(raw, elsewhere, step("CREATE TABLE one ()")) == "database"
    assert not await raw.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
    assert tables(database) == []


@pytest.mark.parametrize("path", ["b", "b, a", '"missing"', ""])
async def test_another_schema(database: str, place: Place, raw: asyncpg.Connection, path: str) -> None:
    """Where unqualified names do not mean the tenant's schema, nothing is done."""
    lost = replace(place, settings={**place.settings, "search_path": path})

    assert await refusal(raw, lost, step("CREATE TABLE one ()")) == "scope"
    assert tables(database) == []


@pytest.mark.parametrize(
    "turn", ["SET search_path TO b", "SET LOCAL search_path TO b", "SELECT set_config('search_path', '', false)"]
)
async def test_a_step_that_leaves_the_schema(database: str, place: Place, raw: asyncpg.Connection, turn: str) -> None:
    """A statement that turns the search path away is rolled back with all of its step."""
    assert await refusal(raw, place, step("CREATE TABLE one ()", turn)) == "scope"
    assert (tables(database), heads(database)) == ([], ["r1"])


@pytest.mark.parametrize(
    ("found", "word"), [(["r0"], "moved"), (["r2"], "moved"), ([], "moved"), (["r1", "x1"], _SEVERAL)]
)
async def test_moved_heads(database: str, place: Place, raw: asyncpg.Connection, found: list[str], word: str) -> None:
    """A tenant that is not where the recording began is left alone: behind, ahead, at base, or with one head more."""
    put(database, found)

    assert await refusal(raw, place, step("CREATE TABLE one ()")) == word
    assert (tables(database), heads(database)) == ([], sorted(found))


@pytest.mark.parametrize(
    ("slip", "word"),
    [
        ("UPDATE alembic_version SET version_num = 'x'", "heads"),
        ("DELETE FROM alembic_version", "heads"),
        ("INSERT INTO alembic_version VALUES ('x')", _SEVERAL),
    ],
)
async def test_heads_after(database: str, place: Place, raw: asyncpg.Connection, slip: str, word: str) -> None:
    """A step after which the version table says something else than it should is rolled back."""
    assert await refusal(raw, place, step("CREATE TABLE one ()", slip)) == word
    assert (tables(database), heads(database)) == ([], ["r1"])


async def test_done_is_what_is_found_after_the_commit(database: str, place: Place, raw: asyncpg.Connection) -> None:
    """What changes the heads only when the transaction commits is found out."""
    late = [
        "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN UPDATE a.alembic_version SET version_num = 'late'; RETURN NULL; END $$",
        "CREATE TABLE one (id int)",
        "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON one DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION late()",
        "INSERT INTO one VALUES (1)",
    ]
    assert await refusal(raw, place, step(*late)) == "uncommitted"
    assert heads(database) == ["late"]


async def test_a_lock_that_was_given_up(database: str, place: Place, raw: asyncpg.Connection) -> None:
    """A statement that releases the tenant's lock is not passed over."""
    assert await refusal(raw, place, step(f"SELECT pg_advisory_unlock({KEY})")) == "unlocked"


async def test_what_stays_when_the_second_step_fails(database: str, place: Place, raw: asyncpg.Connection) -> None:
    """The first step is committed, the second undone, the third never begun; the lock goes with the connection."""
    steps = [
        step("CREATE TABLE one ()"),
        step("CREATE TABLE two ()", "SELECT 1 / 0", before=["r2"], after=["r3"]),
        step("CREATE TABLE three ()", before=["r3"], after=["r4"]),
    ]
    with pytest.raises(asyncpg.DivisionByZeroError):
        await raw.execute(script(place, steps))

    assert (tables(database), heads(database)) == (["one"], ["r2"])
    await raw.close()
    assert fetch(database, f"SELECT pg_try_advisory_lock({KEY})")[0][0]


async def test_what_stays_when_the_second_steps_guard_fails(
    database: str, place: Place, raw: asyncpg.Connection
) -> None:
    """A guard in the second step undoes that step alone."""
    steps = [
        step("CREATE TABLE one ()"),
        step("CREATE TABLE two ()", "DELETE FROM alembic_version", before=["r2"], after=["r3"]),
    ]
    assert await refusal(raw, place, *steps) == "heads"
    assert (tables(database), heads(database)) == (["one"], ["r2"])


@pytest.mark.parametrize("end", [" -- as agreed", "\n-- as agreed", " /* as agreed */", ";", "; -- as agreed"])
async def test_a_statement_that_ends_in_a_comment(
    database: str, place: Place, raw: asyncpg.Connection, end: str
) -> None:
    """A comment or a semicolon at the end of a statement does not swallow the next one."""
    await raw.execute(script(place, [step(f"CREATE TABLE one (){end}", f"CREATE TABLE two (){end}")]))

    assert (tables(database), heads(database)) == (["one", "two"], ["r2"])


async def test_nothing_but_comments(database: str, place: Place, raw: asyncpg.Connection) -> None:
    """A step without a statement still moves the heads."""
    await raw.execute(script(place, [step("-- nothing to do", "")]))

    assert heads(database) == ["r2"]


@pytest.mark.parametrize("head", STRANGE)
@pytest.mark.parametrize("conforming", ["on", "off"])
async def test_heads_of_any_characters(
    database: str, place: Place, raw: asyncpg.Connection, head: str, conforming: str
) -> None:
    """Quotes, backslashes and other scripts in a revision's name are compared and written as they are."""
    put(database, [head])
    strings = replace(place, settings={**place.settings, "standard_conforming_strings": conforming})

    await raw.execute(script(strings, [step(before=[head], after=[f"{head}+"])]))
    assert heads(database) == [f"{head}+"]
    assert await refusal(raw, strings, step(before=[f"{head}x"], after=["r2"])) == "moved"


async def test_many_heads_in_one_order(database: str, place: Place, raw: asyncpg.Connection) -> None:
    """Which of several heads comes first is the same to the server as to whoever wrote the script."""
    put(database, STRANGE)

    await raw.execute(script(place, [step(before=STRANGE, after=[*STRANGE, "ж"])]))

    assert heads(database) == sorted([*STRANGE, "ж"])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], ["r1"]),
        (["r1"], []),
        (["a1"], ["a1", "b1"]),
        (["a1", "b1"], ["m1"]),
        (["m1"], ["a1", "b1"]),
        (["a1", "b1"], ["a2", "b1"]),
        (["a1", "b1", "c1"], ["b1"]),
        (["a1", "b1"], ["b1", "c1", "d1"]),
        ([], ["a1", "b1"]),
    ],
)
async def test_branches_and_merges(
    database: str, place: Place, raw: asyncpg.Connection, before: list[str], after: list[str]
) -> None:
    """Heads are added, replaced and taken away, and those that stay are left alone."""
    put(database, before)

    await raw.execute(script(place, [step(before=before, after=after)]))

    assert heads(database) == sorted(after)


async def test_the_version_table_is_made(database: str, place: Place, raw: asyncpg.Connection) -> None:
    """From base without a table it is made; where one is there, it is used."""
    made = replace(
        step(before=[], after=["r1"]), version_table="CREATE TABLE IF NOT EXISTS alembic_version (version_num text)"
    )
    execute(database, "DROP TABLE a.alembic_version")

    await raw.execute(script(place, [made]))
    assert heads(database) == ["r1"]
    put(database, [])
    await raw.execute(script(place, [made]))
    assert heads(database) == ["r1"]


async def test_without_a_version_table(database: str, place: Place, raw: asyncpg.Connection) -> None:
    """A tenant whose version table is gone, or whose schema is, is refused by the server."""
    execute(database, "DROP TABLE a.alembic_version")
    with pytest.raises(asyncpg.UndefinedTableError):
        await raw.execute(script(place, [step("CREATE TABLE one ()")]))
    assert tables(database) == []


@pytest.mark.parametrize("schema", ['we"ird', "o'brien", "back\\slash", "ж" * 31, "a.b", "A B"])
async def test_schemas_of_any_name(database: str, place: Place, raw: asyncpg.Connection, schema: str) -> None:
    """A schema's name is quoted wherever it stands."""
    name = identifier(schema)
    execute(database, f"CREATE SCHEMA {name}; CREATE TABLE {name}.alembic_version AS SELECT 'r1' AS version_num")

    await raw.execute(
        script(replace(place, schema=schema, settings={"search_path": name}), [step("CREATE TABLE one ()")])
    )

    assert [row[0] for row in fetch(database, f"SELECT version_num FROM {name}.alembic_version")] == ["r2"]
    assert tables(database) == []


async def test_a_database_of_its_own(database: str, place: Place, raw: asyncpg.Connection) -> None:
    """Without a schema, the version table is the one that the search path finds."""
    execute(database, "CREATE TABLE public.alembic_version AS SELECT 'r1' AS version_num")

    await raw.execute(script(replace(place, schema=None, settings={}), [step("CREATE TABLE one ()")]))

    assert [row[0] for row in fetch(database, "SELECT version_num FROM public.alembic_version")] == ["r2"]
    assert (heads(database), tables(database)) == (["r1"], [])


#: What a statement may leave in a session, however it is hidden.
LEFT = [
    "SELECT set_config('role', 'pg_monitor', false)",
    "SELECT pg_advisory_lock(5), pg_advisory_lock(5), pg_advisory_lock_shared(6)",
    "CREATE TEMP TABLE left_over ()",
    "CREATE TABLE pg_temp.left_over ()",
    "CREATE TABLE one AS SELECT pg_try_advisory_lock(5)",
    "UPDATE alembic_version SET version_num = version_num WHERE pg_try_advisory_lock(5)",
    "PREPARE left_over AS SELECT 1",
    "DO $$ BEGIN EXECUTE 'DECLARE left_over CURSOR WITH HOLD FOR SELECT 1'; EXECUTE 'LISTEN left_over'; END $$",
    "SET SESSION AUTHORIZATION pg_monitor",
]


@pytest.mark.parametrize("statement", LEFT)
async def test_the_session_is_left_clean(place: Place, raw: asyncpg.Connection, statement: str) -> None:
    """Roles, settings, locks, temporary tables, prepared statements, cursors: none is there for the next tenant."""
    fresh = tuple(await raw.fetchrow(_HELD))
    # A role that was taken still has to move the heads.
    await raw.execute("GRANT ALL ON SCHEMA a TO pg_monitor; GRANT ALL ON a.alembic_version TO pg_monitor")

    await raw.execute(script(place, [step(statement)]))

    assert tuple(await raw.fetchrow(_HELD)) == fresh
