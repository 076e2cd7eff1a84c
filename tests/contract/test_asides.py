"""What every adapter promises of places that are set aside, brought back and dropped."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from orchestrator.databases.asides import Aside, Leave, Leaving
from orchestrator.databases.claims import Claim, Found, Holds, Marker
from orchestrator.databases.departures import Departure, Stage
from orchestrator.errors import OnboardingError, TenantLocked
from orchestrator.fleet.tenant import Isolation, Tenant
from tests.contract.test_databases import LIMITS, VERSIONS, Place
from tests.contract.test_databases import place as place
from tests.servers import execute, fetch

OURS = Marker("shop", "a")


def leave(tenant: Tenant, run: str = "run", *, dumped: bool = False, dropped: bool = False) -> Leave:
    """How it is set aside."""
    was = tenant.file or tenant.schema or tenant.database
    assert was is not None
    departure = Departure(was, datetime.now(UTC).isoformat(), entry={"id": "a", "tags": ["x'y"]})
    return Leave(replace(OURS, departure=departure), run, LIMITS, lock_wait=0, dumped=dumped, dropped=dropped)


async def filled(place: Place) -> Tenant:
    """A tenant at r1."""
    tenant = await place.made("a")
    await place.stamp(tenant, "r1")
    return tenant


async def found(place: Place, tenant: Tenant) -> list[Aside]:
    """What was set aside where the tenant is."""
    within = [str(Path(tenant.file).parent)] if tenant.file else [tenant.database] if tenant.schema else []
    own = {tenant.file, tenant.schema, tenant.database}
    return [each for each in await place.database.asides(within) if each.departure.was in own]


async def gone(place: Place) -> tuple[Tenant, Aside]:
    """A tenant that was set aside."""
    tenant = await filled(place)
    async with place.database.set_aside(tenant, leave(tenant)):
        pass
    (aside,) = await found(place, tenant)
    return tenant, aside


@pytest.fixture(autouse=True)
async def cleared(place: Place) -> AsyncIterator[None]:
    """Databases that were set aside are the server's, and would outlive the test."""
    yield
    if place.isolation is Isolation.DATABASE:
        for each in await place.database.asides(()):
            if each.departure.was == place.tenant("a").database:
                execute(place.url, f'DROP DATABASE IF EXISTS "{each.name}" WITH (FORCE)')


async def test_set_aside_and_back(place: Place) -> None:
    """It is not found by its name, says what it was, and comes back with all that it had."""
    tenant, aside = await gone(place)

    assert await place.database.found(tenant) == Found(Holds.MISSING)
    assert not (await place.heads(tenant)).exists
    assert (aside.marker.fleet, aside.tenant.id, aside.departure.stage) == ("shop", "a", Stage.LEAVING)
    assert aside.departure.entry == {"id": "a", "tags": ["x'y"]}
    assert aside in await place.database.asides(None if tenant.file is None else [str(Path(tenant.file).parent)])

    await place.database.bring_back(aside, 0)
    assert (await place.heads(tenant)).heads == ("r1",)
    assert await found(place, tenant) == []
    if tenant.file is None:
        assert (await place.database.found(tenant)).marker == OURS


async def test_error_leaves_it(place: Place) -> None:
    """Where what is done before fails, the place is as it was, and in use again."""
    tenant = await filled(place)
    with pytest.raises(ZeroDivisionError):
        async with place.database.set_aside(tenant, leave(tenant, dumped=True)):
            raise ZeroDivisionError
    assert (await place.heads(tenant)).heads == ("r1",)
    assert (await place.database.found(tenant)).marker in (None, OURS)
    assert await found(place, tenant) == []


