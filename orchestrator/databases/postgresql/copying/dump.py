"""One PostgreSQL tenant as a file, made by pg_dump; and how whoever puts it back comes to its database.

``schema_restore`` and ``database_restore`` beside this put it back.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from subprocess import PIPE
from typing import Any, TypeAlias

import asyncpg

from orchestrator.databases.dumping import Dumped, taken
from orchestrator.databases.libpq import Login, login
from orchestrator.databases.postgresql.copying.database_properties import database_properties
from orchestrator.databases.postgresql.copying.dump_script import unhurried
from orchestrator.databases.postgresql.copying.pipeline import CHUNK, Pipeline, Program
from orchestrator.databases.postgresql.script import identifier
from orchestrator.databases.postgresql.session import holder, lock_key
from orchestrator.databases.server_binaries import Client
from orchestrator.errors import BackupError, TenantLocked
from orchestrator.fleet.tenant import Limits, Tenant

_RawConnection: TypeAlias = asyncpg.Connection

#: Seconds to wait for a lock where no timeout says it. Nobody waits behind pg_dump: what it asks for is compatible with
#: everything but what takes a table for itself.
LOCK_WAIT = 2.0
#: Bytes of SQL that are kept in memory.
_TEXT_LIMIT = 64 << 20
#: Seconds that a connection has to answer in, or it is taken for dead.
_ANSWERS_WITHIN = 5.0
#: Extensions of a schema, and those that something in it has been made a part of.
_EXTENSIONS = """
    SELECT extname FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE nspname = $1
    UNION SELECT extname FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
    WHERE d.refclassid = 'pg_extension'::regclass AND deptype = 'e'
    AND (pg_identify_object(d.classid, d.objid, 0)).schema = $1
    ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Source:
    """One database with a tenant in it, as dumping and restoring come to it."""

    client: Client
    #: The server's major version.
    server: int
    #: Its address, with secrets.
    url: str = field(repr=False)
    #: What the driver found where the address has none; its reading of a passfile is not libpq's in every detail.
    password: str | None = field(repr=False)
    #: Opens a connection to a database.
    connect: Callable[[str | None], Awaitable[_RawConnection]]
    #: The tenant's database, by its real name.
    database: str
    #: The search path that its version table is found on; ``None`` for the usual one.
    path: str | None

    async def dump(self, tenant: Tenant, dump: Path, application: str, limits: Limits) -> Dumped:
        """See :meth:`Database.dump`."""
        raw = await self.connect(self.database)
        try:
            encoding = await raw.fetchval("SHOW server_encoding")
            properties: dict[str, Any] = {}
            if tenant.schema is not None:
                await refuse_extensions(raw, tenant)
            else:
                properties = await database_properties(raw, self.database)
                # Where the database is gone one day, its own settings no longer tell which table is meant.
                properties["search_path"] = self.path or await raw.fetchval("SHOW search_path")
        finally:
            await raw.close(timeout=5)
        wait = limits.lock_timeout or LOCK_WAIT
        command = self._dump_command(tenant, "--format=custom", wait)
        into = self.login(self.database, application, None if encoding == "SQL_ASCII" else "UTF8")

        def run(pipeline: Pipeline) -> None:
            with dump.open("wb") as file:
                dump.chmod(0o600)
                program = pipeline.start("pg_dump", command, into, stdout=PIPE)
                assert program.process.stdout is not None
                while chunk := program.process.stdout.read(CHUNK):
                    file.write(chunk)
                if program.process.wait() != 0:
                    raise dump_failed(program, wait)

        await Pipeline().run(run)
        return Dumped(f"pg_dump {self.client.version}", properties)

    async def text(self, tenant: Tenant, application: str, limits: Limits) -> str:
        """See :meth:`Database.text`."""
        raw = await self.connect(self.database)
        try:
            if await raw.fetchval("SHOW server_encoding") == "SQL_ASCII":
                raise BackupError("what is in a database in SQL_ASCII is no text that can be read")
            if tenant.schema is not None:
                await refuse_extensions(raw, tenant)
        finally:
            await raw.close(timeout=5)
        wait = limits.lock_timeout or LOCK_WAIT
        command = self._dump_command(tenant, "--format=plain", wait)
        # What is no COPY needs no program to be put back.
        command += ["--inserts", "--rows-per-insert=500"]
        into = self.login(self.database, application)

        def run(pipeline: Pipeline) -> str:
            program = pipeline.start("pg_dump", command, into, stdout=PIPE)
            assert program.process.stdout is not None
            text = program.process.stdout.read(_TEXT_LIMIT)
            if len(text) == _TEXT_LIMIT:
                raise BackupError(f"what it holds comes to more than {_TEXT_LIMIT >> 20} MiB as SQL")
            if program.process.wait() != 0:
                raise dump_failed(program, wait)
            return text.decode()

        return await Pipeline().run(run)

    def _dump_command(self, tenant: Tenant, form: str, wait: float) -> list[str]:
        command = [
            self.client.program("pg_dump"),
            form,
            "--no-password",
            f"--lock-wait-timeout={round(wait * 1000)}",
        ]
        if tenant.schema is not None:
            # A pattern; between quotes, nothing in it means anything.
            command += [f"--schema={identifier(tenant.schema)}", "--strict-names"]
        return command

    def login(self, database: str, application: str, encoding: str | None = "UTF8") -> Login:
        """How programs come into a database; see :func:`~orchestrator.databases.libpq.login`."""
        found = login(self.url, database, application, encoding)
        return found if found.password else replace(found, password=self.password)

    async def patient(self, database: str) -> _RawConnection:
        """A connection that waits for programs: the server is not to end it for saying nothing meanwhile."""
        raw = await self.connect(database)
        try:
            await raw.execute("".join(unhurried(self.server)))
        except BaseException:
            raw.terminate()
            raise
        return raw

    @asynccontextmanager
    async def answering(self, raw: _RawConnection, database: str) -> AsyncIterator[_RawConnection]:
        """``raw``, or where that is dead another connection to the database, which has none of its locks."""
        try:
            await raw.execute("SELECT 1", timeout=_ANSWERS_WITHIN)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            raw.terminate()
            other = await self.patient(database)
            try:
                yield other
            finally:
                await closed(other)
        else:
            yield raw

    @asynccontextmanager
    async def locked(self, database: str, tenant: Tenant, deadline: float) -> AsyncIterator[_RawConnection]:
        """A connection that holds the tenant's lock as it is in one database; the schema need not be there.

        Args:
            database: locks are each database's own; the tenant's, unless that is missing.
            tenant: whose lock.
            deadline: when to give up, on the monotonic clock.
        """
        raw = await self.patient(database)
        try:
            key = self.key(tenant)
            if not await taken(
                lambda: raw.fetchval("SELECT pg_try_advisory_lock($1)", key), deadline - time.monotonic()
            ):
                raise TenantLocked(
                    f"another process is at work on this tenant: {await holder(raw, key) or 'holder unknown'}",
                    hint="wait for it, then try again",
                )
            yield raw
        finally:
            await closed(raw)

    def key(self, tenant: Tenant) -> int:
        """Of the tenant's lock."""
        return lock_key(self.database, tenant.schema)


