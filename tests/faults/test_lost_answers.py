"""What a client does not hear: a COMMIT whose answer is lost, a server that crashes; and what it has no room for."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

import orchestrator
from orchestrator.actions.execution import Execution
from tests.faulty_network import Cut, FaultyNetwork
from tests.projects import ACCOUNTS, Project, held, make_project, one, schemas, statuses, tables, until, waiting_backend
from tests.servers import PostgresServer, execute, fetch

#: A revision that leaves a row each time it is committed.
LOGGED = (
    ACCOUNTS
    + '\nop.execute("CREATE TABLE log (at timestamptz DEFAULT now())")\nop.execute("INSERT INTO log DEFAULT VALUES")'
)
#: The same, stopping where a test can find it.
STOPPING = LOGGED + '\nop.execute("SELECT pg_advisory_xact_lock(77)")'
TENANTS = ["a", "b", "c", "d"]


def project_behind(path: Path, network: FaultyNetwork, database: str, retries: int, body: str = LOGGED) -> Project:
    """Four tenants, reached by way of the proxy."""
    text = schemas(network.url(database), *TENANTS, policy={"retries": retries})
    return make_project(path, {"r1": body}, text)


async def commit_of(path: Path, database: str, replay: bool) -> int:
    """The number of the request in which the last tenant's revision is committed, of all that a run makes."""
    with FaultyNetwork(database) as network:
        project = project_behind(path, network, database, 0)
        assert (await project.upgrade(execution=Execution(jobs=1, replay=replay))).satisfied
        commits = [number for number, text in enumerate(network.requests) if "COMMIT" in text]
    execute(database, "".join(f"DROP SCHEMA {tenant} CASCADE;" for tenant in TENANTS))
    return commits[-1]


@pytest.mark.parametrize("replay", [True, False], ids=["replay", "alembic"])
async def test_lost_commit_is_unknown(tmp_path: Path, database: str, replay: bool) -> None:
    """Nobody guesses whether a COMMIT without an answer has gone through: the tenant is unknown until it is read."""
    (tmp_path / "whole").mkdir()
    number = await commit_of(tmp_path / "whole", database, replay)
    (tmp_path / "cut").mkdir()
    with FaultyNetwork(database) as network:
        project = project_behind(tmp_path / "cut", network, database, 0)
        network.fail_at(number, Cut.AFTER)
        result = await project.upgrade(execution=Execution(jobs=1, replay=replay))
        assert network.fired.is_set()

        assert statuses(result) == {"a": "succeeded", "b": "succeeded", "c": "succeeded", "d": "unknown"}
        assert (one(result, "d")["from"], one(result, "d")["to"]) == ([], None)

        finished = await orchestrator.resume(project.fleet)
    assert statuses(finished) == dict.fromkeys(TENANTS, "succeeded")
    assert (one(finished, "d")["from"], one(finished, "d")["to"]) == ([], ["r1"])
    assert fetch(database, "SELECT count(*) FROM d.log")[0][0] == 1


@pytest.mark.parametrize("replay", [True, False], ids=["replay", "alembic"])
async def test_lost_commit_is_settled_by_reading(tmp_path: Path, database: str, replay: bool) -> None:
    """With a try left, the heads are read again in the same run, and what was committed is not run twice."""
    (tmp_path / "whole").mkdir()
    number = await commit_of(tmp_path / "whole", database, replay)
    (tmp_path / "cut").mkdir()
    with FaultyNetwork(database) as network:
        project = project_behind(tmp_path / "cut", network, database, 1)
        network.fail_at(number, Cut.AFTER)
        result = await project.upgrade(execution=Execution(jobs=1, replay=replay))

    assert statuses(result) == dict.fromkeys(TENANTS, "succeeded")
    assert (one(result, "d")["attempts"], one(result, "d")["from"], one(result, "d")["to"]) == (2, [], ["r1"])
    assert fetch(database, "SELECT count(*) FROM d.log")[0][0] == 1


