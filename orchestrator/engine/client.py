"""What the engine is asked from outside a workflow: to take work, how work stands, who is there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from orchestrator.engine import slots
from orchestrator.engine.connection import database, require_installed, require_session
from orchestrator.engine.queues import (
    APPLICATION,
    APPLICATION_VERSION,
    CHUNK,
    RUN,
    SCHEMA,
    STARTS,
    WORKER_CONCURRENCY,
    Queues,
    poll_interval,
    poll_interval_of_runs,
)
from orchestrator.errors import JournalError

if TYPE_CHECKING:
    from dbos import DBOSClient
    from sqlalchemy import Engine as Database

#: Connections of a client.
_CONNECTIONS = 2


class Standing(StrEnum):
    """How a piece of work stands; the engine's own words."""

    QUEUED = "ENQUEUED"
    #: Somebody is at it, or was when he died.
    TAKEN = "PENDING"
    DONE = "SUCCESS"
    #: Its function has raised.
    BROKEN = "ERROR"
    CANCELLED = "CANCELLED"
    #: It was taken too often by workers that died of it, probably.
    GIVEN_UP = "MAX_RECOVERY_ATTEMPTS_EXCEEDED"


#: Whoever waits for it has to wait on.
OPEN = frozenset({Standing.QUEUED, Standing.TAKEN})


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk of a wave, or a whole run."""

    id: str
    queue: str
    #: What the workflow's function is called with; only what JSON can hold, and no secrets.
    job: Mapping[str, Any]
    #: Physical server, for a chunk.
    server: str | None = None


class Engine:
    """The engine's database. Blocks: call it from a thread. Make one with :meth:`opened`."""

    def __init__(self, client: DBOSClient, pool: Database) -> None:
        self._client = client
        self._pool = pool

    @classmethod
    @contextmanager
    def opened(cls, url: str, place: str) -> Iterator[Engine]:
        """The engine in the journal's database, its tables made or brought up to date.

        Args:
            url: the journal's, with its secrets put in; of a PostgreSQL server.
            place: the same for messages.

        Raises:
            ConfigurationError: DBOS is not installed.
            JournalError: the database cannot be used for it.
        """
        require_installed()
        require_session(url, place)
        from dbos import DBOSClient, DBOSPortableJSONSerializer

        pool = database(url, "orchestrator engine", _CONNECTIONS)
        try:
            client = DBOSClient(
                system_database_engine=pool,
                dbos_system_schema=SCHEMA,
                serializer=DBOSPortableJSONSerializer(),
                application_name=APPLICATION,
                # Nothing is gained by waiting for a server that is away: whoever asks decides.
                retry_connection_errors=False,
            )
            with explained(place):
                make_tables(client)
            yield cls(client, pool)
        finally:
            pool.dispose()

    def register(self, queues: Queues, budgets: Iterable[int], servers: int) -> None:
        """Make queues; those that are there stay as they are.

        Workers look for new ones once a second.

        Args:
            queues: their names.
            budgets: chunks at once on a server, of which each number has a queue of its own; none for the queue of runs
                alone.
            servers: how many there are.
        """
        self._client.register_queue(
            queues.runs,
            global_concurrency=1,
            polling_interval_sec=poll_interval_of_runs(servers),
            on_conflict="never_update",
        )
        for budget in budgets:
            self._client.register_queue(
                queues.chunks(budget),
                partition_concurrency=budget,
                partition_limiter={"limit": STARTS * budget, "period": 1.0},
                worker_concurrency=WORKER_CONCURRENCY,
                polling_interval_sec=poll_interval(servers),
                on_conflict="never_update",
            )

    def close(self, names: Iterable[str]) -> None:
        """Take queues away, into which workers then no longer look; what was taken from them goes on."""
        for name in names:
            self._client.delete_queue(name)

    def enqueue(self, pieces: Sequence[Piece], *, workflow: str = CHUNK) -> None:
        """Give out work, all of it in one transaction. What has been given out under the same id is left as it is."""
        if not pieces:
            return
        with self._pool.begin() as connection:
            for piece in pieces:
                options: dict[str, Any] = {
                    "workflow_name": workflow,
                    "workflow_id": piece.id,
                    "queue_name": piece.queue,
                    "app_version": APPLICATION_VERSION,
                }
                if piece.server is not None:
                    options["queue_partition_key"] = piece.server
                self._client.enqueue_in_transaction(connection, options, dict(piece.job))  # type: ignore[arg-type]

    def enqueue_run(self, piece: Piece) -> None:
        """Give out a run."""
        self.enqueue([piece], workflow=RUN)

    def standings(self, ids: Sequence[str]) -> dict[str, Standing]:
        """How each of ``ids`` stands; without those that the engine does not know."""
        if not ids:
            return {}
        found = self._client.list_workflows(workflow_ids=list(ids), load_input=False, load_output=False)
        return {each.workflow_id: Standing(each.status) for each in found}

    def under(self, prefix: str) -> dict[str, Standing]:
        """All whose ids begin like that."""
        found = self._client.list_workflows(workflow_id_prefix=prefix, load_input=False, load_output=False)
        return {each.workflow_id: Standing(each.status) for each in found}

    def taken(self, id: str) -> int:
        """How often a piece has been taken so far."""
        found = self._client.list_workflows(workflow_ids=[id], load_input=False, load_output=False)
        return (found[0].recovery_attempts or 0) if found else 0

    def result(self, id: str) -> Any:
        """What a piece that is done came to."""
        found = self._client.list_workflows(workflow_ids=[id], load_input=False)
        return found[0].output if found else None

    def cancel(self, ids: Sequence[str]) -> None:
        """Take back work that nobody is at: one that is under way would go on, and no longer be counted."""
        if ids:
            self._client.cancel_workflows(list(ids))

    def forget(self, ids: Sequence[str]) -> None:
        """Take what is over out of the engine's tables."""
        if ids:
            self._client.delete_workflows(list(ids))

    def hold(self, names: Iterable[str]) -> None:
        """Have no worker take anything more from these queues, from its next look on."""
        for name in names:
            queue = self._client.retrieve_queue(name)
            if queue is not None:
                queue.set_worker_concurrency(0)

    def release(self, names: Iterable[str]) -> None:
        """The opposite."""
        for name in names:
            queue = self._client.retrieve_queue(name)
            if queue is not None:
                queue.set_worker_concurrency(WORKER_CONCURRENCY)

    def queues_of_chunks(self, queues: Queues) -> list[str]:
        """Names of the queues of chunks that there are of ``queues``."""
        return [each.name for each in self._client.list_queues() if each.name.startswith(queues.all_chunks)]

    def waiting_runs(self, prefix: str) -> dict[str, str]:
        """Queue of each run that waits in one whose name begins like that, by id."""
        found = self._client.list_workflows(name=RUN, status=Standing.QUEUED.value, load_input=False, load_output=False)
        queues = {each.workflow_id: each.queue_name or "" for each in found}
        return {run: queue for run, queue in queues.items() if queue.startswith(prefix)}

    def workers(self) -> list[slots.Worker]:
        """Those that are there now."""
        with self._pool.connect() as connection:
            return [slots.Worker(*row) for row in connection.exec_driver_sql(slots.WORKERS).all()]


@contextmanager
def explained(place: str) -> Iterator[None]:
    """Raise what the engine's database says as a :class:`JournalError`."""
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except DBAPIError as error:
        raise JournalError(
            f"the engine's tables in {place} cannot be used: {str(error.orig).strip()}",
            hint=f"its role needs CREATE on the database for the first start, and later USAGE on schema {SCHEMA}",
        ) from None


def make_tables(client: DBOSClient) -> None:
    """Make the engine's tables, or bring them up to date: a client of DBOS does not by itself."""
    client._sys_db.run_migrations()
