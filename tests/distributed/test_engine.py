"""What the engine is relied on for, on a real server: ids, queues, slots, and who gets a dead worker's work."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator

import psycopg
import pytest
from dbos import error as engine_errors
from sqlalchemy.exc import TimeoutError

from orchestrator.engine import slots
from orchestrator.engine.client import Engine, Piece, Standing
from orchestrator.engine.connection import connector
from orchestrator.engine.keeping import Broken, kept
from orchestrator.engine.queues import SCHEMA, STARTS, WORKER_CONCURRENCY, Queues
from orchestrator.engine.runtime import Slot
from orchestrator.engine.surely import surely
from orchestrator.errors import JournalError, UsageError
from tests.servers import execute, fetch

QUEUES = Queues("fleet", "digest")
CHUNKS = QUEUES.chunks(4)


@pytest.fixture
def database(begun_database: str) -> str:
    """Where its tables are."""
    return begun_database


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    """The engine, with a queue for servers that take four tenants at once."""
    with Engine.opened(database, "the database") as engine:
        engine.register(QUEUES, [1, 4], 50)
        yield engine


def queue(url: str, name: str) -> dict[str, object]:
    """How a queue is registered."""
    (row,) = fetch(url, f"SELECT * FROM {SCHEMA}.queues WHERE name = '{name}'")
    return dict(row)


def test_its_tables_are_made(make_database: Callable[..., str]) -> None:
    """By whoever is the first in an empty database; it can be given work at once."""
    with Engine.opened(make_database(), "the database") as engine:
        engine.register(QUEUES, [4], 50)
        engine.enqueue([Piece("run:wave:1", CHUNKS, {}, "s:5432")])
        assert engine.under("run:") == {"run:wave:1": Standing.QUEUED}


def test_given_out_again(engine: Engine, database: str) -> None:
    """A piece of work under an id that is there already is left as it is, also within a batch."""
    engine.enqueue([Piece("run:wave:1", CHUNKS, {"tenants": ["a"]}, "s:5432")])
    again = Piece("run:wave:1", CHUNKS, {"tenants": ["b"]}, "s:5432")
    engine.enqueue([again, Piece("run:wave:2", CHUNKS, {"tenants": ["c"]}, "s:5432")])

    assert engine.under("run:") == {"run:wave:1": Standing.QUEUED, "run:wave:2": Standing.QUEUED}
    rows = fetch(database, f"SELECT inputs FROM {SCHEMA}.workflow_input ORDER BY workflow_uuid")
    # Plain JSON, which any program reads.
    assert [json.loads(row[0]) for row in rows] == [
        {"positionalArgs": [{"tenants": ["a"]}], "namedArgs": {}},
        {"positionalArgs": [{"tenants": ["c"]}], "namedArgs": {}},
    ]


def test_all_or_nothing(engine: Engine) -> None:
    """A batch is one transaction: one that cannot be given out keeps the others back."""
    with pytest.raises(TypeError):
        engine.enqueue([Piece("run:wave:1", CHUNKS, {}, "s"), Piece("run:wave:2", CHUNKS, {"not json": object()}, "s")])
    assert engine.under("run:") == {}


def test_queues_stay_as_they_are(engine: Engine, database: str) -> None:
    """Limits per server, starts in a second, the interval for so many servers; whoever comes later changes nothing."""
    made = queue(database, CHUNKS)
    assert made["partition_concurrency"] == 4
    assert (made["partition_rate_limit_max"], made["partition_rate_limit_period_sec"]) == (STARTS * 4, 1.0)
    assert (made["worker_concurrency"], made["polling_interval_sec"]) == (WORKER_CONCURRENCY, 0.5)
    assert queue(database, QUEUES.runs)["concurrency"] == 1

    execute(database, f"UPDATE {SCHEMA}.queues SET polling_interval_sec = 0.3")
    engine.register(QUEUES, [1, 4], 1)
    assert queue(database, CHUNKS)["polling_interval_sec"] == 0.3


async def test_kept_without_secrets() -> None:
    """What a piece of work has said or raised is masked before the engine writes it into its tables."""
    address = "postgresql://app:hunter2hunter2@db.internal/app"

    async def says() -> dict[str, object]:
        return {"error": {"message": f"cannot reach {address}", "hints": [address]}, "chunks": 2}

    async def raises() -> dict[str, object]:
        raise KeyError(address)

    shown = "postgresql://app:***@db.internal/app"
    assert await kept(says()) == {"error": {"message": f"cannot reach {shown}", "hints": [shown]}, "chunks": 2}
    with pytest.raises(Broken, match="KeyError: ") as broken:
        await kept(raises())
    # All that the engine writes down of an exception: its class, and this.
    assert str(broken.value) == f"KeyError: '{shown}'"


def test_held_and_released(engine: Engine, database: str) -> None:
    """A held queue gives nothing to any worker; released, it is as it was."""
    engine.hold([CHUNKS])
    assert queue(database, CHUNKS)["worker_concurrency"] == 0
    engine.release(engine.queues_of_chunks(QUEUES))
    assert queue(database, CHUNKS)["worker_concurrency"] == WORKER_CONCURRENCY


def test_slots(engine: Engine, database: str) -> None:
    """A slot is one process's for as long as its connection lives; when all are taken, that is said."""
    one, two = Slot.take(database, QUEUES, 2), Slot.take(database, QUEUES, 2)
    try:
        assert (one.number, two.number) == (1, 2)
        assert [(worker.slot, worker.mark) for worker in engine.workers()] == [(1, QUEUES.mark), (2, QUEUES.mark)]
        with pytest.raises(UsageError, match="all 2 slots"):
            Slot.take(database, QUEUES, 2)
        execute(database, f"SELECT pg_terminate_backend({one.connection.info.backend_pid})")
        assert not one.is_held()
        again = Slot.take(database, QUEUES, 2)
        assert again.number == 1
        again.connection.close()
    finally:
        one.connection.close()
        two.connection.close()


