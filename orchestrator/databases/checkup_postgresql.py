"""The preconditions of a run on one PostgreSQL server: what one connection to it can tell.

Nothing is changed, and nothing is said but what was measured: where the role may not look, the finding says so.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TypeAlias

import asyncpg

from orchestrator.databases.checkup import Finding, Level
from orchestrator.databases.failures import describe

_RawConnection: TypeAlias = asyncpg.Connection

#: From this version on, PostgreSQL looks whether the client of a busy backend still lives.
_OLDEST = 14
#: Times the clock is asked; the quickest answer counts.
_CLOCK_TRIES = 3
#: Seconds between our clock and the server's from which on times in the journal and in the server's log disagree.
_CLOCK = 2.0
#: Seconds that a replica may be behind before it is mentioned.
_LAG = 10.0
#: A run takes this part of the connections that are free when it begins (see Project.budgets).
_SHARE = 4

#: Without it, other roles' sessions show no more than that they are there.
_SEES_ALL = "pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')"

_CONNECTIONS = """
    SELECT current_setting('max_connections')::int AS most,
      (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user) AS role_limit,
      (SELECT count(*) FROM pg_stat_activity WHERE usename = current_user) - 1 AS role_used,
      (SELECT datconnlimit FROM pg_database WHERE datname = current_database()) AS database_limit,
      (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename IS NOT NULL) - 1
        AS database_used
"""
_LOCK_ROOM = """
    SELECT current_setting('max_locks_per_transaction')::int
        * (current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int) AS room,
      (SELECT count(*) FROM pg_locks WHERE NOT fastpath AND locktype NOT IN ('virtualxid', 'transactionid')) AS held
"""
_REPLICAS = f"""
    SELECT application_name, state, sync_state, extract(epoch FROM replay_lag)::float AS seconds,
      pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::bigint AS bytes, {_SEES_ALL} AS seen
    FROM pg_stat_replication
"""


async def check_server(
    raw: _RawConnection, pending: int, free: int, max_concurrency: int, largest: int
) -> list[Finding]:
    """Everything that one connection can tell about its server.

    Args:
        raw: a connection of the caller's own, outside any transaction.
        pending: tenants that a run would migrate.
        free: connections that are free now.
        max_concurrency: tenants at once, as tenants.yaml says.
        largest: relations (tables, indexes, sequences) of the largest tenant on the server.
    """
    at_once = min(max_concurrency, max(1, free // _SHARE))
    return [
        check_version(raw),
        await check_pooler(raw),
        _connections(await raw.fetchrow(_CONNECTIONS), free, max_concurrency, at_once),
        _lock_room(await raw.fetchrow(_LOCK_ROOM), largest, min(at_once, pending)),
        await check_clock(raw),
        await _check_writable(raw),
        await _check_replicas(raw),
    ]


def check_version(raw: _RawConnection) -> Finding:
    """Whether the server is one of those that this was made for."""
    version = raw.get_server_version()
    # Since PostgreSQL 10, asyncpg has the second part of the version as its third.
    number = f"{version.major}.{version.micro}"
    text = f"PostgreSQL {number}"
    measured = {"version": number, "supported": version.major >= _OLDEST}
    if version.major >= _OLDEST:
        return Finding("version", Level.OK, text, measured=measured)
    message = f"{text} is older than {_OLDEST}: the session of a killed orchestrator works on, and holds its lock"
    return Finding("version", Level.NOTE, message, f"upgrade the server to {_OLDEST} or newer", measured=measured)


async def check_pooler(raw: _RawConnection) -> Finding:
    """Whether the backend that answers is the one that the connection was opened to."""
    announced = raw.get_server_pid()
    answering = [await raw.fetchval("SELECT pg_backend_pid()") for _ in range(2)]
    measured = {"announced_pid": announced, "answering_pids": answering}
    if answering == [announced, announced]:
        return Finding("pooler", Level.OK, "no pooler in between", measured=measured)
    if answering[0] != answering[1]:
        message = "a pooler gives each transaction another backend: tenants' locks and settings do not survive there"
        return Finding("pooler", Level.PROBLEM, message, "add `direct_url:` to the server", measured=measured)
    message = "a pooler is in between: tenants' locks need it to keep sessions (pool_mode = session)"
    hint = "if it does not, add `direct_url:` to the server"
    return Finding("pooler", Level.NOTE, message, hint, measured=measured)


async def check_clock(raw: _RawConnection) -> Finding:
    """How far the server's clock is from ours: its answer is taken to be half a round trip old."""
    best: tuple[float, float] | None = None
    for _ in range(_CLOCK_TRIES):
        started, before = time.perf_counter(), time.time()
        theirs = float(await raw.fetchval("SELECT extract(epoch FROM clock_timestamp())::float"))
        trip = time.perf_counter() - started
        if best is None or trip < best[0]:
            best = (trip, theirs - (before + trip / 2))
    assert best is not None
    trip, ahead = best
    measured = {"ahead_s": round(ahead, 4), "round_trip_s": round(trip, 4)}
    if abs(ahead) - trip / 2 <= _CLOCK:
        return Finding("clock", Level.OK, f"clock {ahead:+.3f} s from ours", measured=measured)
    message = f"its clock is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
    return Finding("clock", Level.NOTE, message, "let NTP set both: times in journal and logs disagree", (), measured)


