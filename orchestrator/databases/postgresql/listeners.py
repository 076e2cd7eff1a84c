"""Whether somebody listens to every connection of the process, as an env.py may that sets a role on each.

What such a listener sends is part of no migration, and what it does on connecting it does once for each connection.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.pool import StaticPool


def on_every_engine() -> bool:
    """Somebody listens to what all engines send, by ``event.listen(Engine, ...)``."""
    # SQLAlchemy's own mark on whoever has a listener, which it keeps so as not to ask for each event; before 2.1 a
    # class Connection without one has no mark either.
    return any(getattr(kind, "_has_events", False) for kind in (Engine, Connection))


def on_every_pool() -> bool:
    """Somebody listens to all pools: to connections that are opened, handed out or given back."""
    # A new pool has the listeners of its class, and no other.
    heard: Any = StaticPool(_never).dispatch
    return any(getattr(heard, name) for name in heard._event_names)


def _never() -> Any:
    raise AssertionError("this pool is not for connecting")
