"""Connections to the PostgreSQL database that the engine (DBOS) keeps its queues in: the journal's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.databases.libpq import arguments
from orchestrator.errors import ConfigurationError, JournalError

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy import Engine as Database

#: Seconds to wait for a connection.
CONNECT_TIMEOUT = 10
#: A peer that does not answer is given up after some seconds, not after the kernel's two hours: libpq's names.
_KEEPALIVES = {
    "keepalives_idle": "3",
    "keepalives_interval": "1",
    "keepalives_count": "3",
    "tcp_user_timeout": "4000",
}
_INSTALL = "pip install 'alembic-orchestrator[distributed]'"


def require_installed() -> None:
    """Make sure that DBOS is there.

    Raises:
        ConfigurationError: it is not, or too old.
    """
    try:
        import dbos
    except ImportError as error:
        raise ConfigurationError("distributed runs need DBOS, which is not installed here", hint=_INSTALL) from error
    if not hasattr(dbos, "DBOSPortableJSONSerializer") or not hasattr(dbos, "EnqueueOptions"):
        raise ConfigurationError("this DBOS is not of version 3.4 or newer", hint=f"{_INSTALL} --upgrade")


def connector(url: str, application: str) -> Callable[[], psycopg.Connection[Any]]:
    """What opens a connection.

    Args:
        url: of the journal, with its secrets put in.
        application: how the connection names itself to the server.
    """
    import psycopg

    given: dict[str, Any] = {
        "connect_timeout": str(CONNECT_TIMEOUT),
        **_KEEPALIVES,
        **arguments(url),
        "application_name": application.encode()[:63].decode(errors="ignore"),
    }

    def connect() -> psycopg.Connection[Any]:
        return psycopg.connect(**given)

    return connect


def database(url: str, application: str, size: int) -> Database:
    """A pool of such connections, for SQLAlchemy.

    Args:
        url: as above.
        application: as above.
        size: connections at most.
    """
    from sqlalchemy import create_engine

    return create_engine(
        "postgresql+psycopg://",
        creator=connector(url, application),
        pool_size=size,
        max_overflow=0,
        pool_pre_ping=True,
        hide_parameters=True,
    )


def require_session(url: str, place: str, of: Mapping[str, Any] | None = None) -> None:
    """Make sure that a session is one server process's: locks for life, and snapshots, need that.

    Args:
        url: as above.
        place: the address for messages.
        of: more of libpq's parameters.

    Raises:
        JournalError: it cannot be reached, or a pooler gives one session's transactions to several processes.
    """
    import psycopg

    given = {"connect_timeout": str(CONNECT_TIMEOUT), **arguments(url), **(of or {})}
    try:
        with psycopg.connect(**given) as one, psycopg.connect(**given) as other:
            if _is_shared(one, other):
                raise JournalError(
                    f"a pooler before {place} does not keep sessions, and the engine's locks and queues need them",
                    hint="give `journal:` the server's own address, or set pool_mode = session in PgBouncer",
                )
    except psycopg.Error as error:
        raise JournalError(f"{place}: {str(error).strip()}", hint="see that the journal's server can be reached") from (
            None
        )


def _is_shared(one: psycopg.Connection[Any], other: psycopg.Connection[Any]) -> bool:
    """As :mod:`orchestrator.databases.postgresql.pooler` finds out."""
    import psycopg

    def pid(connection: psycopg.Connection[Any]) -> int:
        row = connection.execute("SELECT pg_backend_pid()").fetchone()
        assert row is not None
        return int(row[0])

    try:
        one.autocommit = True
        before = pid(one)
        if before == one.info.backend_pid:
            return False
        its = pid(other)  # in a transaction, and stays there
        return its == before or pid(one) != before
    except psycopg.Error as error:
        if "statement pooling" not in str(error):
            raise
        return True
