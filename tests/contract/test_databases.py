"""What orchestrator/databases/port/database.py promises, held against every adapter and kind of isolation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sized
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

from orchestrator.databases.answers import Reading
from orchestrator.databases.claims import Claim, Found, Holds, Marker
from orchestrator.databases.cloning import Cloning
from orchestrator.databases.connect import connect
from orchestrator.databases.failures import describe
from orchestrator.databases.port.database import Database, Session
from orchestrator.errors import DatabaseError, OrchestratorError, TenantLocked, Unprovisioned
from orchestrator.fleet.secrets import Template
from orchestrator.fleet.tenant import Isolation, Limits, Server, Tenant
from tests.servers import PostgresServer, fetch

VERSIONS = "alembic_version"
LIMITS = Limits(lock_timeout=0.05, statement_timeout=60)


@dataclass(slots=True)
class Place:
    """A physical server under test and tenants on it."""

    kind: str
    root: Path
    url: str
    isolation: Isolation
    database: Database = field(init=False)
    #: All that were made.
    adapters: list[Database] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.database = self.declared()

    def declared(self, name: str = "main", url: str | None = None) -> Database:
        """One more declaration of the server, or of another one."""
        database = connect(Server(name, Template(url or self.url, self.root), max_concurrency=4))
        self.adapters.append(database)
        return database

    def tenant(self, id: str) -> Tenant:
        """A tenant that does not exist yet."""
        schema = id if self.isolation is Isolation.SCHEMA else None
        # Databases are the server's: this test's have names that no other test's have.
        own = urlsplit(self.url).path.lstrip("/")
        database = f"{own}_{id}" if self.isolation is Isolation.DATABASE else None
        file = str(self.root / "data" / f"{id}.db") if self.isolation is Isolation.FILE else None
        return Tenant(id, "main", self.isolation, schema, database, file)

    async def made(self, id: str) -> Tenant:
        """A tenant that exists, empty."""
        tenant = self.tenant(id)
        await self.database.provision(tenant)
        return tenant

    @asynccontextmanager
    async def session(self, tenant: Tenant) -> AsyncIterator[Session]:
        """A session as a run opens it."""
        async with self.database.session(tenant, f"suite {tenant.id}", LIMITS) as session:
            yield session

    async def run(self, tenant: Tenant, *statements: str) -> None:
        """Run statements in one committed transaction of the tenant's."""
        async with self.session(tenant) as session, session.connection.begin():
            for statement in statements:
                await session.connection.execute(text(statement))

    async def stamp(self, tenant: Tenant, *heads: str, table: str = VERSIONS) -> None:
        """Give the tenant a version table as Alembic makes it."""
        rows = [f"INSERT INTO {table} VALUES ('{head}')" for head in heads]
        await self.run(tenant, f"CREATE TABLE {table} (version_num VARCHAR(32) NOT NULL)", *rows)

    async def heads(self, tenant: Tenant) -> Reading:
        """What reading this tenant alone says."""
        return (await self.database.read([tenant], VERSIONS))[tenant.id]


