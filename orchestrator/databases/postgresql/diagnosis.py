"""A look at a PostgreSQL server before a run: whether anything on it would break the run, or be held up by it.

Reads only. What the role may not see is said, not guessed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import asyncpg

from orchestrator.databases.failures import shortened
from orchestrator.databases.findings import Finding, Level
from orchestrator.databases.postgresql.lock_room import Locked, lock_room
from orchestrator.databases.postgresql.scratch import left_behind
from orchestrator.databases.postgresql.script import identifier
from orchestrator.fleet.tenant import Tenant

#: The oldest version that is tested; from 14 on, a backend notices that its client is dead.
_OLDEST, _NOTICES = 13, 14
#: Seconds after which a transaction counts as long, a clock as wrong, a replica as behind.
_LONG, _CLOCK, _LAG = 60, 5.0, 30
#: Bytes of WAL by which it counts as behind, too: one that gets nothing any more has no time to tell.
_LAG_BYTES = 1 << 30
#: Sessions, schemas, ... named in one message.
_NAMED = 3
#: Schemas, or databases, that one GRANT is for.
_GRANTED = 50

_FACTS = """
SELECT current_user AS role, current_database() AS database, pg_is_in_recovery() AS standby,
    has_database_privilege(current_database(), 'CREATE') AS may_create,
    pg_has_role('pg_read_all_stats', 'USAGE') AS sees_others,
    current_setting('max_locks_per_transaction')::int
        * (current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int) AS lock_room,
    current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int AS sessions,
    (SELECT count(*) FROM pg_locks WHERE NOT fastpath AND locktype <> 'virtualxid') AS locks_taken,
    (SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()) AS prepared,
    current_setting('default_transaction_read_only')::bool AS read_only,
    current_setting('synchronous_standby_names') AS synchronous,
    current_setting('synchronous_commit') NOT IN ('off', 'local') AS commits_wait,
    coalesce(current_setting('transaction_timeout', true), '0') AS transaction_timeout
"""
#: A role that may not see others' sessions sees replicas without their state and lag.
_REPLICAS = """
SELECT application_name AS name, sync_state, extract(epoch FROM replay_lag)::float AS lag,
    pg_wal_lsn_diff(
        CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END, replay_lsn
    )::bigint AS bytes
