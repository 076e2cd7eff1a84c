"""Connections to one PostgreSQL server: by its address, in a tenant's scope, given on from one to the next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import asyncpg

from orchestrator.databases.address import Address, parse
from orchestrator.databases.failures import describe
from orchestrator.databases.postgresql.lanes import Lane, Lanes
from orchestrator.databases.postgresql.pooler import shares_sessions
from orchestrator.databases.postgresql.script import (
    Place,
    enter,
    identifier,
    literal,
)
from orchestrator.databases.postgresql.session import lock_key
from orchestrator.errors import (
    DatabaseError,
    ServerUnreachable,
    Unprovisioned,
)
from orchestrator.fleet.masking import remember
from orchestrator.fleet.secrets import mask
from orchestrator.fleet.tenant import Limits, Server, Tenant

#: Seconds a connection attempt may take where the address does not say.
_CONNECT_TIMEOUT = 10.0
#: A timeout that comes so many seconds late says that the event loop stood still.
_HELD_UP = 0.2
#: Milliseconds between a busy backend's looks whether its client still lives (PostgreSQL 14 and newer): without it the
#: backend of a killed client works on and holds the tenant's lock.
_CLIENT_CHECK_MS = "1000"
#: PostgreSQL 16 reserves some for roles with pg_use_reserved_connections, too. Of other roles' sessions, only one with
#: pg_read_all_stats is told the type; only ordinary ones and parallel workers have both a role and a database.
_FREE_CONNECTIONS = (
    "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int"
    " - coalesce(current_setting('reserved_connections', true)::int, 0) - count(*)"
    " FROM pg_stat_activity WHERE backend_type = 'client backend'"
    " OR (backend_type IS NULL AND usename IS NOT NULL AND datname IS NOT NULL)"
)
_RawConnection: TypeAlias = asyncpg.Connection


def _hide_password(raw: _RawConnection) -> str | None:
    """Have the password masked that the driver found by itself: in PGPASSWORD, a passfile, a service file."""
    password = getattr(getattr(raw, "_params", None), "password", None)
    if not isinstance(password, str):
        return None
    remember(password)
    return password


async def _opened(arguments: Mapping[str, Any]) -> _RawConnection:
    """A connection; time in which another tenant's migration held up the event loop does not count."""
    timeout = arguments["timeout"]
    while True:
        started = time.monotonic()
        try:
            return await asyncpg.connect(**arguments)
        except TimeoutError:
            if timeout is None or time.monotonic() - started < timeout + _HELD_UP:
                raise


