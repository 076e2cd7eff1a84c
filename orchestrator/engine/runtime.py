"""This process as one of the engine's executors: in a slot, taking work, looking after dead neighbours."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.engine import slots
from orchestrator.engine.client import Engine
from orchestrator.engine.connection import connector, database
from orchestrator.engine.keeping import kept
from orchestrator.engine.queues import APPLICATION, APPLICATION_VERSION, CHUNK, RUN, SCHEMA, Queues
from orchestrator.engine.surely import surely
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    import psycopg
    from dbos import DBOS

#: A function that the engine calls: with what was given out, in the event loop that :func:`launch` was called in.
Workflow = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]

#: Connections of the engine in this process: each queue's thread needs one for a moment.
_CONNECTIONS = 5
#: How often a chunk may be taken before it is given up, where its workers die of it. A run as a whole is never given
#: up: in the days that it may bake, workers are started anew for many good reasons.
_TAKEN_AT_MOST = 20

log = logging.getLogger("orchestrator.worker")


@dataclass(slots=True)
class Slot:
    """The slot that this process holds."""

    number: int
    connection: psycopg.Connection[Any] = field(repr=False)

    @classmethod
    def take(cls, url: str, queues: Queues, count: int) -> Slot:
        """Take one, and wait until whoever had it with work in his hands has surely ended.

        Args:
            url: of the engine's database.
            queues: shown to others.
            count: how many there are.

        Raises:
            UsageError: all are taken.
        """
        connection = connector(url, f"orchestrator worker {queues.mark}")()
        connection.autocommit = True
        for setting in ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count"):
            # The server, too, is to find out soon that this machine is gone.
            connection.execute(f"SET {setting} = 3")
        number = slots.take(connection, count)
        if number is None:
            connection.close()
            raise UsageError(
                f"all {count} slots of workers are taken", hint=f"allow more: orchestrator worker --slots {2 * count}"
            )
        if slots.has_work(connection, number):
            time.sleep(slots.GRACE)
        return cls(number, connection)

    def is_held(self) -> bool:
        """Whether it still is: the lock is there as long as the connection is."""
        import psycopg

        try:
            self.connection.execute("SELECT 1")
        except psycopg.Error:
            return False
        return True


class Runtime:
    """Use :func:`launch`."""

    def __init__(self, dbos: DBOS, slot: Slot, url: str) -> None:
        self._dbos = dbos
        self.slot = slot
        self._url = url
        self._threads = [
            threading.Thread(target=target, name=f"orchestrator {target.__name__}", daemon=True)
            for target in (self._hold, self._reap)
        ]
        for thread in self._threads:
            thread.start()

    def stop_taking(self) -> None:
        """Take no more work; what was taken goes on."""
        for stop in self._dbos.background_thread_stop_events:
            stop.set()

    def _hold(self) -> None:
        while self.slot.is_held():
            time.sleep(slots.LOOK)
        # At once, whatever is under way: from now on others may be given the same work.
        print(
            "error: the connection that holds this worker's slot is lost, and its work is given to others\n"
            "  hint: start it again: orchestrator worker",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)

    def _reap(self) -> None:
        import psycopg

        connect = connector(self._url, "orchestrator reaper")
        reaper = slots.Reaper(self.slot.number, self._recover)
        while True:
            try:
                with connect() as connection:
                    connection.autocommit = True
                    while True:
                        for slot in reaper.look(connection, time.monotonic()):
                            log.warning("the worker in slot %s is gone; its work is given to others", slot)
                        time.sleep(slots.LOOK)
            except psycopg.Error as error:
                log.debug("slots cannot be looked at: %s", error)
                time.sleep(slots.LOOK)

    def _recover(self, executor: str) -> None:
        from dbos import DBOS

        DBOS._recover_pending_workflows([executor])


def launch(url: str, slot: Slot, queues: Sequence[str], run: Workflow, chunk: Workflow, engine: Engine) -> Runtime:
    """Begin to take work. To be called in the event loop that the work is to be done in.

    Args:
        url: of the engine's database, whose tables are there.
        slot: of this process.
        queues: whose work to take.
        run: does a run as a whole.
        chunk: does a chunk of one.
        engine: asked whether a piece of work has been taken before.
    """
    from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer

    logger = logging.getLogger("dbos")
    if not logger.handlers:
        # Otherwise it makes one of its own, with its own form.
        logger.addHandler(logging.NullHandler())
    config: DBOSConfig = {
        "name": APPLICATION,
        "system_database_engine": database(url, f"orchestrator engine {slot.number}", _CONNECTIONS),
        "dbos_system_schema": SCHEMA,
        "application_version": APPLICATION_VERSION,
        "executor_id": slots.executor_of(slot.number),
        "serializer": DBOSPortableJSONSerializer(),
        # Nobody is notified, and a listener would be one more connection.
        "use_listen_notify": False,
        "run_migrations": False,
        "log_level": "WARNING",
    }
    dbos = DBOS(config=config)
    _register(RUN, run, engine, None)
    _register(CHUNK, chunk, engine, _TAKEN_AT_MOST)
    DBOS.listen_queues(list(queues))
    DBOS.launch()
    return Runtime(dbos, slot, url)


def _register(name: str, function: Workflow, engine: Engine, at_most: int | None) -> None:
    from dbos import DBOS

    @DBOS.workflow(name=name, max_recovery_attempts=at_most)
    async def workflow(job: dict[str, Any]) -> dict[str, Any]:
        id = DBOS.workflow_id
        assert id is not None
        # Not by DBOS's own function: inside a workflow that is a step, and a step's first answer is given for ever.
        times = await surely(lambda: asyncio.to_thread(engine.taken, id), log)
        return await kept(function({**job, "id": id, "again": times > 1}))