async def test_dead_clients_backend_ends(tmp_path: Path, database: str) -> None:
    """kill -9 of the client: its backend notices within seconds, in the middle of a statement, and its lock is free."""
    slow = ACCOUNTS + '\nop.execute("SELECT pg_sleep(600)")'
    project = make_project(tmp_path, {"r1": slow}, schemas(database, "a"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "orchestrator", "upgrade", "--provision"),
        cwd=tmp_path,
        stderr=asyncio.subprocess.DEVNULL,
    )
    watcher = await asyncpg.connect(database)
    query = (
        "SELECT pid FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()"
        " AND wait_event = 'PgSleep'"
    )
    await until(lambda: watcher.fetch(query), lambda rows: len(rows) == 1)

    process.send_signal(signal.SIGKILL)
    await process.wait()

    # The tests' own patience is 20 seconds, the statement's 600.
    await until(lambda: watcher.fetch(query), lambda rows: not rows)
    await watcher.close()
    (tmp_path / "alembic" / "versions" / "r1.py").write_text(
        (tmp_path / "alembic" / "versions" / "r1.py").read_text().replace("pg_sleep(600)", "1"), encoding="utf-8"
    )
    finished = await orchestrator.resume(project.fleet)
    assert (statuses(finished), tables(database, "a")) == ({"a": "succeeded"}, {"accounts", "alembic_version"})


@pytest.fixture
async def crashing(second_pg: PostgresServer) -> AsyncIterator[str]:
    """A database on a server that may crash."""
    url = second_pg.create_database()
    yield url
    await until(lambda: _answers(url), bool)
    second_pg.drop_database(url)


async def _answers(url: str) -> bool:
    try:
        await (await asyncpg.connect(url)).close()
    except (OSError, asyncpg.PostgresError):
        return False
    return True


async def test_server_crashes(tmp_path: Path, crashing: str) -> None:
    """The whole server goes down in the middle and recovers: who was in flight is tried again, the others follow."""
    ids = [f"t{number}" for number in range(12)]
    text = schemas(crashing, *ids, policy={"retries": 5})
    project = make_project(tmp_path, {"r1": STOPPING}, text)

    holder = await asyncpg.connect(crashing)
    await holder.execute("SELECT pg_advisory_lock(77)")
    running = asyncio.create_task(project.upgrade(execution=Execution(jobs=4, replay=False)))
    backends = await waiting_backend(holder, 4)
    # As -m immediate does: the server ends every backend, and recovers from its log.
    os.kill(backends[0]["pid"], signal.SIGKILL)
    result = await running

    assert statuses(result) == dict.fromkeys(ids, "succeeded"), result.as_json()
    assert sum(one(result, tenant)["attempts"] > 1 for tenant in ids) >= 4
    for tenant in ids:
        assert fetch(crashing, f"SELECT count(*) FROM {tenant}.log")[0][0] == 1
    holder.terminate()


async def test_too_many_connections(tmp_path: Path, pg: PostgresServer, database: str) -> None:
    """Tenants that the server has no connection left for are tried again until others have given theirs back."""
    name = database.rpartition("/")[2]
    execute(
        database,
        f'DROP ROLE IF EXISTS few; CREATE ROLE few LOGIN CONNECTION LIMIT 2; GRANT CREATE ON DATABASE "{name}" TO few',
    )
    few = database.replace("postgres@", "few@", 1)
    ids = [f"t{number}" for number in range(6)]
    project = make_project(tmp_path, {"r1": STOPPING}, schemas(few, *ids, policy={"retries": 8}))

    async with held(database, 77) as holder:
        running = asyncio.create_task(project.upgrade(execution=Execution(jobs=6, replay=False)))
        await waiting_backend(holder, 2)
        # The other four have been refused by now, or are about to be: their first pause is shorter than connecting.
        await until(lambda: _retries(project), lambda count: count >= 4)
    result = await running

    assert statuses(result) == dict.fromkeys(ids, "succeeded"), result.as_json()


async def _retries(project: Project) -> int:
    """How many times tenants were tried again so far, as the journal has it."""
    with sqlite3.connect(project.path / ".orchestrator" / "journal.db") as journal:
        return int(journal.execute("SELECT count(*) FROM orchestrator_events WHERE kind = 'retry'").fetchone()[0])


async def test_lock_table_full(tmp_path: Path, database: str) -> None:
    """Without room for one more lock a tenant fails with what to do, nothing of it stays, and it can go on."""
    project = make_project(tmp_path, {"r1": LOGGED}, schemas(database, "a", policy={"retries": 0}))
    await project.upgrade("base")
    eater = await asyncpg.connect(database)
    await eater.execute("BEGIN")
    with pytest.raises(asyncpg.OutOfMemoryError):
        await eater.execute("SELECT pg_advisory_lock(n) FROM generate_series(1000, 10000000) n")

    result = await project.upgrade()

    failed = one(result, "a")
    assert (failed["status"], failed["error"]["sqlstate"]) == ("failed", "53200"), failed
    assert "max_locks_per_transaction" in failed["error"]["hint"]
    await eater.close()
    assert "accounts" not in tables(database, "a")
    assert statuses(await orchestrator.resume(project.fleet)) == {"a": "succeeded"}
