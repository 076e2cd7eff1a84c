"""One PostgreSQL tenant as a file: made by pg_dump, put back by pg_restore.

A schema is put back in one transaction: the live one is renamed, the dump is restored under the name that it was dumped
under, its heads are looked at, and then it is committed. Until then everybody sees and uses the live one, whatever
happens; there is no moment without the tenant, and nothing to clear up after a kill. psql has the last word, a COMMIT,
from us: where we are gone, it comes to the end of its input without one. A dump says its schema's name in
every line, and text is never edited for that: the rename is what makes the schema fresh.

A database cannot be made in a transaction. It is restored under another name, and swapped in one by two renames.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from subprocess import PIPE
from typing import IO, TypeAlias

import asyncpg

from orchestrator.databases.database_properties import CARRIED_OVER, database_properties, made_with
from orchestrator.databases.dumping import Dumped, Restored, Restoring, taken
from orchestrator.databases.failures import describe
from orchestrator.databases.libpq import Login, login
from orchestrator.databases.own_names import RESTORE
from orchestrator.databases.pipeline import CHUNK, Pipeline, Program
from orchestrator.databases.postgresql_session import holder, lock_key
from orchestrator.databases.script import REFUSED, heads_guard, identifier
from orchestrator.databases.server_binaries import Client
from orchestrator.errors import BackupError, TenantLocked
from orchestrator.fleet.tenant import Limits, Tenant

_RawConnection: TypeAlias = asyncpg.Connection

#: Seconds that pg_dump waits for a lock where no timeout says it. Nobody waits behind it: what it asks for is
#: compatible with everything but what takes a table for itself.
_LOCK_WAIT = 2.0
#: Bytes of SQL that are kept in memory.
_TEXT_LIMIT = 64 << 20
#: What pg_restore begins a script with and must not: a lock on a table that others share would be waited for without
#: end; and older servers do not know of a timeout for transactions.
_LOCK_TIMEOUT, _TRANSACTION_TIMEOUT = b"SET lock_timeout = 0;", b"SET transaction_timeout = 0;"
#: Lines that a script of pg_restore's begins with, before anything that is the tenant's.
_PREAMBLE = re.compile(rb"\s*$|--|\\restrict |SET [a-z_]+ = [^;]*;\s*$|SELECT pg_catalog\.set_config\('search_path', ")
#: Has psql write a line to its own output, which it does at once, and not to where results go.
_READY = b"\\copy (SELECT 1) TO pstdout\n"
#: Objects of other schemas that hang on this one's tables and types: they would stay with what is replaced.
_DEPENDENTS = """
    SELECT format('%s of %s', conname, conrelid::regclass) FROM pg_constraint
    JOIN pg_class theirs ON theirs.oid = conrelid JOIN pg_class ours ON ours.oid = confrelid
    WHERE contype = 'f' AND ours.relnamespace = $1 AND theirs.relnamespace <> $1
    UNION SELECT theirs.oid::regclass::text FROM pg_depend JOIN pg_rewrite r ON r.oid = objid
    JOIN pg_class theirs ON theirs.oid = ev_class JOIN pg_class ours ON ours.oid = refobjid
    WHERE classid = 'pg_rewrite'::regclass AND refclassid = 'pg_class'::regclass
    AND ours.relnamespace = $1 AND theirs.relnamespace <> $1
    UNION SELECT format('%s.%s', attrelid::regclass, attname) FROM pg_attribute
    JOIN pg_type ours ON ours.oid = atttypid JOIN pg_class theirs ON theirs.oid = attrelid
    WHERE ours.typnamespace = $1 AND theirs.relnamespace <> $1 AND theirs.relkind IN ('r', 'p', 'v', 'm', 'f')
    AND NOT attisdropped
    UNION SELECT inhrelid::regclass::text FROM pg_inherits
    JOIN pg_class ours ON ours.oid = inhparent JOIN pg_class theirs ON theirs.oid = inhrelid
    WHERE ours.relnamespace = $1 AND theirs.relnamespace <> $1
    ORDER BY 1 LIMIT 3
