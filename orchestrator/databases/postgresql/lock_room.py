"""Whether the server's lock table has room for what a run would lock at once, judged from the pending plan.

A transaction keeps an entry in the shared lock table for every relation that it alters, until it ends; ALTER TABLE
takes the table, each of its indexes, its TOAST table with index, and all of that for every partition. PostgreSQL's
lock table has ``max_locks_per_transaction * (max_connections + max_prepared_transactions)`` entries for all sessions
together (documentation of max_locks_per_transaction), and a transaction for which there is no room fails with 53200.

So what is needed is the sum, over the tenants that are migrated at once, of what their largest transaction locks. That
is derived: the tables are those that the revision's source mentions and the tenant has, counted in the catalog with all
that hangs on them; what it makes is counted by CREATE TABLE. It is an upper bound for these tables, because not every
statement takes all of a table's indexes, and it knows nothing of tables whose names are put together at run time.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg

from orchestrator.databases.findings import Finding, Level
from orchestrator.fleet.tenant import Tenant

if TYPE_CHECKING:
    from orchestrator.history.reach import Reach

#: What every migrating transaction locks: the tenant's lock, its own number, the version table with its index, and some
#: of the system catalogs that DDL changes.
_ALWAYS = 8
#: A new table: itself, its primary key, a sequence, one more index, its TOAST table and that one's index.
_NEW_TABLE = 6

#: Entries that altering a relation takes, by schema and name. UNION, not UNION ALL: there may be two ways to a child.
_ENTRIES = """
WITH RECURSIVE tree AS (
    SELECT n.nspname::text AS schema, c.relname::text AS name, c.oid
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = ANY($1::text[]) AND c.relname = ANY($2::text[])
    AND c.relkind IN ('r', 'p', 'f', 'v', 'm', 'i', 'I')
    UNION
    SELECT tree.schema, tree.name, i.inhrelid FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid
)
SELECT tree.schema, tree.name, sum(
    1 + (SELECT count(*) FROM pg_index x WHERE x.indrelid = tree.oid) + CASE WHEN c.reltoastrelid = 0 THEN 0 ELSE 2 END
)::int AS entries
FROM tree JOIN pg_class c ON c.oid = tree.oid GROUP BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class Locked:
    """What the largest transaction of one tenant locks."""

    #: Entries in the lock table.
    entries: int
    tenant: str
    revision: str


async def locked(
    raw: asyncpg.Connection, tenants: Sequence[Tenant], work: Mapping[str, Sequence[Reach]]
) -> list[Locked]:
    """Count for every tenant that something is pending for.

    Args:
        raw: a connection to the database of ``tenants``.
        tenants: all in that database.
        work: the transactions that are pending, by tenant id.
    """
    pending = [tenant for tenant in tenants if work.get(tenant.id)]
    # Thousands of tenants are behind by the same revisions.
    words = frozenset[str]().union(*(reach.words for tenant in pending for reach in work[tenant.id]))
    default = await raw.fetchval("SELECT current_schema()")
    schemas = {tenant.id: tenant.schema or default or "" for tenant in pending}
    entries: dict[str, dict[str, int]] = defaultdict(dict)
    for row in await raw.fetch(_ENTRIES, list(set(schemas.values())), list(words)):
        entries[row["schema"]][row["name"]] = row["entries"]
    return [largest(tenant.id, work[tenant.id], entries[schemas[tenant.id]]) for tenant in pending]


def largest(tenant: str, work: Sequence[Reach], entries: Mapping[str, int]) -> Locked:
    """The transaction that locks most.

    Args:
        tenant: its id.
        work: its transactions; at least one.
        entries: what altering each of its tables takes, by name.
    """
    found = (
        (sum(count for name, count in entries.items() if name in reach.words) + reach.created * _NEW_TABLE, reach)
        for reach in work
    )
    most, reach = max(found, key=lambda each: each[0])
    return Locked(most + _ALWAYS, tenant, reach.revision)


def lock_room(facts: Mapping[str, int], found: Sequence[Locked], at_once: int) -> Finding:
    """Hold what a run would lock against what there is.

    Args:
        facts: the server's ``lock_room``, ``locks_taken`` and ``sessions``, see ``diagnosis.py``.
        found: one for each tenant that is to be migrated.
        at_once: how many of them a run migrates at the same time.
    """
    room, taken = facts["lock_room"], facts["locks_taken"]
    there = f"{room - taken} of {room} locks are free"
    if not found:
        return Finding(Level.OK, "lock table", f"{there}, and nothing is pending")
    # Whoever meets whom: the worst is that the largest ones meet.
    worst = sorted(found, key=lambda each: -each.entries)[:at_once]
    need = sum(each.entries for each in worst)
    text = (
        f"{there}; {len(worst)} tenants at once may lock {need} (revision {worst[0].revision} in {worst[0].tenant}:"
        f" {worst[0].entries})"
    )
    if need * 2 <= room - taken:
        return Finding(Level.OK, "lock table", text)
    # Twice what is needed, so that the application has its share.
    hint = f"set max_locks_per_transaction = {math.ceil((2 * need + taken) / facts['sessions'])} and restart the server"
    fitting = (room - taken) // worst[0].entries
    if 0 < fitting < len(worst):
        hint += f", or max_concurrency: {fitting} for this server in tenants.yaml"
    return Finding(Level.PROBLEM if need > room - taken else Level.NOTE, "lock table", text, hint)