async def test_nobody_writes_while_it_is_read(place: Place) -> None:
    """From the moment that it is handed out nothing is added; it can be read there, and its last mark counts."""
    tenant = await filled(place)
    two = place.declared("two")
    way = leave(tenant, dumped=True)
    async with place.database.set_aside(tenant, way) as leaving:
        assert isinstance(leaving, Leaving)
        assert (await place.database.read([leaving.tenant], VERSIONS))[tenant.id].heads == ("r1",)
        with pytest.raises(Exception, match=r"lock|does not exist"):
            async with two.session(tenant, "writer", LIMITS) as session, session.connection.begin():
                await session.connection.execute(text(f"INSERT INTO {VERSIONS} VALUES ('late')"))
        assert way.marker.departure is not None
        archive = {"file": "f", "sha256": "s"}
        leaving.marker = replace(way.marker, departure=replace(way.marker.departure, archive=archive))
    (aside,) = await found(place, tenant)
    assert aside.departure.archive == archive
    await place.database.bring_back(aside, 0)
    assert (await place.heads(tenant)).heads == ("r1",)


async def test_writer_is_waited_for(place: Place) -> None:
    """Whoever writes just now keeps a place from being dumped and set aside; a database's users are ended."""
    if place.isolation is Isolation.DATABASE:
        return
    tenant = await filled(place)
    two = place.declared("two")
    async with two.session(tenant, "writer", LIMITS) as session, session.connection.begin():
        await session.connection.execute(text(f"INSERT INTO {VERSIONS} VALUES ('r2')"))
        with pytest.raises(OnboardingError) as error:
            async with place.database.set_aside(tenant, leave(tenant, dumped=True)):
                pass
        assert error.value.passing
    assert (await place.heads(tenant)).heads == ("r1", "r2")


async def test_lock_is_kept(place: Place) -> None:
    """Who is at work on a tenant keeps it in its place."""
    tenant = await filled(place)
    two = place.declared("two")
    async with two.session(tenant, "worker", LIMITS) as session:
        assert await session.try_lock()
        with pytest.raises(TenantLocked):
            async with place.database.set_aside(tenant, leave(tenant)):
                pass
    assert (await place.heads(tenant)).heads == ("r1",)


async def test_another_fleets(place: Place) -> None:
    """A place that is marked as another's is not set aside."""
    tenant = place.tenant("a")
    await place.database.claim(tenant, Claim(Marker("other", "a", fresh=True)), 0)
    with pytest.raises(OnboardingError, match="belongs to tenant a of fleet other"):
        async with place.database.set_aside(tenant, leave(tenant)):
            pass
    assert (await place.heads(tenant)).exists


async def test_no_empty_one_is_made(place: Place) -> None:
    """Where one was set aside, nothing is provisioned; a new tenant may have the place once the old one is out."""
    tenant, aside = await gone(place)
    with pytest.raises(OnboardingError, match="set aside"):
        await place.database.provision(tenant)
    with pytest.raises(OnboardingError, match="set aside"):
        await place.database.claim(tenant, Claim(OURS), 0)
    assert aside.marker.departure is not None
    settled = replace(aside.marker, departure=replace(aside.marker.departure, stage=Stage.ASIDE))
    await place.database.remark(aside, settled, 0)

    with pytest.raises(OnboardingError, match="set aside"):
        await place.database.provision(tenant)
    assert (await place.database.claim(tenant, Claim(OURS), 0)).holds is Holds.MISSING
    with pytest.raises(OnboardingError, match="there is another"):
        await place.database.bring_back(replace(aside, marker=settled), 0)
    # A second one of the same name is told from the first.
    await place.stamp(tenant, "r9")
    async with place.database.set_aside(tenant, leave(tenant, "later")):
        pass
    assert len(await found(place, tenant)) == 2
    for each in await found(place, tenant):
        await place.database.drop_aside(each, LIMITS, 0)


async def test_changed_meanwhile(place: Place) -> None:
    """What was found is touched only as it was found."""
    _, aside = await gone(place)
    assert aside.marker.departure is not None
    stale = replace(aside, marker=replace(aside.marker, departure=replace(aside.marker.departure, at="then")))
    for touch in (
        place.database.remark(stale, OURS, 0),
        place.database.bring_back(stale, 0),
        place.database.drop_aside(stale, LIMITS, 0),
    ):
        with pytest.raises(OnboardingError, match="somebody else"):
            await touch
    await place.database.bring_back(aside, 0)