"""
#: Ends everybody who is connected to a database, as far as the role may.
_END_SESSIONS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity LEFT JOIN pg_roles r ON r.oid = usesysid"
    " WHERE datname = $1 AND pid <> pg_backend_pid() AND (pg_has_role(coalesce(usesysid, 10), 'MEMBER')"
    " OR pg_has_role('pg_signal_backend', 'MEMBER') AND NOT coalesce(rolsuper, true))"
)


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

    async def dump(self, tenant: Tenant, dump: Path, application: str, limits: Limits) -> Dumped:
        """See :meth:`Database.dump`."""
        raw = await self.connect(self.database)
        try:
            encoding = await raw.fetchval("SHOW server_encoding")
            properties = {} if tenant.schema is not None else await database_properties(raw)
            if tenant.schema is not None:
                await _refuse_extensions(raw, tenant)
        finally:
            await raw.close(timeout=5)
        wait = limits.lock_timeout or _LOCK_WAIT
        command = self._dump_command(tenant, "--format=custom", wait)
        into = self._login(self.database, application, None if encoding == "SQL_ASCII" else "UTF8")

        def run(pipeline: Pipeline) -> None:
            with dump.open("wb") as file:
                dump.chmod(0o600)
                program = pipeline.start("pg_dump", command, into, stdout=PIPE)
                assert program.process.stdout is not None
                while chunk := program.process.stdout.read(CHUNK):
                    file.write(chunk)
                if program.process.wait() != 0:
                    raise _dump_failed(program, wait)

        await Pipeline().run(run)
        return Dumped(f"pg_dump {self.client.version}", properties)

    async def text(self, tenant: Tenant, application: str, limits: Limits) -> str:
        """See :meth:`Database.text`."""
        raw = await self.connect(self.database)
        try:
            if await raw.fetchval("SHOW server_encoding") == "SQL_ASCII":
                raise BackupError("what is in a database in SQL_ASCII is no text that can be read")
            if tenant.schema is not None:
                await _refuse_extensions(raw, tenant)
        finally:
            await raw.close(timeout=5)
        wait = limits.lock_timeout or _LOCK_WAIT
        command = self._dump_command(tenant, "--format=plain", wait)
        # What is no COPY needs no program to be put back.
        command += ["--inserts", "--rows-per-insert=500"]
        into = self._login(self.database, application)

        def run(pipeline: Pipeline) -> str:
            program = pipeline.start("pg_dump", command, into, stdout=PIPE)
            assert program.process.stdout is not None
            text = program.process.stdout.read(_TEXT_LIMIT)
            if len(text) == _TEXT_LIMIT:
                raise BackupError(f"what it holds comes to more than {_TEXT_LIMIT >> 20} MiB as SQL")
            if program.process.wait() != 0:
                raise _dump_failed(program, wait)
            return text.decode()

        return await Pipeline().run(run)

    async def restore_schema(self, work: Restoring) -> Restored:
        """Put a tenant's schema back, in one transaction."""
        schema = work.tenant.schema
        assert schema is not None
        async with self._locked(work) as raw:
            aside = _beside("kept" if work.keep else "old", schema, work.run if work.keep else "")
            await _drop_schema(raw, _beside("old", schema), work.limits)
            there = await raw.fetchval("SELECT oid FROM pg_namespace WHERE nspname = $1", schema)
            if there is not None:
                await _refuse_dependents(raw, there, work.tenant)
            key = lock_key(self.database, schema)
            # Shared with the one that psql takes: killed, we leave nobody to the tenant before psql is gone, too.
            await raw.execute(f"SELECT pg_advisory_lock_shared({key}); SELECT pg_advisory_unlock({key})")
            before = [
                "BEGIN",
                f"SELECT pg_advisory_xact_lock_shared({key})",
                f"SET lock_timeout = {round((work.limits.lock_timeout or _LOCK_WAIT) * 1000)}",
                *([f"ALTER SCHEMA {identifier(schema)} RENAME TO {identifier(aside)}"] if there is not None else []),
            ]
            after = [heads_guard(schema, work.version_table, work.heads)] if work.heads else []
            await self._run_script(work, self.database, before, after)
            if there is None:
                return Restored()
            if work.keep:
                return Restored(f"schema {aside}")
            try:
                await _drop_schema(raw, aside, work.limits)
            except asyncpg.PostgresError as error:
                return Restored(f"schema {aside}", describe(error).message)
            return Restored()

    async def restore_database(self, work: Restoring, path: str | None, other: str) -> Restored:
        """Put a tenant's database back: made beside the live one, then swapped by name.

        Args:
            work: what.
            path: the search path that its version table is found on; ``None`` for the usual one.
            other: a database of the server's that is not this one, to work from.
        """
        name = self.database
        fresh = _beside("new", name)
        aside = _beside("kept" if work.keep else "old", name, work.run if work.keep else "")
        outside = await self.connect(other)
        try:
            there = await outside.fetchval("SELECT oid FROM pg_database WHERE datname = $1", name)
            # What an earlier restore was killed over.
            for left in (fresh, _beside("old", name)):
                await outside.execute(f"DROP DATABASE IF EXISTS {identifier(left)} WITH (FORCE)")
            if there is None:
                await self._fill(work, outside, fresh, path)
                await outside.execute(f"ALTER DATABASE {identifier(fresh)} RENAME TO {identifier(name)}")
                return Restored()
            try:
                async with self._locked(work):
                    await self._fill(work, outside, fresh, path)
                    # The lock's own connection is ended by it, like everybody's: nobody comes in between.
                    await self._swap(outside, name, fresh, aside)
            except BaseException:
                with suppress(Exception):
                    await outside.execute(f"DROP DATABASE IF EXISTS {identifier(fresh)} WITH (FORCE)")
                raise
            if work.keep:
                return Restored(f"database {aside}")
            try:
                await outside.execute(f"DROP DATABASE {identifier(aside)} WITH (FORCE)")
            except asyncpg.PostgresError as error:
                return Restored(f"database {aside}", describe(error).message)
            return Restored()
        finally:
            await outside.close(timeout=5)

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

    def _login(self, database: str, application: str, encoding: str | None = "UTF8") -> Login:
        found = login(self.url, database, application, encoding)
        return found if found.password else replace(found, password=self.password)

    @asynccontextmanager
    async def _locked(self, work: Restoring) -> AsyncIterator[_RawConnection]:
        """A connection to the tenant's database that holds its lock; the schema need not be there."""
        raw = await self.connect(self.database)
        try:
            key = lock_key(self.database, work.tenant.schema)
            if not await taken(lambda: raw.fetchval("SELECT pg_try_advisory_lock($1)", key), work.lock_wait):
                raise TenantLocked(
                    f"another process is at work on this tenant: {await holder(raw, key) or 'holder unknown'}",
                    hint="wait for it, then try again",
                )
            yield raw
        finally:
            with suppress(Exception):
                await raw.close(timeout=5)

    async def _run_script(
        self, work: Restoring, database: str, before: Sequence[str] = (), after: Sequence[str] = ()
    ) -> None:
        """Have psql run a dump's SQL, between our own where there is some, and commit when all of it has been run.

        Args:
            work: what.
            database: where.
            before: begins a transaction.
            after: what is asked at its end.
        """
        into = self._login(database, work.application)
        unpack = [self.client.program("pg_restore"), "--file=-", "--exit-on-error", str(work.dump)]
        apply = [self.client.program("psql"), "--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1"]
        apply += ["--set=VERBOSITY=terse", "--set=SHOW_CONTEXT=never", f"--output={os.devnull}"]
        dropped = {_LOCK_TIMEOUT, *([_TRANSACTION_TIMEOUT] if self.server < 17 else [])}

        def run(pipeline: Pipeline) -> None:
            psql = pipeline.start("psql", apply, into, stdin=PIPE, stdout=PIPE)
            script = pipeline.start("pg_restore", unpack, stdout=PIPE)
            assert psql.process.stdin is not None
            assert psql.process.stdout is not None
            assert script.process.stdout is not None
            whole = False
            try:
                sink = psql.process.stdin
                sink.write("".join(f"{statement};\n" for statement in before).encode())
                _pump(script.process.stdout, sink, dropped)
                if script.process.wait() != 0:
                    raise _explained(script)
                sink.write("".join(f"{statement};\n" for statement in after).encode())
                sink.write(_READY)
                sink.flush()
                # Not sent ahead: killed while psql was still at work, we would have given the word already.
                whole = bool(psql.process.stdout.readline())
                if whole and before:
                    sink.write(b"COMMIT;\n")
                sink.close()
            except BrokenPipeError:
                pass  # psql has ended, and says why
            if psql.process.wait() != 0 or not whole:
                raise _explained(psql)

        await Pipeline().run(run)

    async def _fill(self, work: Restoring, outside: _RawConnection, fresh: str, path: str | None) -> None:
        """Make the database ``fresh`` and restore the dump into it."""
        live = await outside.fetchrow("SELECT 1 FROM pg_database WHERE datname = $1", self.database)
        await outside.execute(f"CREATE DATABASE {identifier(fresh)} {made_with(work.properties)}")
        # By psql, too: pg_restore itself would set what an older server does not know, and stop there. Not in one
        # transaction: what restores large objects has transactions of its own.
        await self._run_script(work, fresh)
        raw = await self.connect(fresh)
        try:
            if path is not None:
                await raw.execute(f"SET search_path = {path}")
            if work.heads:
                await raw.execute(heads_guard(None, work.version_table, work.heads))
        finally:
            await raw.close(timeout=5)
        if live is not None:
            for (statement,) in await outside.fetch(CARRIED_OVER, self.database, fresh):
                await outside.execute(statement)

    async def _swap(self, outside: _RawConnection, name: str, fresh: str, aside: str) -> None:
        """Exchange two databases in one transaction, and end whoever is connected to the live one."""
        ender = await self.connect("postgres" if name != "postgres" else "template1")
        try:
            async with outside.transaction():
                # Waits up to 5 s for those who are connected, and new ones wait for it: a lock keeps them out.
                renamed = asyncio.ensure_future(
                    outside.execute(f"ALTER DATABASE {identifier(name)} RENAME TO {identifier(aside)}")
                )
                try:
                    while not renamed.done():
                        await ender.execute(_END_SESSIONS, name)
                        await asyncio.wait({renamed}, timeout=0.1)
                finally:
                    await renamed
                await outside.execute(f"ALTER DATABASE {identifier(fresh)} RENAME TO {identifier(name)}")
        finally:
            await ender.close(timeout=5)


