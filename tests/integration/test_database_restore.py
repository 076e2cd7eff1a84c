"""A PostgreSQL database is put back: who may come in between, what comes back with it, what fails before and after."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from orchestrator.databases.connect import connect
from orchestrator.databases.dumping import Restored
from orchestrator.databases.own_names import beside
from orchestrator.databases.postgresql.session import lock_key
from orchestrator.errors import BackupError, TenantLocked
from orchestrator.fleet.secrets import Template
from orchestrator.fleet.tenant import Isolation, Server, Tenant
from tests.client_programs import Programs
from tests.places import IMPATIENT, LIMITS, ROWS, VERSIONS, Place
from tests.projects import until, with_role
from tests.servers import PostgresServer, execute, fetch


def place_at(url: str, name: str, tmp_path: Path) -> Place:
    """A tenant in the database ``name``, worked on from the one at ``url``."""
    database = connect(Server("main", Template(url, tmp_path)))
    return Place(database, Tenant("a", "main", Isolation.DATABASE, None, name), tmp_path / "dump")


@pytest.fixture
def name(database: str, pg: PostgresServer) -> Any:
    """What the tenant's database is called; it and what stands beside it are dropped afterwards."""
    own = f"{urlsplit(database).path[1:]}_x"
    yield own
    for each in (own, beside("new", own), beside("old", own)):
        if fetch(pg.url, f"SELECT 1 FROM pg_database WHERE datname = '{each}'"):
            execute(pg.url, f"ALTER DATABASE {each} IS_TEMPLATE false")
            pg.drop_database(pg.database_url(each))


@pytest.fixture
async def place(database: str, name: str, tmp_path: Path) -> AsyncIterator[Place]:
    """A tenant with rows."""
    made = place_at(database, name, tmp_path)
    await made.fill()
    yield made
    await made.database.close()


def databases(pg: PostgresServer, name: str) -> list[str]:
    """Which of the live one and those beside it are there."""
    kinds = {name: "live", beside("new", name): "new", beside("old", name): "old"}
    found = fetch(pg.url, "SELECT datname FROM pg_database")
    return sorted(kinds[row[0]] for row in found if row[0] in kinds)


async def drop(place: Place, pg: PostgresServer) -> None:
    """Take the tenant's database away."""
    await place.database.close()
    pg.drop_database(pg.database_url(place.tenant.database or ""))


@pytest.mark.parametrize("gone", [False, True], ids=["there", "gone"])
async def test_second_restore(
    place: Place,
    pg: PostgresServer,
    programs: Programs,
    name: str,
    gone: bool,
) -> None:
    """While the first fills its new database, the second touches nothing, whether or not there is a live one."""
    await place.save()
    if gone:
        await drop(place, pg)
    async with programs.held(place.put_back()) as restoring:
        assert "new" in databases(pg, name)
        with pytest.raises(TenantLocked):
            await place.put_back()
        assert "new" in databases(pg, name)
        assert not restoring.done()
    assert await restoring == Restored()
    assert (await place.rows(), databases(pg, name)) == (ROWS, ["live"])


async def test_tenant_that_is_migrated(place: Place, pg: PostgresServer, name: str) -> None:
    """Nothing that an earlier restore left is dropped before the lock is had."""
    await place.save()
    execute(pg.url, f"CREATE DATABASE {beside('new', name)}")
    async with place.database.session(place.tenant, "other", LIMITS) as session:
        assert await session.try_lock()
        with pytest.raises(TenantLocked):
            await place.put_back()
        assert databases(pg, name) == ["live", "new"]
    assert await place.put_back() == Restored()
    assert databases(pg, name) == ["live"]


async def test_lock_that_is_lost_meanwhile(
    place: Place,
    pg: PostgresServer,
    programs: Programs,
    name: str,
) -> None:
    """Somebody else may have migrated the live one since: it is not replaced."""
    await place.save()
    await place.run("DELETE FROM notes")
    await place.database.close()
    end = f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'"
    async with programs.held(place.put_back()) as restoring:
        assert len(fetch(pg.url, end)) == 1
    with pytest.raises(BackupError):
        await restoring
    assert (await place.rows(), databases(pg, name)) == ([], ["live"])


async def test_connection_outside_that_is_lost_meanwhile(
    place: Place,
    pg: PostgresServer,
    programs: Programs,
    name: str,
    database: str,
) -> None:
    """What was made is cleared away on another connection."""
    await place.save()
    await place.run("DELETE FROM notes")
    key = lock_key(name, None)
    end = (
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype ="
        f" 'advisory' AND ((classid::bigint << 32) | objid::bigint) = {key} AND datname <> '{name}'"
    )
    async with programs.held(place.put_back()) as restoring:
        assert len(fetch(pg.url, end)) == 1
    with pytest.raises(BackupError):
        await restoring
    assert (await place.rows(), databases(pg, name)) == ([], ["live"])


async def test_role_that_may_not_be_idle(
    database: str,
    name: str,
    pg: PostgresServer,
    tmp_path: Path,
    programs: Programs,
) -> None:
    """Those who wait for psql, and psql that waits for pg_restore, are not ended, whatever the role is allowed."""
    execute(database, IMPATIENT)
    place = place_at(with_role(database, "impatient", "x"), name, tmp_path)
    await place.fill()
    await place.save()
    await place.run("DELETE FROM notes")
    await place.database.close()
    observer = await asyncpg.connect(pg.url)
    silent = (
        "SELECT now() - state_change > '1s' AND state = 'idle' FROM pg_locks JOIN pg_stat_activity USING (pid)"
        " WHERE locktype = 'advisory' AND granted AND ((classid::bigint << 32) | objid::bigint) ="
        f" {lock_key(name, None)}"
    )
    async with programs.held(place.put_back()) as restoring:
        both = await until(lambda: observer.fetch(silent), lambda found: len(found) < 2 or all(row[0] for row in found))
        assert len(both) == 2
    assert await restoring == Restored()
    await observer.close()
    assert await place.rows() == ROWS
    await place.database.close()