class Connections:
    """One PostgreSQL server, as the port asks.

    Args:
        server: its declaration; the address is resolved again for every connection, because cloud tokens expire.
    """

    dialect = "postgresql"
    replays = True

    def __init__(self, server: Server) -> None:
        self.name = server.name
        self._server = server
        self._version: str | None = None
        #: The address as it was read the last time, and what it came to.
        self._parsed: tuple[str, Address] | None = None
        #: The password that the driver logged in with the last time.
        self._password: str | None = None
        #: Whether each connection has a server process of its own; asked once.
        self._keeps_sessions: bool | None = None
        self._lanes = Lanes(self._connect_for_many, server.max_concurrency)

    @property
    def identity(self) -> str:
        """Host and port: what two declarations of one physical server have in common."""
        return self._address().identity

    @property
    def default_database(self) -> str | None:
        """The database in the server's address."""
        return self._address().database

    def limit_connections(self, most: int) -> None:
        """Connections that wait for another tenant count, too."""
        self._lanes.limit = most

    async def close(self, keep: int = 0) -> None:
        """Close the connections that wait for another tenant."""
        await self._lanes.close(keep)

    async def version(self) -> str:
        """The major version, asked once."""
        if self._version is None:
            async with self._maintenance():
                pass
        assert self._version is not None
        return self._version

    async def free_connections(self) -> int | None:
        """What ``max_connections`` leaves to ordinary roles, less those of others that are there."""
        async with self._maintenance() as raw:
            return await self._free(raw)

    async def _free(self, raw: _RawConnection) -> int:
        return int(await raw.fetchval(_FREE_CONNECTIONS)) + self._lanes.open

    async def _place(self, lane: Lane, tenant: Tenant, version_table: str, application: str, limits: Limits) -> Place:
        # Guessing saves a question, and the script refuses to run where the guess is wrong.
        name = tenant.database or await lane.asked_database_name()
        return Place(
            database=name,
            schema=tenant.schema,
            key=lock_key(name, tenant.schema),
            version_table=version_table,
            settings=self._settings(tenant, application, limits),
        )

    def _address(self) -> Address:
        text = self._text()
        if self._parsed is None or self._parsed[0] != text:
            self._parsed = (text, parse(text))
        return self._parsed[1]

    def _text(self) -> str:
        """The address, with its secrets read now."""
        direct = self._server.direct_url.resolve() if self._server.direct_url is not None else ""
        return direct or self._server.url.resolve()

    def _lane(self, database: str | None) -> AbstractAsyncContextManager[Lane]:
        return self._lanes.taken(self._as_named(database))

    async def _forget(self, database: str | None) -> None:
        await self._lanes.forget(self._as_named(database))

    def _as_named(self, database: str | None) -> str | None:
        """``None`` for the database of the server's address: under two names, lanes to it would push each other out.

        As far as the address is known: it may hold a secret that takes long to read.
        """
        own = None if self._parsed is None else self._parsed[1].database
        return None if database == own else database

    async def _connect_for_many(self, database: str | None) -> _RawConnection:
        # Statements that asyncpg keeps prepared would not outlive what cleans the session for the next tenant: none is
        # short enough to be kept. With the cache off, asyncpg has every statement parsed twice, for poolers that share
        # sessions (its ``Connection._get_statement``); those are refused here.
        return await self._connect(database, statement_cache_size=1, max_cacheable_statement_size=1)

    async def _connect(self, database: str | None, **arguments: Any) -> _RawConnection:
        # A secret may be a file's or a command's: reading it must not hold up the other tenants.
        unread = self._server.url.is_partly_unread or self._server.direct_url is not None
        address = await asyncio.to_thread(self._address) if unread else self._address()
        if database is not None:
            address = address.with_database(database)
        try:
            raw = await _opened({"timeout": _CONNECT_TIMEOUT, **address.asyncpg_arguments(), **arguments})
        except asyncpg.InvalidCatalogNameError as error:
            raise Unprovisioned(
                mask(f"{address.masked}: {error}"), hint="create it, or upgrade with --provision"
            ) from error
        except (OSError, TimeoutError, UnicodeError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            failure = describe(error)
            raise ServerUnreachable(
                mask(f"no connection to {address.masked}: {failure.message}"),
                hint=failure.hint or "is the server up, and is the address in tenants.yaml right?",
            ) from error
        self._password = _hide_password(raw)
        self._version = str(raw.get_server_version().major)
        try:
            await self._refuse_shared_sessions(raw, address, arguments)
        except BaseException:
            raw.terminate()
            raise
        return raw

    async def _refuse_shared_sessions(self, raw: _RawConnection, address: Address, arguments: dict[str, Any]) -> None:
        """Asked on the first connection: what an address leads through does not change within a run."""
        if self._keeps_sessions is None:
            try:
                options = {"timeout": _CONNECT_TIMEOUT, **address.asyncpg_arguments(), **arguments}
                shared = await shares_sessions(raw, lambda: asyncpg.connect(**options))
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                raise ServerUnreachable(
                    mask(f"no connection to {address.masked}: {describe(error).message}")
                ) from error
            self._keeps_sessions = not shared
        if not self._keeps_sessions:
            raise ServerUnreachable(
                mask(f"{address.masked} is a pooler that shares its connections between transactions")
                + ": neither locks nor the search path would hold",
                hint="give the server a direct_url past the pooler, or let the pooler keep sessions"
                " (PgBouncer: pool_mode = session)",
            )

    @asynccontextmanager
    async def _connected(self, database: str | None, seen: int = 1) -> AsyncIterator[_RawConnection]:
        """A lane for questions: a connection beside them would be one more than the server was given.

        Args:
            database: as the tenants name it.
            seen: how many tenants' tables are looked at.
        """
        try:
            async with self._lane(database) as lane:
                lane.used = True
                lane.seen(seen)
                yield lane.raw
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise DatabaseError(mask(f"server {self.name}: {describe(error).message}")) from error

    @asynccontextmanager
    async def _maintenance(self) -> AsyncIterator[_RawConnection]:
        """A connection for work on databases: the server's own one may be the very one that is missing."""
        try:
            async with self._connected(None) as raw:
                yield raw
                return
        except Unprovisioned:
            pass
        async with self._connected("postgres") as raw:
            yield raw

    async def _enter(self, raw: _RawConnection, tenant: Tenant, application: str, limits: Limits) -> None:
        """Put a fresh connection into the tenant's scope and make sure that it is there."""
        settings = self._settings(tenant, application, limits)
        if int(self._version or 0) >= 14:
            # It holds the tenant's lock, and says nothing for as long as pg_dump or a migration's own work takes.
            settings["idle_session_timeout"] = "0"
        made = enter(settings)
        if tenant.schema is None:
            await raw.execute(made)
            return
        # Asked in the same breath: what a query selects is worked out from left to right.
        row = await raw.fetchrow(
            f"{made}, current_schema(), EXISTS (SELECT FROM pg_namespace WHERE nspname = {literal(tenant.schema)})"
        )
        current, exists = row[-2], row[-1]
        if not exists:
            raise Unprovisioned(
                f"tenant {tenant.id}: schema {tenant.schema!r} does not exist",
                hint="create it, or upgrade with --provision",
            )
        if current != tenant.schema:
            raise DatabaseError(
                f"tenant {tenant.id}: the migrating role may not use schema {tenant.schema!r}",
                hint=f"GRANT USAGE, CREATE ON SCHEMA {identifier(tenant.schema)} TO the role in the server's url",
            )

    def _settings(self, tenant: Tenant, application: str, limits: Limits) -> dict[str, str]:
        """What a connection in the tenant's scope is told, by name."""
        settings = {"application_name": application.encode()[:63].decode(errors="ignore")}
        path = self._search_path(tenant)
        if path is not None:
            settings["search_path"] = path
        if limits.lock_timeout is not None:
            settings["lock_timeout"] = str(round(limits.lock_timeout * 1000))
        if limits.statement_timeout is not None:
            settings["statement_timeout"] = str(round(limits.statement_timeout * 1000))
        if limits.idle_in_transaction_timeout is not None:
            settings["idle_in_transaction_session_timeout"] = str(round(limits.idle_in_transaction_timeout * 1000))
        if int(self._version or 0) >= 14:
            settings["client_connection_check_interval"] = _CLIENT_CHECK_MS
        return settings

    def _search_path(self, tenant: Tenant) -> str | None:
        """The tenant's schema alone: with ``public`` behind it, Alembic would take public's version table for its."""
        extensions = self._server.extensions_schema
        if tenant.schema is None and extensions is None:
            return None
        names = [tenant.schema or "public", *([extensions] if extensions else [])]
        return ", ".join(identifier(name) for name in names)
