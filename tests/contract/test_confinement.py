"""What a migration may do in a place that will be gone: nothing that would stay, however it is said."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, nullcontext

import asyncpg
import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from orchestrator.databases.beyond import Beyond
from orchestrator.databases.postgresql.concurrently import let_wait
from orchestrator.databases.postgresql.confinement import Confinement
from tests.servers import PostgresServer, execute, fetch

OWN = "own"
#: All that the server's databases share, as text.
_SHARED = """
    SELECT 'role', r::text FROM pg_roles r UNION ALL SELECT 'member', m::text FROM pg_auth_members m
    UNION ALL SELECT 'database', d.datname || coalesce(d.datacl::text, '') || d.datconnlimit FROM pg_database d
    UNION ALL SELECT 'setting', s::text FROM pg_db_role_setting s UNION ALL SELECT 'note', c::text
    FROM pg_shdescription c
    UNION ALL SELECT 'system', current_setting('work_mem') ORDER BY 1, 2
"""
_QUOTED = "DO $$ BEGIN EXECUTE 'CREATE ROLE confined_new'; END $$"
#: What reaches beyond a database, and what is said of it.
BEYOND = {
    "CREATE ROLE confined_new": "pg_authid",
    _QUOTED: "pg_authid",
    "GRANT confined_a TO confined_b": "pg_auth_members",
    "/* CONCURRENTLY */ GRANT confined_a TO confined_b": "pg_auth_members",
    "REVOKE confined_a FROM confined_c": "pg_auth_members",
    "ALTER ROLE confined_a SET work_mem = '5MB'": "pg_db_role_setting",
    "DROP ROLE confined_d": "pg_authid",
    "GRANT CREATE ON DATABASE postgres TO confined_a": "pg_database",
    "ALTER DATABASE postgres SET work_mem = '5MB'": "pg_db_role_setting",
    "COMMENT ON ROLE confined_a IS 'x'": "pg_shdescription",
    "CREATE SUBSCRIPTION mine CONNECTION 'dbname=x' PUBLICATION p WITH (connect = false)": "pg_subscription",
    "CREATE FOREIGN DATA WRAPPER mine": "the foreign data wrapper mine",
    "CREATE EXTENSION postgres_fdw": "the foreign data wrapper postgres_fdw",
    "CREATE EXTENSION dblink": "the extension dblink",
    "DO $$ BEGIN EXECUTE 'CREATE SERVER other FOREIGN DATA WRAPPER there'; END $$": "the foreign server other",
    "CREATE FOREIGN TABLE far (id int) SERVER here": "the foreign table far",
    "COPY kept TO PROGRAM 'cat > /dev/null'": "files or programs",
    "COPY (SELECT 1) TO '/dev/null'": "files or programs",
    "COPY kept FROM PROGRAM 'echo 7'": "files or programs",
    "SELECT lo_export(1, '/dev/null')": "files or programs",
}
#: What PostgreSQL runs only outside transactions.
ALONE = [
    "ALTER SYSTEM SET work_mem = '5MB'",
    "CREATE DATABASE confined_new",
    "DO $$ BEGIN COMMIT; EXECUTE 'CREATE ROLE confined_new'; END $$",
    "DO $$ BEGIN COMMIT; CREATE ROLE confined_new; END $$",
    "CALL public.reaches()",
    "CALL outer_one()",
]
#: What stays in the database.
STAYS = [
    "CREATE TABLE made (id int)",
    "INSERT INTO kept VALUES (2)",
    "DO $$ BEGIN CREATE ROLE confined_a; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = ''5MB''', current_database()); END $$",
    "DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO confined_a', current_database()); END $$",
    "DO $$ BEGIN EXECUTE format('COMMENT ON DATABASE %I IS ''x''', current_database()); END $$",
    "GRANT SELECT ON kept TO confined_a",
    "SELECT 'COPY of a', 'PROGRAM'",
]
#: The same, and PostgreSQL runs it only outside transactions.
STAYS_ALONE = [
    "DO $$ BEGIN UPDATE kept SET id = id + 1; COMMIT; UPDATE kept SET id = id - 1; END $$",
    'CALL "parts"(2)',
    "CREATE INDEX CONCURRENTLY ix ON kept (id)",
    "REINDEX (VERBOSE) TABLE CONCURRENTLY kept",
    "VACUUM kept",
    "VACUUM FULL ANALYZE public.kept (id)",
    'VACUUM (FULL) "full"',
    "CLUSTER VERBOSE kept USING of_kept",
]


@pytest.fixture(scope="module")
def place(pg: PostgresServer) -> Iterator[str]:
    """Address of a database with a table and a foreign server in it, on a server with roles."""
    roles = [f"confined_{name}" for name in "abcd"]
    execute(pg.url, "; ".join(f"CREATE ROLE {role}" for role in roles) + "; GRANT confined_a TO confined_c")
    url = pg.create_database()
    execute(url, "CREATE TABLE kept AS SELECT 1 AS id; CREATE FOREIGN DATA WRAPPER there")
    execute(url, 'CREATE INDEX of_kept ON kept (id); CREATE TABLE "full" ()')
    execute(url, "CREATE SERVER here FOREIGN DATA WRAPPER there")
    for head, body in {
        "parts(int)": "FOR n IN 1..$1 LOOP UPDATE kept SET id = id; COMMIT; END LOOP",
        "reaches()": "GRANT confined_a TO confined_b; COMMIT",
        "outer_one()": "CALL reaches()",
    }.items():
        execute(url, f"CREATE PROCEDURE {head} LANGUAGE plpgsql AS $$ BEGIN {body}; END $$")
    yield url
    pg.drop_database(url)
    execute(pg.url, f"DROP ROLE IF EXISTS {', '.join(roles)}, confined_new")


@asynccontextmanager
async def engine_of(url: str) -> AsyncIterator[AsyncEngine]:
    """An engine as migrations have one."""
    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"))
    try:
        yield engine
    finally:
        await engine.dispose()


async def on_a_lane(url: str, act: Callable[[Connection], object], *, alone: bool) -> None:
    """Have ``act`` do something on a connection as migrations have one, in transactions or ``alone``, outside any."""
    async with engine_of(url) as engine, engine.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        # As on a lane; it would send what says CONCURRENTLY itself.
        let_wait(engine.sync_engine, raw)
        if alone:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.run_sync(act)


async def run(url: str, confinement: Confinement, act: Callable[[Connection], object], *, alone: bool) -> None:
    """Have ``act`` do something in a transaction, which is committed, or ``alone``; confined."""

    def confined(sync: Connection) -> None:
        confinement.listen(sync)
        try:
            act(sync)
            sync.commit()
        finally:
            confinement.end()

    await on_a_lane(url, confined, alone=alone)


def shared(pg: PostgresServer) -> list[asyncpg.Record]:
    """What all databases share now."""
    return fetch(pg.url, _SHARED)


@pytest.mark.parametrize("alone", [False, True], ids=["in a transaction", "alone"])
@pytest.mark.parametrize("statement", BEYOND)
async def test_beyond(place: str, pg: PostgresServer, statement: str, alone: bool) -> None:
    """Roles, other databases, foreign servers, the host: refused with the statement, whoever catches the error."""
    before, confinement = shared(pg), Confinement(OWN)

    def swallows(connection: Connection) -> None:
        with pytest.raises(Beyond, match=BEYOND[statement]):
            connection.exec_driver_sql(statement)

    # Whoever catches it commits: there is nothing left to be committed.
    await run(place, confinement, swallows, alone=alone)
    assert shared(pg) == before
    assert fetch(place, "SELECT count(*) FROM pg_foreign_server")[0][0] == 1
    assert confinement.refused is not None
    assert "that was not done" in confinement.refused.message


@pytest.mark.parametrize("statement", ALONE)
async def test_only_outside_transactions(place: str, pg: PostgresServer, statement: str) -> None:
    """What nobody could take back is not run at all, unless it is known to stay in the database."""
    before, confinement = shared(pg), Confinement(OWN)
    with pytest.raises(Beyond, match="runs only outside transactions"):
        await run(place, confinement, lambda connection: connection.exec_driver_sql(statement), alone=True)
    assert shared(pg) == before


@pytest.mark.parametrize(
    ("statement", "alone"),
    [*((each, way) for each in STAYS for way in (False, True)), *((each, True) for each in STAYS_ALONE)],
)
async def test_stays(place: str, statement: str, alone: bool) -> None:
    """What goes with the database is done: its own settings and rights, too, and a role that is there already."""
    confinement = Confinement(OWN)
    await run(place, confinement, lambda connection: connection.exec_driver_sql(statement), alone=alone)
    assert confinement.refused is None
    execute(place, "DROP TABLE IF EXISTS made; DROP INDEX IF EXISTS ix")


async def test_a_schema_in_a_database_of_others(place: str) -> None:
    """Where the place is but a schema, the database's own settings are not its own."""
    confinement = Confinement(OWN, alone=False)
    with pytest.raises(Beyond, match="pg_db_role_setting"):
        await run(place, confinement, lambda connection: connection.exec_driver_sql(STAYS[3]), alone=False)