def _beside(kind: str, name: str, run: str = "") -> str:
    """What stands beside the schema or database ``name`` is called; the same after a kill as before it."""
    digest = hashlib.sha256(f"{name}\0{run}".encode()).hexdigest()[:16]
    return f"{RESTORE}{kind}_{digest}"


def _pump(source: IO[bytes], sink: IO[bytes], dropped: Collection[bytes]) -> None:
    """Hand on what pg_restore writes, without some lines of its own at the very beginning."""
    for line in source:
        if line.rstrip() not in dropped:
            sink.write(line)
        if not _PREAMBLE.match(line):
            break
    shutil.copyfileobj(source, sink, CHUNK)


def _dump_failed(program: Program, wait: float) -> BackupError:
    error = program.failed()
    # How pg_dump bounds the wait: by a timeout for the statement that takes the locks, and for no other.
    if "statement timeout" in error.message and "LOCK TABLE" in error.message:
        return BackupError(
            f"pg_dump waited longer than {wait:g} s for a lock on the tenant's tables",
            passing=True,
            hint="try again when whoever holds it is done, or wait longer: --lock-timeout 10s",
        )
    return error


def _explained(program: Program) -> BackupError:
    error = program.failed()
    if REFUSED in error.message:
        return BackupError("the restored version table does not say what it said when the backup was made")
    return error


