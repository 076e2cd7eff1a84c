"""Rows for a clone that is to have none of the tenant's own: made up from the types of the columns, and the keys.

They are written before indexes, foreign keys and triggers are there, so each table is one INSERT. The value of a column
depends on the number of its row alone; a column that refers to another table has the value that the other column has in
the row of that number. What a CHECK demands cannot be known: where one refuses, the table stays empty, which is told.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import asyncpg

from orchestrator.databases.postgresql.script import identifier, literal

_RawConnection: TypeAlias = asyncpg.Connection
#: Schema and name.
_Table: TypeAlias = tuple[str, str]

_COLUMNS = """
    SELECT n.nspname AS schema, c.relname AS "table", a.attname AS name, NOT a.attnotnull AS nullable,
        coalesce(nullif(t.typbasetype, 0), t.oid)::regtype::text AS type,
        t.typtype::text AS kind, t.typcategory::text AS category,
        format_type(a.atttypid, a.atttypmod) AS written, a.atttypmod AS modifier,
        (SELECT array_agg(enumlabel::text ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid) AS labels,
        pg_get_serial_sequence(format('%I.%I', n.nspname, c.relname), a.attname) AS sequence
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
    JOIN pg_type t ON t.oid = a.atttypid
    WHERE c.relkind = 'r' AND NOT c.relispartition AND n.nspname = ANY ($1) ORDER BY c.oid, a.attnum
"""
_KEYS = """
    SELECT n.nspname AS schema, c.relname AS "table", a.attname AS name, pn.nspname AS parent_schema,
        p.relname AS parent, pa.attname AS parent_name
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_class p ON p.oid = k.confrelid JOIN pg_namespace pn ON pn.oid = p.relnamespace
    CROSS JOIN LATERAL unnest(k.conkey, k.confkey) AS pair (mine, theirs)
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = pair.mine
    JOIN pg_attribute pa ON pa.attrelid = p.oid AND pa.attnum = pair.theirs
    WHERE k.contype = 'f' AND n.nspname = ANY ($1)
"""
#: A value by the type, for the row numbered ``{g}`` (from 1).
_BY_TYPE = {
    "boolean": "({g} % 2 = 0)",
    "smallint": "({g} % 32767)::smallint",
    "integer": "({g} % 2147483647)::integer",
    "bigint": "{g}",
    "real": "{g}",
    "double precision": "{g}",
    "money": "{g}::numeric::money",
    "uuid": "md5({g}::text)::uuid",
    "date": "date '2020-01-01' + ({g} % 3650)::integer",
    "timestamp without time zone": "timestamp '2020-01-01' + {g} * interval '1 second'",
    "timestamp with time zone": "timestamptz '2020-01-01 00:00Z' + {g} * interval '1 second'",
    "time without time zone": "time '00:00' + ({g} % 86400) * interval '1 second'",
    "interval": "{g} * interval '1 second'",
    "json": "'{{}}'::json",
    "jsonb": "'{{}}'::jsonb",
    "bytea": "decode(md5({g}::text), 'hex')",
    "inet": "'10.0.0.0'::inet + {g} % 16777216",
    "tsvector": "to_tsvector('simple', {g}::text)",
    "text": "'row ' || {g}",
    "citext": "'row ' || {g}",
}
#: How far columns that refer to columns that refer to others are followed.
_DEPTH = 10
#: typmods of numeric and of texts are four more than what is written (VARHDRSZ).
_HEADER = 4


class _Nothing(Exception):
    """There is no value for a column that must have one."""


@dataclass(slots=True)
class _MadeUp:
    columns: Mapping[_Table, list[Mapping[str, Any]]]
    #: What a column refers to: table and column.
    keys: Mapping[tuple[_Table, str], tuple[_Table, str]]
    #: Rows of each table that is done, or is going to be.
    counts: dict[_Table, int] = field(default_factory=dict)

    def order(self) -> list[_Table]:
        """Tables after those that they refer to; in a circle, somewhere."""
        done: dict[_Table, None] = {}
        begun: set[_Table] = set()

        def visit(table: _Table) -> None:
            if table in begun or table not in self.columns:
                return
            begun.add(table)
            for (child, _), (parent, _) in self.keys.items():
                if child == table:
                    visit(parent)
            done[table] = None

        for table in self.columns:
            visit(table)
        return list(done)

    def value(self, table: _Table, column: Mapping[str, Any], g: str, depth: int = 0) -> str:
        """SQL for one column of the row numbered ``g``."""
        refers = self.keys.get((table, column["name"]))
        if refers is not None and depth < _DEPTH:
            parent, name = refers
            count = self.counts.get(parent, 0)
            theirs = next((each for each in self.columns.get(parent, ()) if each["name"] == name), None)
            if count and theirs is not None:
                return self.value(parent, theirs, g if parent == table else f"(1 + ({g} - 1) % {count})", depth + 1)
            return self._null(column)
        if column["kind"] == "e":
            labels = ", ".join(map(literal, column["labels"]))
            return f"(ARRAY[{labels}])[1 + {g} % {len(column['labels'])}]::{column['written']}"
        if column["category"] == "A":
            return f"'{{}}'::{column['written']}"
        return f"({self._plain(column, g)})::{column['written']}"

    def _plain(self, column: Mapping[str, Any], g: str) -> str:
        modifier, kind = column["modifier"], column["type"]
        if kind == "numeric":
            if modifier < 0:
                return f"{g}::numeric"
            precision, scale = (modifier - _HEADER) >> 16 & 0xFFFF, (modifier - _HEADER) & 0x7FF
            return f"{g} % {10 ** max(precision - scale, 0)}::numeric"
        if kind in ("character varying", "character", "bpchar"):
            return f"right({g}::text, {modifier - _HEADER})" if modifier > 0 else f"'row ' || {g}"
        if kind in _BY_TYPE:
            return _BY_TYPE[kind].format(g=g)
        return self._null(column)

    @staticmethod
    def _null(column: Mapping[str, Any]) -> str:
        if not column["nullable"]:
            raise _Nothing(f"nothing is known for {column['name']} ({column['written']}), which must not be empty")
        return "NULL"


async def make_up_rows(
    source: _RawConnection, clone: _RawConnection, schemas: Collection[str], rows: int, without: Iterable[str]
) -> list[str]:
    """Fill a clone's tables.

    Args:
        source: a connection to the tenant's database, whose keys are read; no row of it is.
        clone: a connection to the clone, which has tables and no indexes.
        schemas: the tenant's own.
        rows: for each table.
        without: names of tables that get none.

    Returns:
        What could not be done, for people.
    """
    columns: dict[_Table, list[Mapping[str, Any]]] = {}
    aside = frozenset(without)
    for row in await source.fetch(_COLUMNS, list(schemas)):
        if row["table"] not in aside:
            columns.setdefault((row["schema"], row["table"]), []).append(row)
    keys = {
        ((row["schema"], row["table"]), row["name"]): ((row["parent_schema"], row["parent"]), row["parent_name"])
        for row in await source.fetch(_KEYS, list(schemas))
    }
    made, notes = _MadeUp(columns, keys), []
    await clone.execute("SELECT set_config('search_path', $1, false)", ", ".join(map(identifier, schemas)))
    for table in made.order():
        made.counts[table] = rows
        try:
            await _fill(clone, made, table, rows)
        except (_Nothing, asyncpg.PostgresError) as error:
            made.counts[table] = 0
            notes.append(f"no rows were made up for {table[1]}: {str(error).partition(chr(10))[0]}")
    await clone.execute("RESET search_path")
    return notes


async def _fill(clone: _RawConnection, made: _MadeUp, table: _Table, rows: int) -> None:
    columns = made.columns[table]
    names = ", ".join(identifier(each["name"]) for each in columns)
    values = ", ".join(made.value(table, each, "g") for each in columns)
    place = ".".join(map(identifier, table))
    numbers = f"generate_series(1, {rows}::bigint) g"
    await clone.execute(f"INSERT INTO {place} ({names}) OVERRIDING SYSTEM VALUE SELECT {values} FROM {numbers}")
    for each in columns:
        if each["sequence"] is not None:
            await clone.execute(f"SELECT setval({literal(each['sequence'])}::regclass, {rows})")
