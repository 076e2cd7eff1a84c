"""The preconditions of a run in one PostgreSQL database: rights on its tenants, and who stands in their way."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import asyncpg

from orchestrator.databases.checkup import Finding, Level, Need, some
from orchestrator.databases.script import identifier, literal
from orchestrator.fleet.tenant import Tenant

#: Seconds after which a transaction is long: whoever wants its locks has given up by then.
_LONG = 60.0
#: How a run names its connections: what it is, which run, which tenant (Migrator.connection_name).
_OURS = re.compile(r"orchestrator (\d{8}-\d{6}-[a-z0-9]+)\b")

_RIGHTS = """
    SELECT n.nspname AS schema,
      has_schema_privilege(n.oid, 'USAGE') AS usage, has_schema_privilege(n.oid, 'CREATE') AS creation,
      count(c.oid) AS relations,
      array_agg(c.relname::text ORDER BY c.relname) FILTER (
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND NOT pg_has_role(current_user, c.relowner, 'USAGE')
        AND NOT EXISTS (SELECT FROM pg_depend d
          WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
      ) AS not_owned,
      coalesce(bool_and(
        has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
        AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE')
      ) FILTER (WHERE c.relname = $2 AND c.relkind IN ('r', 'p')), true) AS version_table
    FROM pg_namespace n
    LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'i', 'I')
    WHERE n.nspname = ANY($1) GROUP BY n.oid, n.nspname
"""
_LOCKED_SCHEMAS = """
    SELECT DISTINCT n.nspname::text FROM pg_locks l
    JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE l.locktype = 'relation' AND l.granted AND n.nspname = ANY($1)
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_LONG_TRANSACTIONS = f"""
    SELECT a.pid, a.application_name, a.usename, a.state,
      extract(epoch FROM clock_timestamp() - a.xact_start)::float AS age, a.query_start,
      ARRAY({_LOCKED_SCHEMAS} AND l.pid = a.pid) AS schemas
    FROM pg_stat_activity a
    WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.backend_type = 'client backend'
    AND a.xact_start <= clock_timestamp() - make_interval(secs => $2) ORDER BY a.xact_start
"""
#: Its locks have no process; what they share is the virtual transaction of the lock on its own identifier.
_PREPARED = f"""
    SELECT p.gid, p.owner, extract(epoch FROM clock_timestamp() - p.prepared)::float AS age,
      ARRAY({_LOCKED_SCHEMAS} AND l.pid IS NULL AND l.virtualtransaction IN (
        SELECT t.virtualtransaction FROM pg_locks t
        WHERE t.locktype = 'transactionid' AND t.transactionid = p.transaction AND t.pid IS NULL
      )) AS schemas
    FROM pg_prepared_xacts p WHERE p.database = current_database() ORDER BY p.prepared
"""
#: Sessions of other roles, which show to a role without pg_read_all_stats only that they are there.
_UNSEEN = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND usename IS NOT NULL AND backend_type IS NULL
"""
_HELD = """
    SELECT (l.classid::bigint << 32) | l.objid::bigint AS key, l.pid, a.application_name, a.usename, a.backend_start
    FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND ((l.classid::bigint << 32) | l.objid::bigint) = ANY($1)