async def _drop_schema(raw: _RawConnection, name: str, limits: Limits) -> None:
    if await raw.fetchval("SELECT 1 FROM pg_namespace WHERE nspname = $1", name):
        await raw.execute(
            f"SET lock_timeout = {round((limits.lock_timeout or _LOCK_WAIT) * 1000)};"
            f" DROP SCHEMA {identifier(name)} CASCADE"
        )


async def _refuse_extensions(raw: _RawConnection, tenant: Tenant) -> None:
    """What pg_dump leaves out of a schema's dump, and without which it cannot be restored."""
    found = await raw.fetch(
        "SELECT extname FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE nspname = $1 ORDER BY 1",
        tenant.schema,
    )
    if found:
        names = ", ".join(row[0] for row in found)
        raise BackupError(
            f"the extension {names} is in the tenant's own schema, and is in no backup of a schema",
            hint=f"move it: ALTER EXTENSION {identifier(found[0][0])} SET SCHEMA extensions",
        )


async def _refuse_dependents(raw: _RawConnection, schema: int, tenant: Tenant) -> None:
    found = [row[0] for row in await raw.fetch(_DEPENDENTS, schema)]
    if found:
        raise BackupError(
            f"what is outside of schema {tenant.schema!r} refers to it, and would go on referring to what is replaced: "
            + ", ".join(found),
            hint="drop these, restore, and make them again",
        )