async def test_however_it_is_sent(place: str, pg: PostgresServer) -> None:
    """After a COMMIT in SQL, on a second connection, many at once, and put off to the commit: refused all the same."""
    before = shared(pg)

    def after_commit(connection: Connection) -> None:
        connection.exec_driver_sql("SELECT 1")
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql(_QUOTED)

    def second(connection: Connection) -> None:
        with connection.engine.begin() as other:
            other.exec_driver_sql(_QUOTED)

    def many(connection: Connection) -> None:
        execute(
            place,
            "CREATE OR REPLACE FUNCTION runs(text) RETURNS int LANGUAGE plpgsql AS"
            " $$ BEGIN EXECUTE $1; RETURN 1; END $$",
        )
        connection.execute(text("INSERT INTO kept VALUES (runs(:what))"), [{"what": "CREATE ROLE confined_new"}])

    def put_off(connection: Connection) -> None:
        connection.exec_driver_sql(
            "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN CREATE ROLE confined_new; RETURN NULL; END $$"
        )
        connection.exec_driver_sql(
            "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON kept DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION late()"
        )
        connection.exec_driver_sql("INSERT INTO kept VALUES (3)")

    for act in (after_commit, second, many, put_off):
        with pytest.raises(Beyond, match="pg_authid"):
            await run(place, Confinement(OWN), act, alone=False)
        assert shared(pg) == before, act


