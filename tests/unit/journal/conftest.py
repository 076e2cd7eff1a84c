"""What every test of the journal is held to."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _no_thread_is_left_behind() -> Iterator[None]:
    """Every connection to a SQLite file has a thread; one that stays keeps the command from ending."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        if "aiosqlite" in type(thread).__module__ or "_connection_worker" in thread.name:
            thread.join(5)
            assert not thread.is_alive()