class Dead:
    """A worker in slot 7 that is gone, with work in its hands."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.recovered: list[str] = []
        self.reaper = slots.Reaper(1, self.recover)
        self.connection = connector(url, "reaper")()
        self.connection.autocommit = True

    def recover(self, executor: str) -> None:
        """Written down, and that nobody can come into the slot meanwhile."""
        with connector(self.url, "newcomer")() as newcomer:
            newcomer.autocommit = True
            assert newcomer.execute("SELECT pg_try_advisory_lock(%s, 7)", (slots.NAMESPACE,)).fetchone() == (False,)
        self.recovered.append(executor)


@pytest.fixture
def dead(engine: Engine, database: str) -> Iterator[Dead]:
    """What it had taken is there."""
    engine.enqueue([Piece("run:wave:1", CHUNKS, {}, "s:5432")])
    execute(database, f"UPDATE {SCHEMA}.workflow_status SET status = 'PENDING', executor_id = 'slot-7'")
    made = Dead(database)
    yield made
    made.connection.close()


def test_a_dead_worker_is_found(dead: Dead) -> None:
    """Seen free twice, with the time in between that its holder would need to end: only then others get its work."""
    assert dead.reaper.look(dead.connection, 100.0) == []
    assert dead.reaper.look(dead.connection, 100.0 + slots.GRACE - 0.1) == []
    assert dead.reaper.look(dead.connection, 100.0 + slots.GRACE) == [7]
    assert dead.recovered == ["slot-7"]


def test_seen_once_is_not_enough(dead: Dead) -> None:
    """However long ago: a reaper that was held up has not looked."""
    assert dead.reaper.look(dead.connection, 100.0) == []
    with held_slot(dead.url):
        assert dead.reaper.look(dead.connection, 200.0) == []
    assert dead.reaper.look(dead.connection, 300.0) == []
    assert dead.recovered == []


def test_one_that_lives(dead: Dead) -> None:
    """Whose lock is held is left alone, as is one's own slot."""
    with held_slot(dead.url):
        for now in (100.0, 110.0, 120.0):
            assert dead.reaper.look(dead.connection, now) == []
    own = slots.Reaper(7, dead.recover)
    for now in (100.0, 110.0, 120.0):
        assert own.look(dead.connection, now) == []


def held_slot(url: str) -> psycopg.Connection[object]:
    """Slot 7, held as long as the connection is open."""
    connection = connector(url, "holder")()
    connection.autocommit = True
    connection.execute("SELECT pg_advisory_lock(%s, 7)", (slots.NAMESPACE,))
    return connection


@pytest.mark.parametrize(
    "error",
    [JournalError("away"), TimeoutError("no connection is free"), engine_errors.DBOSException("away")],
    ids=repr,
)
async def test_asked_until_there_is_an_answer(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever cannot answer just now, the server, its pool or the engine, is asked again, and that is said."""
    answers: list[Exception | str] = [error, "here"]

    async def asked() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert await surely(asked, logging.getLogger("orchestrator.run")) == "here"
    assert "asked again" in caplog.text
