"""Choose the adapter that speaks a server's dialect."""

from __future__ import annotations

from orchestrator.databases.port.database import Database
from orchestrator.errors import ConfigurationError
from orchestrator.fleet.tenant import Server
from orchestrator.fleet.urls import dialect_of


def connect(server: Server) -> Database:
    """The adapter for ``server``; opens no connection, reads no secret, and imports only the driver that is needed.

    Raises:
        ConfigurationError: the address names a dialect that has no adapter.
    """
    dialect = dialect_of(server.url.from_environment())
    if dialect is None:
        # The whole address is a secret that only reading it tells.
        dialect = dialect_of(server.url.resolve())
    if dialect == "sqlite":
        from orchestrator.databases.sqlite.adapter import SQLite

        return SQLite(server)
    if dialect == "postgresql":
        from orchestrator.databases.postgresql.adapter import PostgreSQL

        return PostgreSQL(server)
    raise ConfigurationError(
        f"server {server.name}: {dialect or 'no dialect'} is not supported",
        hint="use a postgresql:// or sqlite:/// address",
    )
