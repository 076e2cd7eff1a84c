"""Fixtures that every test directory shares."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.errors import OrchestratorError
from tests import warm_start
from tests.servers import PostgresServer, connect_to, start_own_server
from tests.workspace import Workspace

# Containers switch this off. Tests and package are compiled once all the same, not anew by every session and command.
sys.dont_write_bytecode = False


def pytest_collection_finish() -> None:
    """What was imported and collected is there until the end: it is not looked through for garbage again and again."""
    # Not for what tests write: a file edited within a second, and no longer than before, is taken for the same.
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def clean_environment() -> Iterator[None]:
    """No variable of the developer's shell steers libpq, asyncpg or the orchestrator; commands inherit that."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("PG", "ORCHESTRATOR_"))]:
            patch.delenv(name)
        yield
        warm_start.stop()


@pytest.fixture(scope="session")
def pg() -> Iterator[PostgresServer]:
    """The PostgreSQL server of the session: TEST_PG_URL, else one of our own. None to be had ends the session."""
    address = os.environ.get("TEST_PG_URL")
    if address:
        server = connect_to(address)
        yield server
        server.drop_idle()
        return
    server = _own_server()
    yield server
    server.embedded.stop()


@pytest.fixture(scope="session")
def _second_servers() -> Iterator[list[PostgresServer]]:
    servers: list[PostgresServer] = []
    yield servers
    for server in servers:
        server.embedded.stop()


@pytest.fixture
def second_pg(_second_servers: list[PostgresServer]) -> PostgresServer:
    """A second server, always of our own: a test may stop or kill it, the next test gets a new one."""
    if not _second_servers or not _second_servers[-1].embedded.running:
        _second_servers.append(_own_server())
    return _second_servers[-1]


@pytest.fixture
def make_database(pg: PostgresServer) -> Iterator[Callable[..., str]]:
    """``make_database(template=None) -> url``: databases that are dropped after the test."""
    made: list[str] = []

    def make(template: str | None = None) -> str:
        made.append(pg.create_database(template))
        return made[-1]

    yield make
    for url in made:
        pg.drop_database(url)


@pytest.fixture
def database(make_database: Callable[..., str]) -> str:
    """Address of an empty database of the test's own."""
    return make_database()


@pytest.fixture(scope="module")
def shared_database(pg: PostgresServer) -> Iterator[str]:
    """Address of one database for a whole file, whose tests empty it: making one takes longer."""
    url = pg.create_database()
    yield url
    pg.drop_database(url)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A copy of the repository's project, to run the real command line in."""
    return Workspace.create(tmp_path)


def _own_server() -> PostgresServer:
    try:
        return start_own_server()
    except OrchestratorError as error:
        # Never a skip: a suite without PostgreSQL would prove nothing.
        pytest.exit(f"The tests need a PostgreSQL server. {error.message}. {error.hint or ''}", returncode=1)