@pytest.mark.parametrize("alone", [False, True], ids=["in transactions", "alone"])
async def test_counters_of_earlier_transactions(place: str, pg: PostgresServer, alone: bool) -> None:
    """What an earlier transaction was let write is not a later one's, whether or not the server still counts it."""
    before, role = shared(pg), "ALTER ROLE confined_a SET work_mem = '5MB'"
    setting = STAYS[3].replace("work_mem", "maintenance_work_mem")

    def counted(connection: Connection) -> int:
        of = "('pg_db_role_setting'::regclass)"
        sums = " + ".join(f"pg_stat_get_xact_tuples_{each}{of}" for each in ("inserted", "updated"))
        return connection.exec_driver_sql(f"SELECT {sums}").scalar() or 0

    def still_counted(connection: Connection) -> None:
        # The server puts them aside when a second has gone by since it last did.
        while not counted(connection):
            connection.exec_driver_sql(setting)
            connection.commit()
        connection.exec_driver_sql("INSERT INTO kept VALUES (4)")
        connection.exec_driver_sql(setting)
        connection.rollback()
        # Whoever measures begins the next transaction before the migration does.
        connection.exec_driver_sql("SELECT 1", execution_options={OWN: True})
        connection.exec_driver_sql("INSERT INTO kept VALUES (4)")

    def put_aside(connection: Connection) -> None:
        connection.exec_driver_sql("SELECT 1")
        while counted(connection):
            connection.commit()
        connection.commit()
        connection.exec_driver_sql(role)

    first, second = Confinement(OWN), Confinement(OWN)

    def both(connection: Connection) -> None:
        first.listen(connection)
        still_counted(connection)
        connection.commit()
        first.end()
        second.listen(connection)
        with pytest.raises(Beyond, match="pg_db_role_setting"):
            put_aside(connection)
        second.end()

    await on_a_lane(place, both, alone=alone)
    assert first.refused is None
    execute(place, f"ALTER DATABASE {place.rpartition('/')[2]} RESET maintenance_work_mem")
    assert shared(pg) == before


@pytest.mark.parametrize("others", [1, 3])
async def test_others_are_busy(place: str, others: int) -> None:
    """Transactions of others, between the first look and the first row that is written, confuse nobody."""

    def makes(connection: Connection) -> None:
        connection.exec_driver_sql("SELECT 1")
        for _ in range(others):
            execute(place, "SELECT txid_current()")
        with connection.begin_nested():
            connection.exec_driver_sql("CREATE TABLE made (id int)")
        connection.exec_driver_sql("CREATE SERVER another FOREIGN DATA WRAPPER there")

    with pytest.raises(Beyond, match="the foreign server another"):
        await run(place, Confinement(OWN), makes, alone=False)


async def test_the_operator_says_so(place: str, pg: PostgresServer) -> None:
    """Lenient, what ends its transaction by itself runs, and is named; what is seen in a transaction is refused."""
    confinement = Confinement(OWN, lenient=True)
    counts = "DO $$ BEGIN EXECUTE 'UPDATE kept SET id = id + 10'; COMMIT; END $$"
    await run(place, confinement, lambda connection: connection.exec_driver_sql(counts), alone=True)
    assert [each[:2] for each in confinement.unseen] == ["DO"]
    assert min(row[0] for row in fetch(place, "SELECT id FROM kept")) > 10
    act = "GRANT confined_a TO confined_b"
    with pytest.raises(Beyond, match="pg_auth_members"):
        await run(place, confinement, lambda connection: connection.exec_driver_sql(act), alone=True)


