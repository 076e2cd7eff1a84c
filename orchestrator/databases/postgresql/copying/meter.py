"""What PostgreSQL tells of a migration that runs: its locks, the write-ahead log, what was written, what was made anew.

``pg_locks`` has what a backend holds, also by the fast path; rows written in the running transaction are in the
``pg_stat_xact_*`` views, which only its own backend can read, and which may still count what an earlier transaction
wrote: so they are compared with what they said when the revision began. A table that is written anew gets another file
(https://www.postgresql.org/docs/current/storage-file-layout.html). The write-ahead log is the whole server's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import asyncpg

from orchestrator.databases.measuring import Contents, Held, Inside, Outside, Table
from orchestrator.databases.postgresql.script import identifier

if TYPE_CHECKING:
    from sqlalchemy import Connection

#: PostgreSQL's own tables are below (FirstNormalObjectId).
_OUTSIDE = """
    SELECT {wal} AS wal, coalesce(array_agg(l.relation::bigint || ' ' || l.mode), '{{}}') AS locks
    FROM pg_locks l WHERE l.pid = $1 AND l.granted AND l.locktype = 'relation' AND l.relation >= 16384
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_WAL = "(pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint"
#: Partitioned tables have no file; the parts have.
_TABLES = """
    SELECT c.oid::bigint, CASE WHEN n.nspname = current_schema() THEN c.relname::text
        ELSE n.nspname || '.' || c.relname END AS name,
        coalesce(pg_relation_filenode(c.oid), 0)::bigint AS file, c.reltuples::bigint AS rows,
        c.relpages::bigint * current_setting('block_size')::bigint AS bytes, i.indrelid::bigint AS of
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_index i ON i.indexrelid = c.oid
    WHERE c.relkind IN ('r', 'p', 'm', 'v', 'f', 'i') AND c.oid >= 16384 AND n.nspname !~ '^pg_'
    ORDER BY c.relkind = 'i'
"""
_WRITTEN = (
    "SELECT relid::bigint, n_tup_ins + n_tup_upd + n_tup_del, n_tup_upd + n_tup_del FROM pg_stat_xact_user_tables"
    " WHERE n_tup_ins + n_tup_upd + n_tup_del > 0"
)

_WITH_ROWS = """
    SELECT n.nspname::text, c.relname::text, c.reltuples::bigint FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.relname <> $1 AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    ORDER BY c.oid
"""
#: Rows of a table whose contents are compared, at most: some seconds.
_COMPARED = 5_000_000


@dataclass(slots=True)
class PostgreSQLMeter:
    """Looks at one migrating connection from another one."""

    _raw: asyncpg.Connection
    #: The tenant's own schema.
    _schema: str
    no_locks: str | None = None
    no_wal: str | None = None
    _options: dict[str, Any] = field(default_factory=dict)

    async def outside(self, connection: Connection) -> Outside:
        """One question to the server."""
        pid = connection.connection.driver_connection.get_server_pid()  # type: ignore[union-attr]  # asyncpg's
        if self.no_wal is None:
            try:
                return _seen(await self._raw.fetchrow(_OUTSIDE.format(wal=_WAL), pid))
            except asyncpg.PostgresError as error:
                # Some hosts do not let it be asked.
                self.no_wal = f"the server does not tell: {error}"
        return _seen(await self._raw.fetchrow(_OUTSIDE.format(wal="NULL::bigint"), pid))

    def stands_for_itself(self, connection: Connection) -> bool:
        """In an autocommit block, or after a COMMIT that was sent as SQL."""
        return stands_for_itself(connection)

    def inside(self, connection: Connection) -> Inside:
        """Two questions, in the migration's own transaction."""
        tables: dict[int, Table] = {}
        indexes: dict[int, dict[str, int]] = {}
        for oid, name, file, rows, size, of in connection.exec_driver_sql(_TABLES, execution_options=self._options):
            if of is not None:
                indexes.setdefault(of, {})[name] = file
            else:
                tables[oid] = Table(name, file, rows if rows >= 0 else None, size, indexes.setdefault(oid, {}))
        rows = connection.exec_driver_sql(_WRITTEN, execution_options=self._options).all()
        return Inside(tables, {row[0]: row[1] for row in rows}, {row[0]: row[2] for row in rows})

    async def contents(self, version_table: str) -> Contents:
        """Counted and added up by the server."""
        found: dict[str, tuple[int, str]] = {}
        too_large = []
        for schema, table, rows in await self._raw.fetch(_WITH_ROWS, version_table):
            name = table if schema == self._schema else f"{schema}.{table}"
            if rows > _COMPARED:
                too_large.append(name)
                continue
            # A column that was dropped and made again is the last one now, and jsonb sorts them by name.
            sums = "SELECT count(*), coalesce(sum(hashtextextended(to_jsonb(t)::text, 0)), 0)::text"
            count, total = await self._raw.fetchrow(f"{sums} FROM {identifier(schema)}.{identifier(table)} t")
            found[name] = (count, total)
        return Contents(found, tuple(too_large))

    def unheard(self, option: str) -> None:
        """Mark its own statements with an execution option, by which listeners know them."""
        self._options[option] = True


def stands_for_itself(connection: Connection) -> bool:
    """Whether the next statement on ``connection`` is in no transaction: in an autocommit block, or after a COMMIT."""
    raw: Any = connection.connection.driver_connection
    adapted: Any = connection.connection.dbapi_connection
    if raw.is_in_transaction():
        return False
    # The driver begins one by itself where it is to, unless it thinks that it has.
    return adapted.isolation_level == "autocommit" or adapted._transaction is not None


def _seen(row: asyncpg.Record) -> Outside:
    pairs = (each.partition(" ") for each in row["locks"])
    return Outside(frozenset(Held(int(table), mode) for table, _, mode in pairs), row["wal"])