async def closed(raw: _RawConnection) -> None:
    """Close a connection, which may be dead: what was done on it is done."""
    with suppress(Exception):
        await raw.close(timeout=5)


def dump_failed(program: Program, wait: float) -> BackupError:
    """Why pg_dump ended with an error.

    Args:
        program: it.
        wait: seconds that it was to wait for locks.
    """
    error = program.failed()
    # How pg_dump bounds the wait: by a timeout for the statement that takes the locks, and for no other.
    if "statement timeout" in error.message and "LOCK TABLE" in error.message:
        return BackupError(
            f"pg_dump waited longer than {wait:g} s for a lock on the tenant's tables",
            passing=True,
            hint="try again when whoever holds it is done, or wait longer: --lock-timeout 10s",
        )
    return error


async def refuse_extensions(raw: _RawConnection, tenant: Tenant) -> None:
    """Refuse what pg_dump leaves out of a schema's dump, and without which it cannot be restored."""
    found = await raw.fetch(_EXTENSIONS, tenant.schema)
    if found:
        names = ", ".join(row[0] for row in found)
        raise BackupError(
            f"the extension {names} is in the tenant's own schema, and is in no backup of a schema",
            hint=f"move it: ALTER EXTENSION {identifier(found[0][0])} SET SCHEMA extensions",
        )