"""

_RawConnection: TypeAlias = asyncpg.Connection


@dataclass(slots=True)
class Places:
    """What looking at databases of one server found; each database adds to it."""

    #: Right that is lacking to tenants, and what grants it to the first of them.
    lacking: dict[str, tuple[list[str], str]] = field(default_factory=dict)
    #: Tenants without a schema or database, whether it could be made.
    missing: dict[str, bool] = field(default_factory=dict)
    #: Tenants with relations of other owners, and one of those relations.
    foreign: dict[str, str] = field(default_factory=dict)
    #: Tenants in whose database the server's extensions_schema is not there.
    without_extensions: list[str] = field(default_factory=list)
    #: Locks of tenants that are held now.
    held: list[dict[str, Any]] = field(default_factory=list)
    #: Long transactions, and prepared ones.
    long: list[dict[str, Any]] = field(default_factory=list)
    prepared: list[dict[str, Any]] = field(default_factory=list)
    #: Sessions that this role may not look into.
    unseen: int = 0
    #: Relations of the largest tenant.
    largest: int = 0

    def lack(self, right: str, tenant: str, grant: str) -> None:
        """Note that ``tenant`` is without a right, and what would grant it."""
        self.lacking.setdefault(right, ([], grant))[0].append(tenant)

    def findings(self, need: Need) -> list[Finding]:
        """All of it in the words of :class:`Finding`."""
        return [
            *self._rights(need),
            *self._missing(),
            _in_the_way("long_transactions", self.long, need, f"no transaction is older than {_LONG:.0f} s"),
            _in_the_way("prepared_transactions", self.prepared, need, "no prepared transactions"),
            *self._unseen(),
            *self._held(),
        ]

    def _rights(self, need: Need) -> list[Finding]:
        found = [
            Finding("rights", Level.PROBLEM, f"the role has no {right}", grant, tuple(tenants))
            for right, (tenants, grant) in self.lacking.items()
        ]
        if self.foreign:
            tenants = tuple(self.foreign)
            level = Level.PROBLEM if need.pending.intersection(tenants) else Level.NOTE
            message = f"the role does not own {next(iter(self.foreign.values()))}: it could not be altered or dropped"
            hint = "let the role own the tenants' tables: REASSIGN OWNED BY ... TO ..., as their owner or a superuser"
            found.append(Finding("rights", level, message, hint, tenants))
        if self.without_extensions:
            tenants = tuple(self.without_extensions)
            message = f"the server's extensions_schema is not in the database of {some(tenants)}"
            found.append(Finding("rights", Level.NOTE, message, "CREATE SCHEMA it there, if they need it", tenants))
        return found or [Finding("rights", Level.OK, "the role has the rights that a migration needs")]

    def _missing(self) -> list[Finding]:
        found = []
        makeable = tuple(tenant for tenant, can in self.missing.items() if can)
        others = tuple(tenant for tenant, can in self.missing.items() if not can)
        if makeable:
            message = f"not there yet: {some(makeable)}"
            found.append(Finding("places", Level.NOTE, message, "orchestrator upgrade --provision", makeable))
        if others:
            message = f"not there, and the role may not make them: {some(others)}"
            hint = "GRANT CREATE ON DATABASE ... TO the role for schemas, ALTER ROLE ... CREATEDB for databases"
            found.append(Finding("places", Level.PROBLEM, message, hint, others))
        return found

    def _unseen(self) -> list[Finding]:
        if not self.unseen:
            return []
        message = f"{self.unseen} sessions of other roles could not be looked into: their transactions may be long"
        hint = "GRANT pg_read_all_stats TO the role"
        return [Finding("long_transactions", Level.NOTE, message, hint, measured={"unseen": self.unseen})]

    def _held(self) -> list[Finding]:
        if not self.held:
            return [Finding("locks", Level.OK, "no tenant is being migrated")]
        return [_held_finding(each) for each in self.held]


def _held_finding(held: Mapping[str, Any]) -> Finding:
    who = f"{held['application_name'] or 'a session without a name'} (pid {held['pid']}"
    who += f", connected since {held['connected_at']})" if held["connected_at"] else ")"
    tenant = str(held["tenant"])
    if held["run"] is not None:
        message, hint = (
            f"{tenant} is being migrated by {who}",
            "wait for it, or look at it: orchestrator runs show last",
        )
        return Finding("locks", Level.NOTE, message, hint, (tenant,), held)
    hint = f"find out whose it is; SELECT pg_terminate_backend({held['pid']}) ends it"
    return Finding("locks", Level.PROBLEM, f"{tenant}'s lock is held by {who}", hint, (tenant,), held)


def _in_the_way(check: str, found: Sequence[Mapping[str, Any]], need: Need, otherwise: str) -> Finding:
    """Transactions that hold locks on tenants' tables stop DDL there, others only CREATE INDEX CONCURRENTLY."""
    if not found:
        return Finding(check, Level.OK, otherwise)
    blocked = tuple(dict.fromkeys(tenant for each in found for tenant in each["tenants"]))
    first = next((each for each in found if each["tenants"]), found[0])
    others = f" and {len(found) - 1} more" if len(found) > 1 else ""
    if "gid" in first:
        who = f"transaction prepared as {first['gid']!r}, {first['age_s']:.0f} s ago"
        hint = f"ROLLBACK PREPARED {literal(first['gid']).strip()}, or COMMIT PREPARED: who made it knows"
    else:
        who = f"transaction open for {first['age_s']:.0f} s: {first['application_name'] or '?'} (pid {first['pid']})"
        hint = f"wait for it; SELECT pg_terminate_backend({first['pid']}) ends it"
    where = f" holds locks in {some(blocked)}" if blocked else " holds none of the tenants' locks"
    level = Level.PROBLEM if need.pending.intersection(blocked) else Level.NOTE
    return Finding(check, level, f"{who}{where}{others}", hint, blocked, {"transactions": list(found)})


