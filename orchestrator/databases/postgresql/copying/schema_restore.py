"""Put one PostgreSQL schema back, in one transaction.

The live one is renamed, the dump is restored under the name that it was dumped under, its heads are looked at, and then
it is committed. Until then everybody sees and uses the live one, whatever happens; there is no moment without the
tenant, and nothing to clear up after a kill. psql has the last word, a COMMIT, from us: where we are gone, it comes to
the end of its input without one. A dump says its schema's name in every line, and text is never edited for that: the
rename is what makes the schema fresh.

After the commit the tenant is restored, whatever fails then: what cannot be cleared away is told, and stays.
"""

from __future__ import annotations

import time
from typing import TypeAlias

import asyncpg

from orchestrator.databases.dumping import Restored, Restoring, taken
from orchestrator.databases.failures import describe
from orchestrator.databases.own_names import beside
from orchestrator.databases.postgresql.copying import public_schema
from orchestrator.databases.postgresql.copying.dump import LOCK_WAIT, Source
from orchestrator.databases.postgresql.copying.dump_script import CommitUnanswered, run_dump
from orchestrator.databases.postgresql.dependents import dependents
from orchestrator.databases.postgresql.script import heads_guard, identifier
from orchestrator.errors import BackupError, OrchestratorError, RestoreUnknown
from orchestrator.fleet.tenant import Limits

_RawConnection: TypeAlias = asyncpg.Connection

#: Seconds to wait for the end of a transaction whose client is gone.
_ENDS_WITHIN = 10.0
_OID = "SELECT oid FROM pg_namespace WHERE nspname = $1"
#: Tables alone: LOCK TABLE takes nothing else of these, and goes through views to other schemas' tables.
_TABLES = (
    "SELECT format('%I.%I', $2::text, relname) FROM pg_class WHERE relnamespace = $1 AND relkind IN ('r', 'p')"
    " ORDER BY oid"
)


class _StillReferredTo(OrchestratorError):
    """Something outside of a schema that is to be dropped depends on it."""


async def restore_schema(source: Source, work: Restoring) -> Restored:
    """Put a tenant's schema back.

    Raises:
        TenantLocked: another process is at work on the tenant.
        BackupError: it could not be done, and the tenant is as it was.
        RestoreUnknown: nobody can tell whether it is, and that is what it says.
    """
    schema = work.tenant.schema
    assert schema is not None
    async with source.locked(source.database, work.tenant, time.monotonic() + work.lock_wait) as raw:
        await _drop_leftover(raw, beside("old", schema), work)
        live = await raw.fetchval(_OID, schema)
        await _refuse(raw, source, work, live)
        await work.begin()
        aside = beside("kept", schema, work.run) if work.keep else beside("old", schema)
        again = await public_schema.as_it_is(raw, live) if schema == public_schema.PUBLIC else []
        key = source.key(work.tenant)
        # Shared with the one that psql takes: killed, we leave nobody to the tenant before psql is gone, too.
        await raw.execute(f"SELECT pg_advisory_lock_shared({key}); SELECT pg_advisory_unlock({key})")
        before = ["BEGIN;\n", f"{_patience(work.limits)};\n", f"SELECT pg_advisory_xact_lock_shared({key});\n"]
        if live is not None:
            before.append(f"ALTER SCHEMA {identifier(schema)} RENAME TO {identifier(aside)};\n")
        after = [*again, *([f"{heads_guard(schema, work.version_table, work.heads)};\n"] if work.heads else [])]
        into = source.login(source.database, work.application)
        try:
            await run_dump(source.client, into, source.server, work.dump, before, after)
        except CommitUnanswered:
            if not await _committed(source, raw, work, live):
                raise
        if live is None:
            return Restored()
        if work.keep:
            return Restored(f"schema {aside}")
        return await _without(source, raw, aside, live, work)


async def _refuse(raw: _RawConnection, source: Source, work: Restoring, live: int | None) -> None:
    """Before anything: what a restore would tear apart, or could not make whole."""
    if live is None:
        if work.tenant.schema == public_schema.PUBLIC:
            raise public_schema.missing(source.server)
        return
    if found := await dependents(raw, live):
        raise BackupError(
            f"what is outside of schema {work.tenant.schema!r} refers to it, and would go on referring to what is"
            f" replaced: {found}",
            hint="drop these, restore, and make them again",
        )


async def _committed(source: Source, raw: _RawConnection, work: Restoring, live: int | None) -> bool:
    """Whether psql's transaction was committed; asked when it has ended, which its lock tells."""
    try:
        async with source.answering(raw, source.database) as asked:
            key = source.key(work.tenant)
            if await taken(lambda: asked.fetchval("SELECT pg_try_advisory_lock($1)", key), _ENDS_WITHIN):
                found = await asked.fetchval(_OID, work.tenant.schema)
                return found is not None and found != live
            why = "its transaction has not ended yet"
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, OrchestratorError) as error:
        why = describe(error).message
    raise RestoreUnknown(
        f"the connection was lost while the restore was committed, and it could not be seen what became of it: {why}",
        hint="look at the tenant when the server answers again; restoring it once more is safe",
    )


async def _without(source: Source, raw: _RawConnection, aside: str, oid: int, work: Restoring) -> Restored:
    """Drop what was replaced. The tenant is restored by now: nothing that happens here is its failure."""
    try:
        async with source.answering(raw, source.database) as asked:
            # On another connection we have no lock, and somebody else's schema may have the name by now.
            if await asked.fetchval(_OID, aside) == oid:
                await _drop(asked, aside, oid, work.limits)
    except Exception as error:
        return Restored(f"schema {aside}", describe(error).message)
    return Restored()


async def _drop_leftover(raw: _RawConnection, name: str, work: Restoring) -> None:
    """Drop what an earlier restore was killed over, or could not drop."""
    if (oid := await raw.fetchval(_OID, name)) is None:
        return
    try:
        await _drop(raw, name, oid, work.limits)
    except _StillReferredTo as error:
        raise BackupError(
            f"schema {name} is left of an earlier restore of this tenant, and {error.message}",
            hint="make these refer to the tenant's own schema, or drop them; the next restore drops what is left",
        ) from error


async def _drop(raw: _RawConnection, name: str, oid: int, limits: Limits) -> None:
    """Drop a schema with all that is in it, and nothing that is not."""
    async with raw.transaction():
        await raw.execute(_patience(limits).replace("SET ", "SET LOCAL ", 1))
        tables = [row[0] for row in await raw.fetch(_TABLES, oid, name)]
        if tables:
            # DROP takes these locks anyway; taken first, they keep new views and keys out after the question.
            await raw.execute(f"LOCK TABLE ONLY {', ONLY '.join(tables)} IN ACCESS EXCLUSIVE MODE")
        if found := await dependents(raw, oid):
            raise _StillReferredTo(f"what is outside of it refers to it: {found}")
        await raw.execute(f"DROP SCHEMA {identifier(name)} CASCADE")


def _patience(limits: Limits) -> str:
    return f"SET lock_timeout = {round((limits.lock_timeout or LOCK_WAIT) * 1000)}"