FROM pg_stat_replication ORDER BY bytes DESC NULLS LAST
"""
_SCHEMAS = """
SELECT nspname FROM pg_namespace WHERE nspname = ANY($1::text[])
AND NOT (has_schema_privilege(oid, 'USAGE') AND has_schema_privilege(oid, 'CREATE')) ORDER BY 1
"""
#: What is not ours to alter: tables of another owner, whose role we are not a member of.
_OTHERS_TABLES = """
SELECT DISTINCT nspname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE nspname = ANY($1::text[]) AND relkind IN ('r', 'p') AND NOT pg_has_role(relowner, 'USAGE') ORDER BY 1
"""
_CLOSED = (
    "SELECT datname FROM pg_database WHERE datname = ANY($1::text[]) AND NOT has_database_privilege(oid, 'CONNECT')"
)
_LONG_ONES = """
SELECT pid, application_name, extract(epoch FROM now() - xact_start)::int AS age, query FROM pg_stat_activity
WHERE xact_start < now() - make_interval(secs => $1) AND pid <> pg_backend_pid() AND datname = current_database()
AND backend_type = 'client backend' ORDER BY xact_start
"""
_OURS = """
SELECT DISTINCT a.pid, a.application_name, extract(epoch FROM now() - a.backend_start)::int AS age
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND a.application_name LIKE 'orchestrator %' ORDER BY age DESC
"""


async def diagnose(
    raw: asyncpg.Connection, tenants: Sequence[Tenant], free: int, wanted: int, locks: Sequence[Locked]
) -> list[Finding]:
    """Look at the server that ``raw`` is connected to.

    Args:
        raw: a connection to the server's own database.
        tenants: who of the fleet is on it.
        free: connections that it has left.
        wanted: tenants that may be migrated at once.
        locks: what migrating would lock, one for each tenant that is to be migrated.

    Returns:
        What was found, without the server's name.

    Raises:
        asyncpg.PostgresError, asyncpg.InterfaceError, OSError: the connection is no good.
    """
    schemas = [tenant.schema for tenant in tenants if tenant.schema is not None and tenant.database is None]
    databases = [tenant.database for tenant in tenants if tenant.database is not None]
    facts = await raw.fetchrow(_FACTS)
    return [
        _version(raw.get_server_version()),
        *_rights(facts, await _names(raw, _SCHEMAS, schemas), await _names(raw, _CLOSED, databases)),
        *_owners(facts, await _names(raw, _OTHERS_TABLES, schemas)),
        _connections(free, wanted),
        lock_room(facts, locks, at_once(free, wanted)),
        *_writable(facts),
        *_replicas(facts, await raw.fetch(_REPLICAS)),
        *_server(facts),
        await _clock(raw),
        *_sessions(await raw.fetch(_LONG_ONES, _LONG), facts["sees_others"]),
        *_held(await raw.fetch(_OURS)),
        *_left(await left_behind(raw)),
    ]


async def _names(raw: asyncpg.Connection, query: str, names: Sequence[str]) -> list[str]:
    return [row[0] for row in await raw.fetch(query, names)]


def _version(version: asyncpg.ServerVersion) -> Finding:
    name = f"PostgreSQL {version.major}.{version.minor}"
    if version.major < _OLDEST:
        return Finding(Level.PROBLEM, "version", f"{name} is not supported", "use PostgreSQL 13 or newer")
    if version.major < _NOTICES:
        text = f"{name}: the backend of a killed run works on until its statement ends"
        return Finding(Level.NOTE, "version", text, "PostgreSQL 14 and newer notice within a second")
    return Finding(Level.OK, "version", name)


def _rights(facts: asyncpg.Record, schemas: Sequence[str], databases: Sequence[str]) -> Iterator[Finding]:
    role = identifier(facts["role"])
    if schemas:
        text = f"{facts['role']} may not create in {_some(schemas)}"
        hint = f"GRANT USAGE, CREATE ON SCHEMA {_all(schemas)} TO {role}"
        yield Finding(Level.PROBLEM, "rights", text, hint)
    if databases:
        text = f"{facts['role']} may not connect to {_some(databases)}"
        hint = f"GRANT CONNECT ON DATABASE {_all(databases)} TO {role}"
        yield Finding(Level.PROBLEM, "rights", text, hint)
    if not facts["may_create"]:
        text = f"{facts['role']} may not make schemas in {facts['database']}: --provision would fail"
        hint = f"GRANT CREATE ON DATABASE {identifier(facts['database'])} TO {role}"
        yield Finding(Level.NOTE, "rights", text, hint)
    if not (schemas or databases) and facts["may_create"]:
        yield Finding(Level.OK, "rights", f"{facts['role']} may create where it has to")


def _owners(facts: asyncpg.Record, schemas: Sequence[str]) -> Iterator[Finding]:
    if schemas:
        text = f"{facts['role']} does not own all tables in {_some(schemas)}, and only an owner may alter one"
        hint = f"GRANT the owning role TO {identifier(facts['role'])}"
        yield Finding(Level.PROBLEM, "rights", text, hint)


def at_once(free: int, wanted: int) -> int:
    """How many tenants a run migrates at the same time: no more than a quarter of the free connections."""
    return min(wanted, max(1, free // 4))


def _connections(free: int, wanted: int) -> Finding:
    cap = at_once(free, wanted)
    if free < 1:
        return Finding(Level.PROBLEM, "connections", "none is free", "raise max_connections, or close some")
    if cap < wanted:
        text = f"{free} free: a run takes a quarter, {cap} tenants at once in place of {wanted}"
        return Finding(Level.NOTE, "connections", text)
    return Finding(Level.OK, "connections", f"{free} free, {wanted} tenants at once")


def _writable(facts: asyncpg.Record) -> Iterator[Finding]:
    if facts["standby"]:
        hint = "name the primary in the server's url in tenants.yaml"
        yield Finding(Level.PROBLEM, "standby", "this is a standby, nothing can be written", hint)
    elif facts["read_only"]:
        text = "default_transaction_read_only is on, nothing can be written"
        hint = f"ALTER ROLE {identifier(facts['role'])} SET default_transaction_read_only = off"
        yield Finding(Level.PROBLEM, "standby", text, hint)


def _replicas(facts: asyncpg.Record, rows: Sequence[asyncpg.Record]) -> Iterator[Finding]:
    waits = facts["synchronous"] and facts["commits_wait"] and facts["sees_others"]
    if waits and not any(row["sync_state"] in ("sync", "quorum") for row in rows):
        text = (
            f"none of synchronous_standby_names ({facts['synchronous']}) is connected: every commit would wait for one"
        )
        yield Finding(Level.PROBLEM, "replicas", text, "bring the replica back, or take it out of the setting")
    for row in rows:
        if (row["lag"] or 0) > _LAG or (row["bytes"] or 0) > _LAG_BYTES:
            late = f"{row['lag'] or 0:.0f} s and {(row['bytes'] or 0) / (1 << 20):.0f} MB"
            text = f"replica {row['name'] or 'without a name'} is {late} behind; a run adds to that"
            yield Finding(Level.NOTE, "replicas", text, "let it catch up first, or lower the server's max_concurrency")
    if rows:
        yield Finding(Level.OK, "replicas", f"{len(rows)} connected")


def _server(facts: asyncpg.Record) -> Iterator[Finding]:
    if facts["prepared"]:
        text = f"{facts['prepared']} prepared transactions keep their locks until somebody ends them"
        hint = "look at pg_prepared_xacts; then: COMMIT PREPARED or ROLLBACK PREPARED"
        yield Finding(Level.PROBLEM, "transactions", text, hint)
    if facts["transaction_timeout"] != "0":
        text = f"transaction_timeout is {facts['transaction_timeout']}: a longer migration is ended"
        yield Finding(
            Level.NOTE, "timeouts", text, f"ALTER ROLE {identifier(facts['role'])} SET transaction_timeout = 0"
        )


async def _clock(raw: asyncpg.Connection) -> Finding:
    before = time.time()
    theirs = float(await raw.fetchval("SELECT extract(epoch FROM clock_timestamp())"))
    after = time.time()
    # The answer was written somewhere between the two.
    difference = theirs - (before + after) / 2
    text = f"{abs(difference):.1f} s {'ahead of' if difference > 0 else 'behind'} this machine's"
    if abs(difference) > _CLOCK + (after - before) / 2:
        return Finding(Level.NOTE, "clock", text, "set both by NTP: times in the journal are this machine's")
    return Finding(Level.OK, "clock", text)


def _sessions(rows: Sequence[asyncpg.Record], sees_others: bool) -> Iterator[Finding]:
    if not sees_others:
        text = "what other roles' sessions do cannot be seen"
        yield Finding(Level.NOTE, "transactions", text, "GRANT pg_read_all_stats TO the role in the server's url")
    for row in rows[:_NAMED]:
        who = f"pid {row['pid']} ({row['application_name'] or 'no name'}, for {row['age']} s)"
        text = f"{who}: DDL on what it uses would wait. {shortened(row['query'] or '')}".rstrip()
        hint = f"wait for it, or end it: SELECT pg_terminate_backend({row['pid']})"
        yield Finding(Level.PROBLEM, "transactions", text, hint)
    if len(rows) > _NAMED:
        yield Finding(Level.PROBLEM, "transactions", f"and {len(rows) - _NAMED} more that are older than {_LONG} s")
    if not rows:
        yield Finding(Level.OK, "transactions", f"none is older than {_LONG} s")


def _held(rows: Sequence[asyncpg.Record]) -> Iterator[Finding]:
    for row in rows[:_NAMED]:
        text = f"held by {row['application_name']} (pid {row['pid']}, for {row['age']} s)"
        yield Finding(Level.NOTE, "locks", text, "a run is at work there; see: orchestrator runs list")
    if len(rows) > _NAMED:
        yield Finding(Level.NOTE, "locks", f"and {len(rows) - _NAMED} more")


def _left(names: Sequence[str]) -> Iterator[Finding]:
    if names:
        text = f"left by killed processes, maybe with a tenant's rows in it: {_some(names)}"
        hint = "whatever makes scratch places there drops it (drift, revision --autogenerate): orchestrator rehearse"
        yield Finding(Level.NOTE, "scratch", text, hint)


def _all(names: Sequence[str]) -> str:
    """As a GRANT takes them; of very many, the first, and `doctor` names the next ones after that."""
    return ", ".join(map(identifier, names[:_GRANTED]))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