async def test_dropped(place: Place) -> None:
    """Nothing is left of it, and a drop that was cut off is told by its mark, and ended by the same call."""
    tenant, aside = await gone(place)
    assert aside.marker.departure is not None
    begun = replace(aside.marker, departure=replace(aside.marker.departure, stage=Stage.DROPPING))
    await place.database.remark(aside, begun, 0)
    (half,) = await found(place, tenant)
    await place.database.drop_aside(half, LIMITS, 0)
    assert await found(place, tenant) == []
    await place.database.provision(tenant)


async def test_schema_that_others_refer_to(place: Place) -> None:
    """What is outside and depends on a schema is neither dropped with it nor left hanging."""
    if place.isolation is not Isolation.SCHEMA:
        return
    tenant = await filled(place)
    execute(place.url, f"CREATE SCHEMA other; CREATE VIEW other.theirs AS SELECT * FROM a.{VERSIONS}")
    with pytest.raises(OnboardingError, match=r"other\.theirs"):
        async with place.database.set_aside(tenant, leave(tenant, dropped=True)):
            pass
    async with place.database.set_aside(tenant, leave(tenant)):
        pass
    (aside,) = await found(place, tenant)
    with pytest.raises(OnboardingError, match=r"other\.theirs"):
        await place.database.drop_aside(aside, LIMITS, 0)
    assert fetch(place.url, "SELECT count(*) FROM other.theirs") == [(1,)]


async def test_large_schema_is_dropped_in_parts(place: Place) -> None:
    """With many tables that refer to each other, in rings and partitions, no transaction locks very many of them."""
    if place.isolation is not Isolation.SCHEMA:
        return
    tenant = await filled(place)
    execute(
        place.url,
        """
        SET search_path = a;
        CREATE TABLE hub (id int PRIMARY KEY);
        CREATE TABLE parts (id int) PARTITION BY LIST (id);
        DO $$ BEGIN FOR n IN 1..150 LOOP
            EXECUTE format('CREATE TABLE t%s (id serial PRIMARY KEY, hub int REFERENCES hub)', n);
            EXECUTE format('CREATE VIEW v%s AS SELECT * FROM t%s', n, n);
            EXECUTE format('CREATE TABLE p%s PARTITION OF parts FOR VALUES IN (%s)', n, n);
        END LOOP; END $$;
        ALTER TABLE hub ADD ring int REFERENCES t1;
        CREATE TABLE public.most (locks bigint);
        CREATE FUNCTION public.note() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO public.most SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid();
        END $$;
        CREATE EVENT TRIGGER noted ON ddl_command_end EXECUTE FUNCTION public.note();
        """,
    )
    async with place.database.set_aside(tenant, leave(tenant)):
        pass
    (aside,) = await found(place, tenant)
    await place.database.drop_aside(aside, LIMITS, 0)
    assert await found(place, tenant) == []
    ((most, times),) = fetch(place.url, "SELECT max(locks), count(*) FROM public.most")
    assert times > 10
    assert most < 1000, most


async def test_write_ahead_log_goes_with_it(place: Place) -> None:
    """Rows that are only in a file's write-ahead log are in the file that is set aside, and no log is left behind."""
    if place.isolation is not Isolation.FILE:
        return
    tenant = await filled(place)
    assert tenant.file is not None
    with closing(sqlite3.connect(tenant.file, isolation_level=None)) as user:
        user.execute("PRAGMA journal_mode = WAL")
        user.execute(f"INSERT INTO {VERSIONS} VALUES ('r2')")
        async with place.database.set_aside(tenant, leave(tenant)):
            pass
    assert not list(Path(tenant.file).parent.glob("a.db*"))
    (aside,) = await found(place, tenant)
    await place.database.bring_back(aside, 0)
    assert (await place.heads(tenant)).heads == ("r1", "r2")