async def settled_elsewhere(place: Place, name: str, pg: PostgresServer) -> None:
    """Move the tables to a schema that only the database's search path names; public's table says other heads."""
    await place.run(
        "CREATE SCHEMA app", "ALTER TABLE notes SET SCHEMA app", f"ALTER TABLE {VERSIONS} SET SCHEMA app",
        f"CREATE TABLE public.{VERSIONS} (version_num varchar(32))", f"INSERT INTO public.{VERSIONS} VALUES ('other')",
    )  # fmt: skip
    await place.database.close()
    execute(pg.url, f"ALTER DATABASE {name} SET search_path = app, public")


@pytest.mark.parametrize("gone", [False, True], ids=["there", "gone"])
async def test_version_table_on_the_databases_own_search_path(
    place: Place, pg: PostgresServer, name: str, gone: bool
) -> None:
    """Which table is the tenant's is asked under the settings that the database will have."""
    await settled_elsewhere(place, name, pg)
    await place.save()
    await place.run("DELETE FROM notes")
    if gone:
        await drop(place, pg)
    assert await place.put_back() == Restored()
    assert await place.rows() == ROWS
    assert (await place.database.read([place.tenant], VERSIONS))["a"].heads == ("r1",)


@pytest.mark.parametrize("gone", [False, True], ids=["there", "gone"])
async def test_other_heads(place: Place, pg: PostgresServer, name: str, gone: bool) -> None:
    """A backup that is not at its heads is refused, and what was made for it is dropped again."""
    await place.save()
    if gone:
        await drop(place, pg)
    with pytest.raises(BackupError, match="does not say what it said"):
        await place.put_back(("r9",))
    assert databases(pg, name) == ([] if gone else ["live"])


@pytest.mark.parametrize("rights", ["as new", "changed"])
@pytest.mark.parametrize("gone", [False, True], ids=["there", "gone"])
async def test_what_belongs_to_it(place: Place, pg: PostgresServer, name: str, gone: bool, rights: str) -> None:
    """Owner, rights, settings, comment and limit are what they were, also where only the backup tells them."""
    execute(pg.url, IMPATIENT)
    for statement in (
        f'ALTER DATABASE {name} SET search_path = public, "Odd \'one", "$user"',
        f"ALTER DATABASE {name} SET work_mem = '5MB'",
        f"ALTER DATABASE {name} SET my.setting = 'a ''b'' \\ c'",
        f"ALTER ROLE impatient IN DATABASE {name} SET statement_timeout = '7s'",
        f"COMMENT ON DATABASE {name} IS 'it''s \\ so'",
        f"ALTER DATABASE {name} CONNECTION LIMIT 77",
        f"ALTER DATABASE {name} OWNER TO impatient",
        *(
            (
                f"REVOKE ALL ON DATABASE {name} FROM PUBLIC",
                f"REVOKE TEMPORARY ON DATABASE {name} FROM impatient",
                f"GRANT CONNECT ON DATABASE {name} TO pg_monitor WITH GRANT OPTION",
            )
            if rights == "changed"
            else ()
        ),
    ):
        execute(pg.url, statement)
    belongs = (
        "SELECT datdba::regrole::text, datconnlimit, shobj_description(d.oid, 'pg_database'), datcollate,"
        " array(SELECT row(setrole::regrole, setconfig)::text FROM pg_db_role_setting WHERE setdatabase = d.oid"
        " ORDER BY 1), datacl IS NULL, array(SELECT a::text FROM aclexplode(datacl) a ORDER BY 1)"
        f" FROM pg_database d WHERE datname = '{name}'"
    )
    before = fetch(pg.url, belongs)
    await place.save()
    if gone:
        await drop(place, pg)
    assert await place.put_back() == Restored()
    assert fetch(pg.url, belongs) == before


async def test_owner_that_has_changed_since(place: Place, pg: PostgresServer, name: str) -> None:
    """A live database's owner counts, as its rights do: the one at the time of the backup may be gone."""
    execute(pg.url, "DROP ROLE IF EXISTS passing; CREATE ROLE passing")
    execute(pg.url, f"ALTER DATABASE {name} OWNER TO passing")
    await place.save()
    execute(pg.url, f"ALTER DATABASE {name} OWNER TO CURRENT_USER")
    execute(pg.url, "DROP ROLE passing")
    assert await place.put_back() == Restored()
    assert await place.rows() == ROWS


async def test_old_database_that_cannot_be_dropped(place: Place, pg: PostgresServer, name: str) -> None:
    """The tenant is restored; what is left is told with its reason."""
    await place.save()
    await place.run("DELETE FROM notes")
    execute(pg.url, f"ALTER DATABASE {name} IS_TEMPLATE true")
    restored = await place.put_back()
    assert restored.left == f"database {beside('old', name)}"
    assert "cannot drop a template database" in (restored.why or "")
    assert (await place.rows(), databases(pg, name)) == (ROWS, ["live", "old"])