async def look_at_database(
    raw: _RawConnection,
    tenants: Sequence[Tenant],
    need: Need,
    keys: Mapping[int, str],
    extensions: str | None,
    places: Places,
) -> None:
    """Look at one database and its tenants.

    Args:
        raw: a connection to it, outside any transaction, with the search path of its tenants without a schema.
        tenants: those in this database.
        need: what a run would ask.
        keys: tenants by the keys of their locks.
        extensions: the schema that every tenant's search path has behind its own.
        places: is added to.
    """
    default = await raw.fetchval("SELECT current_schema()")
    by_schema: dict[str, list[str]] = {}
    for tenant in tenants:
        schema = tenant.schema if tenant.schema is not None else default
        if schema is None:
            grant = "GRANT USAGE, CREATE ON SCHEMA public TO the role in the server's url"
            places.lack("schema that its search path finds", tenant.id, grant)
        else:
            by_schema.setdefault(schema, []).append(tenant.id)
    await _look_at_rights(raw, by_schema, need, places)
    if extensions is not None:
        await _look_at_extensions(raw, extensions, tenants, places)
    held = await raw.fetch(_HELD, list(keys))
    for row in held:
        places.held.append(
            {
                "tenant": keys[row["key"]],
                "pid": row["pid"],
                "application_name": row["application_name"],
                "run": _run(row["application_name"]),
                "role": row["usename"],
                "connected_at": row["backend_start"] and row["backend_start"].isoformat(timespec="seconds"),
            }
        )
    migrating = {row["pid"] for row in held}
    schemas = list(by_schema)
    for row in await raw.fetch(_LONG_TRANSACTIONS, schemas, _LONG):
        if row["pid"] not in migrating:
            places.long.append(
                {
                    "pid": row["pid"],
                    "application_name": row["application_name"],
                    "role": row["usename"],
                    "state": row["state"],
                    "age_s": round(row["age"], 1),
                    "query_started_at": row["query_start"] and row["query_start"].isoformat(timespec="seconds"),
                    "tenants": _tenants(by_schema, row["schemas"]),
                }
            )
    for row in await raw.fetch(_PREPARED, schemas):
        places.prepared.append(
            {
                "gid": row["gid"],
                "role": row["owner"],
                "age_s": round(row["age"], 1),
                "tenants": _tenants(by_schema, row["schemas"]),
            }
        )
    places.unseen += await raw.fetchval(_UNSEEN)


async def _look_at_rights(
    raw: _RawConnection, by_schema: Mapping[str, Sequence[str]], need: Need, places: Places
) -> None:
    rows = {row["schema"]: row for row in await raw.fetch(_RIGHTS, list(by_schema), need.version_table)}
    may_make = await raw.fetchval("SELECT has_database_privilege(current_database(), 'CREATE')")
    for schema, tenants in by_schema.items():
        row = rows.get(schema)
        if row is None:
            places.missing.update(dict.fromkeys(tenants, may_make))
            continue
        places.largest = max(places.largest, row["relations"])
        name = identifier(schema)
        for tenant in tenants:
            if not row["usage"] or not row["creation"]:
                grant = f"GRANT USAGE, CREATE ON SCHEMA {name} TO the role in the server's url"
                places.lack("USAGE and CREATE on the tenant's schema", tenant, grant)
            if not row["version_table"]:
                table = f"{name}.{identifier(need.version_table)}"
                grant = f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO the role in the server's url"
                places.lack("right to read and write the version table", tenant, grant)
            if row["not_owned"]:
                places.foreign[tenant] = f"{schema}.{row['not_owned'][0]}"


async def _look_at_extensions(raw: _RawConnection, extensions: str, tenants: Sequence[Tenant], places: Places) -> None:
    usage = await raw.fetchval(
        "SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = $1", extensions
    )
    ids = [tenant.id for tenant in tenants]
    if usage is None:
        # A search path may name what is not there; only a revision that needs an extension will miss it.
        places.without_extensions.extend(ids)
    elif not usage:
        for id in ids:
            grant = f"GRANT USAGE ON SCHEMA {identifier(extensions)} TO the role in the server's url"
            places.lack("USAGE on the server's extensions_schema", id, grant)


def _tenants(by_schema: Mapping[str, Sequence[str]], schemas: Sequence[str]) -> list[str]:
    return [tenant for schema in sorted(schemas) for tenant in by_schema[schema]]


def _run(application: str | None) -> str | None:
    found = _OURS.match(application or "")
    return found[1] if found else None
