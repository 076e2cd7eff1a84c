"""The connection is lost at each request of a restore in turn: what is said afterwards is what is the case."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from orchestrator.databases.connect import connect
from orchestrator.databases.dumping import Restored
from orchestrator.databases.own_names import beside
from orchestrator.errors import OrchestratorError
from orchestrator.fleet.secrets import Template
from orchestrator.fleet.tenant import Isolation, Server, Tenant
from tests.faulty_network import Cut, FaultyNetwork
from tests.places import ROWS, Place
from tests.servers import PostgresServer, execute, fetch


@pytest.mark.parametrize("cut", list(Cut), ids=lambda cut: cut.value)
@pytest.mark.parametrize("isolation", [Isolation.SCHEMA, Isolation.DATABASE], ids=lambda each: each.value)
async def test_cut_anywhere(
    database: str, pg: PostgresServer, tmp_path: Path, isolation: Isolation, cut: Cut, thorough: bool
) -> None:
    """Restored means restored, failed means untouched, and the next restore does all of it and clears up."""
    own = f"{urlsplit(database).path[1:]}_x" if isolation is Isolation.DATABASE else None
    direct, table = (database, "a.notes") if own is None else (pg.database_url(own), "notes")
    with FaultyNetwork(database) as network:
        adapter = connect(Server("main", Template(network.url(database), tmp_path)))
        place = Place(adapter, Tenant("a", "main", isolation, None if own else "a", own), tmp_path / "dump")
        await place.fill()
        await place.save()

        async def attempt() -> Restored | OrchestratorError:
            await adapter.close()
            try:
                return await place.put_back(lock_wait=10.0)
            except OrchestratorError as error:
                return error

        # The first one asks what later ones know.
        assert await attempt() == Restored()
        before = len(network.requests)
        assert await attempt() == Restored()
        seen: set[str] = set()
        for number, asked in list(enumerate(network.requests[before:]))[:: 1 if thorough else 7]:
            if cut is Cut.AFTER and asked.endswith("FROM stdin;"):
                # The answer to this one ends when the rows have come, for which the client waits for the answer.
                continue
            execute(direct, f"DELETE FROM {table}")
            network.fail_at(number, cut)
            outcome = await attempt()
            rows = [row[0] for row in fetch(direct, f"SELECT body FROM {table} ORDER BY id")]
            if isinstance(outcome, Restored):
                assert rows == ROWS, (number, asked)
                seen.add("restored")
            elif "could not be seen" in outcome.message:
                assert rows in ([], ROWS), (number, asked)
            else:
                assert rows == [], (number, asked, outcome.message)
                seen.add("failed")
            assert await attempt() == Restored(), number
            left = fetch(
                database,
                "SELECT 1 FROM pg_namespace WHERE nspname LIKE 'orchestrator%' UNION ALL SELECT 1 FROM pg_database"
                f" WHERE datname IN ('{beside('new', own or '')}', '{beside('old', own or '')}')",
            )
            assert left == [], number
        assert seen == {"restored", "failed"}
        await adapter.close()
    if own is not None:
        pg.drop_database(direct)
