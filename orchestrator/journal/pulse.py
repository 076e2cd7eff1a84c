"""The heartbeat of a process whose event loop is held up: a migration that computes, or sleeps in Python.

The loop renews its runs' heartbeats itself, as long as it turns. While it does not, a thread does, over a connection of
its own: otherwise another machine would take the run for dead, and resume it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Collection
from datetime import UTC, datetime

from orchestrator.errors import JournalError
from orchestrator.journal import writing
from orchestrator.journal.pending import Pending
from orchestrator.journal.store import Store

log = logging.getLogger("orchestrator.journal")


class Pulse:
    """Watches the running event loop from a thread, until :meth:`stop`.

    Args:
        store: opens the journal once more.
        runs: those to keep alive, asked for each time.
        interval: seconds between two looks, and how long the loop may take to answer.
    """

    def __init__(self, store: Callable[[], Store], runs: Callable[[], Collection[str]], interval: float) -> None:
        self._store = store
        self._runs = runs
        self._interval = interval
        self._loop = asyncio.get_running_loop()
        self._answered = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="orchestrator pulse", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; at once, unless it is writing."""
        self._stopped.set()
        self._answered.set()
        self._thread.join()

    def _watch(self) -> None:
        told = False
        while not self._stopped.wait(self._interval):
            self._answered.clear()
            if self._stopped.is_set():  # between the two: who stops us waits for us on that very loop
                return
            try:
                self._loop.call_soon_threadsafe(self._answered.set)
            except RuntimeError:  # closed, and nobody has stopped us
                return
            held_up = not self._answered.wait(self._interval)
            if held_up and not told:
                log.warning("a migration computes or sleeps in Python: until it is through, all other tenants wait")
            told = held_up
            while held_up and not self._answered.is_set() and not self._stopped.is_set():
                self._beat()
                self._answered.wait(self._interval)

    def _beat(self) -> None:
        try:
            asyncio.run(self._write())
        except JournalError as error:
            log.debug("no heartbeat while the event loop is held up: %s", error)

    async def _write(self) -> None:
        store = self._store()
        try:
            async with store.writing() as connection:
                now = datetime.now(UTC)
                await writing.write_pending(connection, Pending(heartbeats=dict.fromkeys(self._runs(), now)))
        finally:
            await store.close()
