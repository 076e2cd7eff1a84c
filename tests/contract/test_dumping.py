"""What the port promises of dumps and restores, held against every adapter and isolation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from orchestrator.databases.connect import connect
from orchestrator.databases.dumping import Restored
from orchestrator.errors import OrchestratorError, TenantLocked
from orchestrator.fleet.secrets import Template
from orchestrator.fleet.tenant import Isolation, Server, Tenant
from tests.places import LIMITS, ROWS, VERSIONS, Place
from tests.servers import PostgresServer, fetch


@pytest.fixture(params=["postgresql schema", "postgresql database", "sqlite file"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Every adapter, in every isolation it offers."""
    kind, _, isolation = request.param.partition(" ")
    url = f"sqlite:///{tmp_path / 'data'}" if kind == "sqlite" else request.getfixturevalue("database")
    own = f"{urlsplit(url).path.lstrip('/')}_x" if isolation == "database" else None
    file = str(tmp_path / "data" / "a.db") if kind == "sqlite" else None
    schema = "a" if isolation == "schema" else None
    database = connect(Server("main", Template(url, tmp_path)))
    made = Place(database, Tenant("a", "main", Isolation(isolation), schema, own, file), tmp_path / "dump")
    await made.fill()
    yield made
    await database.close()
    if own is not None:
        pg: PostgresServer = request.getfixturevalue("pg")
        pg.drop_database(pg.database_url(own))


@pytest.fixture
def left(place: Place, request: pytest.FixtureRequest) -> Callable[[], list[str]]:
    """Names of what stands beside tenants for as long as one is restored."""

    def look() -> list[str]:
        if place.database.dialect == "sqlite":
            return [path.name for path in Path(place.tenant.file or "").parent.glob("*restor*")]
        url = request.getfixturevalue("database")
        query = (
            "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'orchestrator%'"
            " UNION SELECT datname FROM pg_database WHERE datname LIKE 'orchestrator%'"
        )
        return [row[0] for row in fetch(url, query)]

    return look


async def test_put_back_whole(place: Place, left: Callable[[], list[str]]) -> None:
    """All rows and tables are what they were, what came since is gone, and nothing is left beside."""
    await place.save()
    await place.run("DELETE FROM notes", "CREATE TABLE later (id integer)", f"UPDATE {VERSIONS} SET version_num = 'r2'")
    assert await place.put_back() == Restored()
    assert await place.rows() == ROWS
    with pytest.raises(Exception, match="later"):
        await place.run("SELECT * FROM later")
    assert (await place.database.read([place.tenant], VERSIONS))["a"].heads == ("r1",)
    assert left() == []


async def test_twice(place: Place) -> None:
    """A dump can be put back again and again."""
    await place.save()
    for _ in range(2):
        await place.run("DELETE FROM notes")
        await place.put_back()
        assert await place.rows() == ROWS


async def test_other_heads_are_refused(place: Place, left: Callable[[], list[str]]) -> None:
    """A dump that is not at the heads it is said to be at is not put in the tenant's place."""
    await place.save()
    await place.run("DELETE FROM notes")
    with pytest.raises(OrchestratorError):
        await place.put_back(("r9",))
    assert await place.rows() == []
    assert left() == []


async def test_damaged_dump_changes_nothing(place: Place, left: Callable[[], list[str]]) -> None:
    """Half a file is refused, however far it gets."""
    await place.save()
    data = place.dump.read_bytes()
    await place.run("DELETE FROM notes")
    for part in (0, len(data) // 2, len(data) - 40):
        place.dump.write_bytes(data[:part])
        with pytest.raises(OrchestratorError):
            await place.put_back()
        assert await place.rows() == []
    assert left() == []


async def test_lock_is_respected(place: Place) -> None:
    """While somebody else has the tenant, nothing is put back."""
    await place.save()
    await place.run("DELETE FROM notes")
    async with place.database.session(place.tenant, "other", LIMITS) as session:
        assert await session.try_lock()
        with pytest.raises(TenantLocked):
            await place.put_back()
    assert await place.rows() == []


async def test_lock_is_let_go(place: Place) -> None:
    """Whoever comes next can have the tenant, after a restore as after one that failed."""
    await place.save()
    for heads in (("r1",), ("r9",)):
        try:
            await place.put_back(heads)
        except OrchestratorError:
            assert heads == ("r9",)
        async with place.database.session(place.tenant, "next", LIMITS) as session:
            assert await session.try_lock()


async def test_missing_place_is_made(place: Place, request: pytest.FixtureRequest) -> None:
    """A tenant that was dropped comes back."""
    await place.save()
    await place.database.close()
    if place.tenant.file is not None:
        Path(place.tenant.file).unlink()
    elif place.tenant.schema is not None:
        fetch(request.getfixturevalue("database"), "DROP SCHEMA a CASCADE")
    else:
        pg: PostgresServer = request.getfixturevalue("pg")
        pg.drop_database(pg.database_url(place.tenant.database or ""))
    await place.put_back()
    assert await place.rows() == ROWS


async def test_kept(place: Place, request: pytest.FixtureRequest) -> None:
    """On request, what is replaced stays, and is named."""
    await place.save()
    restored = await place.put_back(keep=True)
    assert restored.left
    assert restored.why is None
    kind, _, name = restored.left.partition(" ")
    if kind == "database":
        pg: PostgresServer = request.getfixturevalue("pg")
        assert fetch(pg.database_url(name), "SELECT count(*) FROM notes")[0][0] == len(ROWS)
        pg.drop_database(pg.database_url(name))
    elif kind == "schema":
        assert fetch(request.getfixturevalue("database"), f"SELECT count(*) FROM {name}.notes")[0][0] == len(ROWS)
    else:
        assert Path(name).is_file()


async def test_nothing_that_cannot_be_written(place: Place, tmp_path: Path) -> None:
    """A dump into a directory that is not there is an error of ours or of the system's, not half a file."""
    place.dump = tmp_path / "missing" / "dump"
    with pytest.raises((OrchestratorError, OSError)):
        await place.save()