@pytest.fixture(params=["postgresql schema", "postgresql database", "sqlite file"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """Every adapter, in every isolation it offers."""
    kind, _, isolation = request.param.partition(" ")
    if kind == "sqlite":
        yield Place(kind, tmp_path, f"sqlite:///{tmp_path / 'data'}", Isolation.FILE)
        return
    url = request.getfixturevalue("database")
    made = Place(kind, tmp_path, url, Isolation(isolation))
    yield made
    for adapter in made.adapters:
        await adapter.close()
    pg: PostgresServer = request.getfixturevalue("pg")
    own = urlsplit(url).path.lstrip("/")
    for (name,) in fetch(pg.url, f"SELECT datname FROM pg_database WHERE starts_with(datname, '{own}_')"):
        pg.drop_database(pg.database_url(name))


async def test_missing_place_is_read_as_missing(place: Place) -> None:
    """What does not exist is told apart from what is empty, and is no failure."""
    assert await place.heads(place.tenant("a")) == Reading(exists=False)


async def test_missing_place_opens_no_session(place: Place) -> None:
    """A session on what does not exist is refused, and makes nothing."""
    with pytest.raises(Unprovisioned) as refused:
        async with place.session(place.tenant("a")):
            pass

    assert "--provision" in (refused.value.hint or "")
    assert not (await place.heads(place.tenant("a"))).exists


async def test_provision_makes_an_empty_place(place: Place) -> None:
    """A provisioned tenant exists and has no heads."""
    assert await place.heads(await place.made("a")) == Reading(exists=True)


async def test_provision_leaves_what_is_there(place: Place) -> None:
    """Provisioning again changes nothing."""
    tenant = await place.made("a")
    await place.stamp(tenant, "r1")

    await place.database.provision(tenant)

    assert (await place.heads(tenant)).heads == ("r1",)


async def test_provision_at_the_same_time(place: Place) -> None:
    """Several processes may make one place at once."""
    tenant = place.tenant("a")
    others = [place.declared() for _ in range(4)]

    await asyncio.gather(*(other.provision(tenant) for other in others))

    assert (await place.heads(tenant)).exists


async def test_heads_are_sorted(place: Place) -> None:
    """All rows of the version table, in an order that does not depend on how they got there."""
    tenant = await place.made("a")
    await place.stamp(tenant, "r9", "r1", "r5")

    assert await place.heads(tenant) == Reading(True, ("r1", "r5", "r9"))


async def test_empty_version_table(place: Place) -> None:
    """A version table without a row reads as no heads: downgraded to base."""
    tenant = await place.made("a")
    await place.stamp(tenant)

    assert await place.heads(tenant) == Reading(exists=True)


async def test_many_tenants_are_read_at_once(place: Place) -> None:
    """Each gets its own reading: at various heads, without a version table, missing."""
    tenants = [await place.made(f"t{number}") for number in range(6)]
    await asyncio.gather(*(place.stamp(tenant, f"r_{tenant.id}") for tenant in tenants[:4]))
    missing = place.tenant("missing")

    found = await place.database.read([*tenants, missing], VERSIONS)

    expected = {f"t{number}": Reading(True, (f"r_t{number}",)) for number in range(4)}
    assert found == expected | {
        "t4": Reading(exists=True),
        "t5": Reading(exists=True),
        "missing": Reading(exists=False),
    }


async def test_version_table_by_another_name(place: Place) -> None:
    """The version table is the one that was asked for, quoted where its name needs it."""
    tenant = await place.made("a")
    await place.stamp(tenant, "r1")
    await place.stamp(tenant, "r2", table='"Our ""Versions"""')

    found = await place.database.read([tenant], 'Our "Versions"')

    assert found["a"].heads == ("r2",)
    async with place.session(tenant) as session:
        assert await session.heads('Our "Versions"') == ("r2",)


async def test_session_is_in_the_tenants_scope(place: Place) -> None:
    """An unqualified name means the tenant's own table, and nobody else's."""
    first, second = await place.made("a"), await place.made("b")
    await place.run(first, "CREATE TABLE things (id int)", "INSERT INTO things VALUES (1)")
    await place.run(second, "CREATE TABLE things (id int)")

    async with place.session(first) as one, place.session(second) as other:
        assert (await one.connection.execute(text("SELECT count(*) FROM things"))).scalar_one() == 1
        assert (await other.connection.execute(text("SELECT count(*) FROM things"))).scalar_one() == 0


async def test_scope_holds_over_transactions_and_autocommit(place: Place) -> None:
    """After commit, rollback and in autocommit an unqualified name still means the tenant's."""
    tenant = await place.made("a")
    async with place.session(tenant) as session:
        connection = session.connection
        await connection.execute(text("CREATE TABLE committed (id int)"))
        await connection.commit()
        await connection.execute(text("CREATE TABLE undone (id int)"))
        await connection.rollback()
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("CREATE TABLE at_once (id int)"))

    async with place.session(tenant) as session:
        names = await session.connection.run_sync(_tables)
    assert names == {"committed", "at_once"}


async def test_ddl_is_transactional(place: Place) -> None:
    """What a transaction made is gone when it fails."""
    tenant = await place.made("a")
    await place.run(tenant, "CREATE TABLE kept (id int)")

    with pytest.raises(DBAPIError):
        await place.run(tenant, "CREATE TABLE lost (id int)", "ALTER TABLE kept ADD name text", "SELECT * FROM nowhere")

    async with place.session(tenant) as session:
        assert await session.connection.run_sync(_tables) == {"kept"}
        assert list((await session.connection.execute(text("SELECT * FROM kept"))).keys()) == ["id"]


async def test_open_transaction_ends_with_the_session(place: Place) -> None:
    """Closing a session rolls back what it had not committed, and leaves nobody waiting for it."""
    tenant = await place.made("a")
    await place.run(tenant, "CREATE TABLE things (id int)")

    async with place.session(tenant) as session:
        await session.connection.execute(text("INSERT INTO things VALUES (1)"))

    await place.run(tenant, "INSERT INTO things VALUES (2)")
    async with place.session(tenant) as session:
        assert (await session.connection.execute(text("SELECT id FROM things"))).scalars().all() == [2]


async def test_lock_has_one_holder(place: Place) -> None:
    """The tenant's lock is had by one session, at once or not at all, and is free when that session ends."""
    tenant = await place.made("a")
    async with place.session(tenant) as other:
        async with place.session(tenant) as holder:
            assert await holder.try_lock()
            assert not await other.try_lock()
        assert await other.try_lock()


async def test_lock_is_the_places(place: Place) -> None:
    """Two declarations of one server mean the same lock; another tenant has another one."""
    tenant, neighbour = await place.made("a"), await place.made("b")
    elsewhere = place.declared("mirror")
    async with place.session(tenant) as holder, place.session(neighbour) as other:
        assert await holder.try_lock()
        assert await other.try_lock()
        async with elsewhere.session(tenant, "suite", LIMITS) as second:
            assert not await second.try_lock()


async def test_lock_holder_can_be_found(place: Place) -> None:
    """Whoever does not get the lock can say which process has it."""
    tenant = await place.made("a")
    async with place.session(tenant) as holder, place.session(tenant) as other:
        await holder.try_lock()

        assert "pid " in (await other.lock_holder() or "")


async def test_lock_survives_a_rollback(place: Place) -> None:
    """The lock is the session's, not a transaction's."""
    tenant = await place.made("a")
    async with place.session(tenant) as holder, place.session(tenant) as other:
        assert await holder.try_lock()
        await holder.connection.execute(text("SELECT 1"))
        await holder.connection.rollback()

        assert not await other.try_lock()


async def test_lock_is_free_after_an_error(place: Place) -> None:
    """A session that ends by an exception gives its lock back."""
    tenant = await place.made("a")

    async def fail() -> None:
        async with place.session(tenant) as session:
            assert await session.try_lock()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()

    async with place.session(tenant) as session:
        assert await session.try_lock()


async def test_sessions_heads(place: Place) -> None:
    """A session reads what was committed, also what it committed itself, and opens no transaction to do so."""
    tenant = await place.made("a")
    async with place.session(tenant) as session:
        assert await session.heads(VERSIONS) == ()
        await place.stamp(tenant, "r2", "r1")
        assert await session.heads(VERSIONS) == ("r1", "r2")
        await session.connection.execute(text(f"DELETE FROM {VERSIONS} WHERE version_num = 'r1'"))
        await session.connection.commit()
        assert await session.heads(VERSIONS) == ("r2",)
        assert not session.connection.in_transaction()


async def test_lock_timeout_is_set(place: Place) -> None:
    """A statement that meets another session's lock fails after lock_timeout, and may pass when tried again."""
    tenant = await place.made("a")
    await place.run(tenant, "CREATE TABLE things (id int)", "INSERT INTO things VALUES (1)")
    async with place.session(tenant) as holder, place.session(tenant) as other:
        await holder.connection.execute(text("UPDATE things SET id = 2"))

        with pytest.raises(DBAPIError) as refused:
            await other.connection.execute(text("UPDATE things SET id = 3"))

    assert describe(refused.value).passing


async def test_unreachable_server_is_a_reading(place: Place) -> None:
    """Reading raises nothing: every tenant of a server that cannot be used says why."""
    (place.root / "data").mkdir(exist_ok=True)
    tenants = [place.tenant("a"), place.tenant("b")]
    for tenant in tenants:
        if tenant.file is not None:
            Path(tenant.file).write_text("this is no database, but it is long enough to be looked at\n" * 20)

    found = await place.declared(url=_nowhere(place)).read(tenants, VERSIONS)

    assert {id: reading.failure is not None and reading.failure.type for id, reading in found.items()} == {
        "a": "unreachable",
        "b": "unreachable",
    }


async def test_unusable_place_opens_no_session(place: Place) -> None:
    """What opening or first using an unusable place raises is an error for people."""
    tenant = await place.made("a")
    if tenant.file is not None:
        Path(tenant.file).write_text("this is no database, but it is long enough to be looked at\n" * 20)

    with pytest.raises(OrchestratorError):
        async with place.declared(url=_nowhere(place)).session(tenant, "suite", LIMITS) as session:
            await session.heads(VERSIONS)


async def test_sizes(place: Place) -> None:
    """Tables are measured where they are; one that is not there, and a tenant that is not, is left out."""
    acme, other = await place.made("acme"), await place.made("other")
    rows = ", ".join(f"({number})" for number in range(300))
    await place.run(
        acme, "CREATE TABLE notes (id int)", f"INSERT INTO notes VALUES {rows}", "CREATE TABLE logs (id int)"
    )
    # What PostgreSQL says of rows is as its last analysis found it; SQLite knows the same word.
    await place.run(acme, "ANALYZE notes")
    await place.run(other, "CREATE TABLE notes (id int)")

    sizes = await place.database.sizes([acme, other, place.tenant("nowhere")], ["notes", "logs", "nothing"])

    assert {tenant: set(found) for tenant, found in sizes.items() if found} == {
        "acme": {"notes", "logs"},
        "other": {"notes"},
    }
    assert (sizes["acme"]["notes"].rows, sizes["other"]["notes"].rows) == (300, 0)
    assert (sizes["acme"]["notes"].bytes or 0) >= 4096


async def test_version(place: Place) -> None:
    """The server's version begins with a number."""
    assert (await place.database.version())[0].isdigit()


async def test_sources_are_read_or_refused(place: Place) -> None:
    """An adapter answers a tenant source, or says which kind it cannot serve and what to do instead."""
    await place.made("a")
    asked: list[tuple[str, Callable[[], Awaitable[Sized]]]] = [
        ("sql", lambda: place.database.rows("SELECT 1 AS one")),
        ("schemas", lambda: place.database.schemas("*")),
        ("databases", lambda: place.database.databases("*")),
    ]
    if place.kind == "sqlite":
        with pytest.raises(DatabaseError, match="sql"):
            await place.database.write("SELECT :id", {"id": "a"})
    for kind, ask in asked:
        if place.kind == "sqlite":
            with pytest.raises(DatabaseError, match=kind) as refused:
                await ask()
            assert refused.value.hint
        else:
            assert len(await ask()) >= 1


def _tables(connection: Connection) -> set[str]:
    """Names of the tables that SQLAlchemy's inspector sees without being told a schema."""
    return set(inspect(connection).get_table_names())


def _nowhere(place: Place) -> str:
    """The address of the place under test, with nobody listening there."""
    return place.url if place.kind == "sqlite" else urlsplit(place.url)._replace(netloc="127.0.0.1:1").geturl()


async def test_sizes_of_the_largest(place: Place) -> None:
    """Tables by name on the tenants where they are largest; no other words, and nobody who is not there."""
    small, large = await place.made("small"), await place.made("large")
    rows = "INSERT INTO {} WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT i FROM n"
    for tenant, count in ((small, 10), (large, 3000)):
        await place.run(
            tenant, "CREATE TABLE notes (id int)", "CREATE TABLE others (id int)", rows.format("notes", count)
        )
        if place.kind == "postgresql":
            await place.run(tenant, "ANALYZE notes")
    gone = place.tenant("gone")

    found = await place.database.sizes([small, large, gone], ["notes", "nowhere", "id"], 3)
    rows_of = {(tenant, table): size.rows for tenant, tables in found.items() for table, size in tables.items()}
    assert rows_of == {("small", "notes"): 10, ("large", "notes"): 3000}
    sizes = found["small"]["notes"].bytes, found["large"]["notes"].bytes
    assert sizes[0] is None or sizes[1] is None or 0 < sizes[0] < sizes[1]
    largest = await place.database.sizes([small, large], ["notes"], 1)
    assert [tenant for tenant, tables in largest.items() if tables] == ["large"]


async def test_scratch_is_there_for_a_while(place: Place) -> None:
    """A scratch place is empty, like any tenant, and gone afterwards, also when something was raised."""
    like = await place.made("a")
    async with place.database.scratch(like) as tenant:
        assert await place.heads(tenant) == Reading(exists=True)
        await place.stamp(tenant, "one")
        assert (await place.heads(tenant)).heads == ("one",)
        assert (await place.heads(like)).heads == ()
    assert not (await place.heads(tenant)).exists

    with pytest.raises(ZeroDivisionError):
        async with place.database.scratch(like) as tenant:
            raise ZeroDivisionError
    assert not (await place.heads(tenant)).exists


async def test_scratch_of_the_killed_is_taken_away(place: Place) -> None:
    """What somebody left who was killed is dropped by the next one; what is in use is not."""
    if place.isolation is Isolation.FILE:
        return  # the system's own temporary directory
    like = await place.made("a")
    async with place.database.scratch(like) as first, place.database.scratch(like) as second:
        assert (await place.heads(first)).exists
        left = f"{second.id}_left"
        dead = replace(like, **{"schema" if like.schema else "database": left})
        await place.database.provision(dead)
        async with place.database.scratch(like):
            assert not (await place.heads(dead)).exists
            assert (await place.heads(first)).exists


async def test_scratch_is_no_tenant_of_a_source(place: Place) -> None:
    """Sources by pattern leave scratch places out."""
    if place.isolation is Isolation.FILE:
        return  # such files are in no source
    like = await place.made("a")
    async with place.database.scratch(like):
        names = await (place.database.schemas("*") if like.schema else place.database.databases("*"))
        assert (like.schema or like.database) in names
        assert not [name for name in names if name.startswith("orchestrator_")]


CLONING = Cloning("suite", LIMITS, VERSIONS, ("one",))


async def test_clone_is_the_tenant_elsewhere(place: Place) -> None:
    """A clone has the tenant's rows and heads under its id; what is done to it is not done to the tenant; it goes."""
    tenant = await place.made("a")
    await place.stamp(tenant, "one")
    await place.run(tenant, "CREATE TABLE t (n INT)", "INSERT INTO t VALUES (1), (2)")
    before = await place.database.definitions([tenant])
    async with place.database.clone(tenant, CLONING) as clone:
        assert (clone.tenant.id, clone.tenant.schema) == (tenant.id, tenant.schema)
        assert clone.tenant.place != tenant.place
        assert (await place.heads(clone.tenant)).heads == ("one",)
        async with place.database.meter(clone.tenant) as meter:
            assert (await meter.contents(VERSIONS)).tables["t"][0] == 2
            first = await meter.contents(VERSIONS)
            await place.run(clone.tenant, "INSERT INTO t VALUES (3)", f"UPDATE {VERSIONS} SET version_num = 'two'")
            assert await meter.contents(VERSIONS) != first
            await place.run(clone.tenant, "DELETE FROM t WHERE n = 3", "ALTER TABLE t ADD COLUMN a INT")
        assert (await place.database.definitions([clone.tenant]))[clone.tenant.id] != before[tenant.id]
    assert not (await place.heads(clone.tenant)).exists
    assert (await place.heads(tenant)).heads == ("one",)
    assert await place.database.definitions([tenant]) == before


async def test_clone_goes_whatever_is_raised(place: Place) -> None:
    """A clone is gone also when whoever used it failed; a tenant that is not there has none."""
    tenant = await place.made("a")
    await place.stamp(tenant, "one")
    with pytest.raises(ZeroDivisionError):
        async with place.database.clone(tenant, CLONING) as clone:
            raise ZeroDivisionError
    assert not (await place.heads(clone.tenant)).exists
    with pytest.raises(OrchestratorError):
        async with place.database.clone(place.tenant("missing"), CLONING):
            pass


async def test_footprints(place: Place) -> None:
    """The larger of two tenants is told to be larger, in schemas and databases the older one to be older."""
    older, newer = await place.made("a"), await place.made("b")
    await place.run(newer, "CREATE TABLE t (n TEXT)", *[f"INSERT INTO t VALUES ('{'x' * 500}')"] * 200)
    await place.run(older, "CREATE TABLE t (n TEXT)")
    if place.isolation is not Isolation.FILE:
        async with place.session(newer) as session, session.connection.begin():
            await session.connection.execute(text("ANALYZE t"))
    found = await place.database.footprints([older, newer, place.tenant("missing")])
    assert set(found) == {"a", "b"}
    assert found["b"].bytes > found["a"].bytes
    assert found["a"].made <= found["b"].made


MARKER = Marker("shop", "a", fresh=True)


async def test_claim_makes_and_marks(place: Place) -> None:
    """A missing place is made with its mark, a second claim finds that, and drop leaves nothing."""
    tenant = place.tenant("a")
    assert await place.database.found(tenant) == Found(Holds.MISSING)
    assert await place.database.claim(tenant, Claim(MARKER), 0) == Found(Holds.MISSING, MARKER)
    assert await place.heads(tenant) == Reading(exists=True)
    await place.stamp(tenant, "one")
    assert await place.database.claim(tenant, Claim(Marker("other", "a")), 0) == Found(Holds.FULL, MARKER)
    async with place.session(tenant) as session:
        assert await session.marker() == MARKER

    await place.database.drop(tenant, 0)
    assert not (await place.heads(tenant)).exists
    await place.database.drop(tenant, 0)


async def test_claim_of_what_is_there(place: Place) -> None:
    """An empty place is marked as found; one that holds something without a mark is left alone."""
    empty, full = await place.made("a"), await place.made("b")
    await place.run(full, "CREATE TABLE theirs (id int)")

    assert await place.database.claim(empty, Claim(MARKER), 0) == Found(Holds.EMPTY, replace(MARKER, found=True))
    assert await place.database.claim(full, Claim(Marker("shop", "b", fresh=True)), 0) == Found(Holds.FULL)
    assert await place.database.found(full) == Found(Holds.FULL)


async def test_claim_and_drop_wait_for_the_lock(place: Place) -> None:
    """While somebody is at work on the tenant, its place is neither claimed nor dropped."""
    tenant = await place.made("a")
    async with place.session(tenant) as session:
        assert await session.try_lock()
        if place.isolation is not Isolation.DATABASE:
            with pytest.raises(TenantLocked):
                await place.database.claim(tenant, Claim(MARKER), 0)
        with pytest.raises(TenantLocked):
            await place.declared("two").drop(tenant, 0)
    assert (await place.heads(tenant)).exists


async def test_drop_is_asked_once_more_under_the_lock(place: Place) -> None:
    """Whether a place is still to be dropped is asked when nobody else can be at work there, and heeded."""
    tenant = await place.made("a")
    held: list[bool] = []

    async def no_more() -> bool:
        other = place.declared(f"other{len(held)}")
        async with other.session(tenant, "suite", LIMITS) as session:
            held.append(not await session.try_lock())
        return False

    await place.database.drop(tenant, 0, no_more)

    assert held == [True]
    assert (await place.heads(tenant)).exists


async def test_script_and_mark_in_one_transaction(place: Place) -> None:
    """A script of several statements is run in the session's transaction, and one that ends it is told."""
    tenant = place.tenant("a")
    await place.database.claim(tenant, Claim(MARKER), 0)
    async with place.session(tenant) as session:
        async with session.connection.begin():
            await session.script("CREATE TABLE t (x text); INSERT INTO t VALUES ('a;b'); INSERT INTO t VALUES ('c')")
            await session.mark(replace(MARKER, seeded="demo"))
        rows = await session.connection.execute(text("SELECT count(*) FROM t"))
        assert rows.scalar() == 2
        await session.connection.rollback()
        assert (await session.marker()) == replace(MARKER, seeded="demo")
        with pytest.raises(DatabaseError, match="has ended the transaction"):
            await session.script("INSERT INTO t VALUES ('d'); COMMIT;")


async def test_marks_leave_comments_alone(place: Place) -> None:
    """What somebody else has written as a comment stays, and the mark is handed over without what was of the moment."""
    if place.isolation is Isolation.FILE:
        return  # files have no comments
    tenant = await place.made("a")
    what = f'SCHEMA "{tenant.schema}"' if tenant.schema else f'DATABASE "{tenant.database}"'
    await place.run(tenant, f"COMMENT ON {what} IS 'ours: do not touch'")
    await place.database.claim(tenant, Claim(MARKER), 0)
    async with place.session(tenant) as session, session.connection.begin():
        await session.mark(MARKER.handed_over())
    comment = "shobj_description(oid, 'pg_database') FROM pg_database WHERE datname"
    if tenant.schema:
        comment = "obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname"
    async with place.session(tenant) as session:
        rows = await session.connection.execute(
            text(f"SELECT {comment} = :name"), {"name": tenant.schema or tenant.database}
        )
        assert rows.scalar() == 'ours: do not touch\norchestrator {"fleet": "shop", "tenant": "a"}'


async def test_claim_furnishes(place: Place) -> None:
    """Owner and statements are done with the making, and what fails there leaves no place."""
    if place.isolation is Isolation.FILE:
        return  # files have neither
    tenant, other = place.tenant("a"), place.tenant("b")
    statements = (
        "CREATE SCHEMA IF NOT EXISTS {schema}",
        "CREATE TABLE {schema}.{tenant} (j jsonb DEFAULT '{}', d text DEFAULT '{database}')",
    )
    # Any other would need a superuser.
    (owner,) = fetch(place.url, "SELECT current_user")[0]
    await place.database.claim(tenant, Claim(MARKER, owner=owner, statements=statements), 0)
    async with place.session(tenant) as session:
        rows = await session.connection.execute(text("SELECT count(*) FROM a"))
        assert rows.scalar() == 0
    with pytest.raises(DatabaseError):
        await place.database.claim(other, Claim(MARKER, statements=("no",)), 0)
    assert await place.database.found(other) == Found(Holds.MISSING)
    await place.database.drop(tenant, 0)


async def test_whereabouts(place: Place) -> None:
    """Two declarations that lead to one server tell the same of a tenant, be it there or not; other places differ."""
    parts = urlsplit(place.url)
    host = "localhost" if parts.hostname == "127.0.0.1" else "127.0.0.1"
    url = (
        place.url if place.kind == "sqlite" else parts._replace(netloc=f"{parts.username}@{host}:{parts.port}").geturl()
    )
    tenants = [await place.made("a"), place.tenant("b")]
    found = await place.database.whereabouts(tenants)
    assert found == await place.declared("other", url).whereabouts(tenants)
    assert found.keys() == {"a", "b"}
    assert (found["a"] == found["b"]) is (place.isolation is Isolation.SCHEMA)
    if place.kind != "sqlite":
        with pytest.raises(OrchestratorError):
            await place.declared("down", _nowhere(place)).whereabouts(tenants)


async def test_others_within(place: Place) -> None:
    """Schemas with a version table in a database that is wholly a tenant's; its own, and tables of its, are none."""
    if place.isolation is not Isolation.DATABASE:
        return  # in a schema there is nobody else, and a file has no schemas
    tenant = await place.made("a")
    assert await place.database.others_within(place.tenant("b"), [VERSIONS]) == ()
    await place.stamp(tenant, "r1")
    await place.run(tenant, "CREATE SCHEMA own", "CREATE TABLE own.things (id int)")
    assert await place.database.others_within(tenant, [VERSIONS]) == []
    await place.run(tenant, "CREATE SCHEMA other", f"CREATE TABLE other.{VERSIONS} (version_num text)")
    await place.run(tenant, "CREATE SCHEMA more", "CREATE TABLE more.versions (version_num text)")
    assert await place.database.others_within(tenant, [VERSIONS]) == ["other"]
    assert await place.database.others_within(tenant, [VERSIONS, "versions"]) == ["more", "other"]