async def check_timeouts(raw: _RawConnection, settings: Mapping[str, str]) -> Finding:
    """What is in force on a session that was told what a run tells it.

    Args:
        raw: as a run has it when it begins to migrate a tenant.
        settings: what the run has set.
    """
    names = (
        "lock_timeout",
        "statement_timeout",
        "idle_in_transaction_session_timeout",
        "transaction_timeout",
        "client_connection_check_interval",
    )
    row = await raw.fetchrow(
        "SELECT " + ", ".join(f"(SELECT setting::int FROM pg_settings WHERE name = '{name}')" for name in names)
    )
    in_force = dict(zip(names, row, strict=True))
    measured = {f"{name}_ms": value for name, value in in_force.items()}
    measured["set_by_run"] = sorted(set(settings) & set(names))
    if in_force["transaction_timeout"]:
        message = f"transaction_timeout ends every migration that takes {in_force['transaction_timeout']} ms"
        return Finding("timeouts", Level.NOTE, message, "ALTER ROLE ... SET transaction_timeout = 0", (), measured)
    if not in_force["lock_timeout"]:
        message = "no lock_timeout: a migration waits for a lock as long as it takes, and the application behind it"
        return Finding("timeouts", Level.NOTE, message, "set policy.lock_timeout in tenants.yaml", (), measured)
    seconds = {name: f"{(value or 0) / 1000:g} s" for name, value in in_force.items()}
    message = f"lock_timeout {seconds['lock_timeout']}, statement_timeout {seconds['statement_timeout']}"
    return Finding("timeouts", Level.OK, message, measured=measured)


def _connections(row: asyncpg.Record, free: int, wanted: int, at_once: int) -> Finding:
    measured = {
        "free": free,
        "max_connections": row["most"],
        "max_concurrency": wanted,
        "at_once": at_once,
        "role_limit": _limit(row["role_limit"]),
        "database_limit": _limit(row["database_limit"]),
    }
    for what, limit, used in (
        ("role", row["role_limit"], row["role_used"]),
        ("database", row["database_limit"], row["database_used"]),
    ):
        if 0 <= limit < used + at_once:
            message = f"the {what}'s connection limit leaves {max(0, limit - used)}, and a run would take {at_once}"
            hint = f"set the server's max_concurrency to {max(1, limit - used)} or less, or raise the limit"
            return Finding("connections", Level.PROBLEM, message, hint, measured=measured)
    if free < 1:
        message = f"none of {row['most']} connections is free"
        return Finding("connections", Level.PROBLEM, message, "close some, or raise max_connections", (), measured)
    if at_once < wanted:
        message = (
            f"{free} of {row['most']} connections are free: a run takes a quarter of them, hence {at_once} at once"
            f" and not max_concurrency {wanted}"
        )
        return Finding("connections", Level.NOTE, message, "close some, or raise max_connections", (), measured)
    return Finding("connections", Level.OK, f"{free} of {row['most']} connections are free", measured=measured)


def _limit(limit: int) -> int | None:
    return None if limit < 0 else limit


def _lock_room(row: asyncpg.Record, largest: int, at_once: int) -> Finding:
    need = largest * at_once
    measured = {"room": row["room"], "held": row["held"], "largest_tenant": largest, "at_once": at_once, "need": need}
    free = row["room"] - row["held"]
    message = (
        f"{free} of {row['room']} locks are free; {at_once} at once with {largest} relations each would lock at most"
        f" {need}"
    )
    hint = "raise max_locks_per_transaction, or lower the server's max_concurrency"
    if need > free:
        return Finding("lock_room", Level.PROBLEM, message, hint, measured=measured)
    if need * 2 > free:
        return Finding("lock_room", Level.NOTE, message, hint, measured=measured)
    return Finding("lock_room", Level.OK, message, measured=measured)


async def _check_writable(raw: _RawConnection) -> Finding:
    standby, read_only = await raw.fetchrow(
        "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only')::bool"
    )
    measured = {"in_recovery": standby, "read_only": read_only}
    if standby:
        hint = "name the primary in the server's url"
        return Finding("writable", Level.PROBLEM, "this is a standby: nothing can be written", hint, (), measured)
    if read_only:
        hint = "ALTER ROLE ... RESET default_transaction_read_only (or ALTER DATABASE)"
        message = "default_transaction_read_only is on: nothing can be written"
        return Finding("writable", Level.PROBLEM, message, hint, measured=measured)
    return Finding("writable", Level.OK, "a primary that can be written", measured=measured)


async def _check_replicas(raw: _RawConnection) -> Finding:
    try:
        rows = await raw.fetch(_REPLICAS)
        names, commit = await raw.fetchrow(
            "SELECT current_setting('synchronous_standby_names'), current_setting('synchronous_commit')"
        )
    except asyncpg.PostgresError as error:
        # A standby has no current write position; `writable` says what it is.
        return Finding("replicas", Level.NOTE, f"replicas could not be asked for: {describe(error).message}")
    seen = all(row["seen"] for row in rows)
    measured = {
        "replicas": [
            {"name": row["application_name"], "state": row["state"], "lag_s": row["seconds"], "lag_bytes": row["bytes"]}
            for row in rows
        ],
        "seen": seen,
    }
    waits = names and commit not in ("off", "local")
    if waits and seen and not any(row["sync_state"] in ("sync", "quorum") for row in rows):
        message = "no synchronous replica is connected: every commit would wait for one"
        hint = "bring one of synchronous_standby_names back"
        return Finding("replicas", Level.PROBLEM, message, hint, measured=measured)
    if not seen:
        message = f"replicas: {len(rows)}; this role may not see how far behind they are"
        return Finding("replicas", Level.NOTE, message, "GRANT pg_read_all_stats TO the role", (), measured)
    late = [row for row in rows if (row["seconds"] or 0) > _LAG]
    if late:
        message = f"replica {late[0]['application_name'] or '?'} is {late[0]['seconds']:.0f} s behind"
        return Finding("replicas", Level.NOTE, message, "wait for it, or migrate fewer tenants at once", (), measured)
    return Finding("replicas", Level.OK, f"replicas: {len(rows)}", measured=measured)