async def test_at_its_word(place: str, pg: PostgresServer) -> None:
    """Where a body's words count for the SQL that it puts together, it fills in batches; what says more is refused."""
    before, fills = shared(pg), "DO $$ BEGIN EXECUTE 'UPDATE kept SET id = id + 100'; COMMIT; END $$"

    def at_once(statement: str, confinement: Confinement) -> Coroutine[None, None, None]:
        return run(place, confinement, lambda connection: connection.exec_driver_sql(statement), alone=True)

    with pytest.raises(Beyond, match="runs only outside transactions") as refused:
        await at_once(fills, Confinement(OWN))
    assert "write the loop in Python" in (refused.value.hint or "")
    await at_once(fills, Confinement(OWN, at_its_word=True))
    assert min(row[0] for row in fetch(place, "SELECT id FROM kept")) > 100
    with pytest.raises(Beyond, match="runs only outside transactions"):
        await at_once(ALONE[2], Confinement(OWN, at_its_word=True))
    assert shared(pg) == before


@pytest.mark.parametrize(
    "statement",
    [
        "REINDEX DATABASE {name}",
        "VACUUM",
        "vacuum full;",
        "VACUUM FULL FREEZE VERBOSE ANALYZE",
        "VACUUM (FULL, ANALYSE false) ; ",
        "/* all (of) them */ VACUUM -- kept",
        "CLUSTER",
        "CLUSTER VERBOSE;",
        "CLUSTER /* kept */ (VERBOSE)",
    ],
)
async def test_all_of_its_database(place: str, statement: str) -> None:
    """Without a table's name it is all of the database, and no more; where that is others', too, it is refused."""
    said = statement.format(name=place.rpartition("/")[2])
    for alone in (True, False):
        confinement = Confinement(OWN, alone=alone)
        with nullcontext() if alone else pytest.raises(Beyond, match="runs only outside transactions"):
            await run(
                place,
                confinement,
                lambda connection: connection.exec_driver_sql(said),
                alone=True,
            )


async def test_an_error_of_its_own(place: str) -> None:
    """A statement that fails by itself is the driver's error as ever, and leaves no transaction open."""

    def fails(connection: Connection) -> None:
        with pytest.raises(DBAPIError, match="division by zero"):
            connection.exec_driver_sql("SELECT 1 / 0")
        assert connection.exec_driver_sql("SELECT txid_current_if_assigned()").scalar() is None

    await run(place, Confinement(OWN), fails, alone=True)


@pytest.mark.parametrize("way", ["alone", "COMMIT in SQL", "commit"])
async def test_what_fails_at_the_commit(place: str, way: str) -> None:
    """A deferred constraint that does not hold is SQLAlchemy's error wherever the commit comes from, and is undone."""
    execute(place, "CREATE TABLE IF NOT EXISTS late_ones (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)")

    def twice(connection: Connection) -> None:
        connection.exec_driver_sql("INSERT INTO late_ones VALUES (1), (1)")
        if way == "COMMIT in SQL":
            connection.exec_driver_sql("COMMIT")
        connection.commit()

    def fails(connection: Connection) -> None:
        with pytest.raises(IntegrityError):
            twice(connection)
        connection.rollback()
        assert connection.exec_driver_sql("SELECT count(*) FROM late_ones").scalar() == 0

    await run(place, Confinement(OWN), fails, alone=way == "alone")


async def test_isolated_by_a_statement(place: str) -> None:
    """SET TRANSACTION has to come before any question, of which none is asked before it."""

    def isolates(connection: Connection) -> None:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        assert connection.exec_driver_sql("SHOW transaction_isolation").scalar() == "serializable"
        with pytest.raises(Beyond, match="pg_authid"):
            connection.exec_driver_sql(_QUOTED)

    await run(place, Confinement(OWN), isolates, alone=False)


async def test_no_listener_stays(place: str) -> None:
    """The engine serves another tenant next: one listener that cannot be removed leaves no other behind."""

    def another(connection: Connection) -> None:
        confinement = Confinement(OWN)
        confinement.listen(connection)
        confinement._ending.append(lambda: event.remove(connection.engine, "commit", print))
        confinement.end()
        connection.exec_driver_sql("CREATE FOREIGN DATA WRAPPER mine")
        connection.rollback()

    await on_a_lane(place, another, alone=False)
