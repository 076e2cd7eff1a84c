"""From a revision's operations to questions about rows: what would make each of them fail. Pure.

A question is only worth asking when the rows it is about will be the same when the operation comes to its turn. What an
earlier step of the way makes, renames or fills cannot be looked at now; then it is said that nobody looked, and why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import sqlalchemy as sa
from alembic.operations import ops
from sqlalchemy.engine import Dialect

from orchestrator.databases.postgresql.script import identifier
from orchestrator.databases.probing import Probe, ProbeKind
from orchestrator.migration.narrowing import unfit
from orchestrator.migration.operations import Recorded
from orchestrator.migration.way import Way


@dataclass(frozen=True, slots=True)
class NotProbed:
    """A step that may fail for a tenant's rows, and that nobody looked at."""

    revision: str
    #: As a probe's.
    subject: str
    #: Why not, for people.
    reason: str
    #: Tables or columns are not there yet: no rows can stand against it now.
    not_there_yet: bool = False


def probes_for(way: Sequence[Recorded], dialect: Dialect) -> tuple[list[Probe], list[NotProbed]]:
    """What to ask a tenant before it goes ``way``.

    Args:
        way: its pending revisions, in order.
        dialect: of its server.

    Returns:
        The probes, and what cannot be probed.
    """
    reader = _Reader(dialect)
    for recorded in way:
        reader.read(recorded)
    return reader.probes, reader.not_probed


class _Reader:
    def __init__(self, dialect: Dialect) -> None:
        self.probes: list[Probe] = []
        self.not_probed: list[NotProbed] = []
        self._dialect = dialect
        self._way = Way()
        self._revision = ""

    def read(self, recorded: Recorded) -> None:
        self._revision = recorded.revision
        if recorded.unseen is not None:
            self._way.cloud(recorded.revision, recorded.unseen)
        for operation in recorded.operations:
            kinds = (kind for kind in type(operation).__mro__ if kind in _READERS)
            _READERS[next(kinds, object)](self, operation)
        if recorded.cut_off is not None:
            reason = f"upgrade() does not come to its end without a database: {recorded.cut_off}"
            self.not_probed.append(NotProbed(recorded.revision, "what follows in it", reason))
            self._way.cloud(recorded.revision, "it was not seen to its end")

    # --- operations -------------------------------------------------------------------------------------------------

    def add_column(self, op: ops.AddColumnOp) -> None:
        column = op.column
        made = column.server_default is not None or column.computed is not None or column.identity is not None
        if column.nullable is False and not made and not column.primary_key:
            table = self._table(op.table_name, op.schema)
            message = f"{column.name} is to be NOT NULL and has no server_default for the rows that are there"
            self._ask(
                ProbeKind.NO_DEFAULT,
                f"{op.table_name}.{column.name}",
                message,
                f"SELECT 1 FROM {table}",
                [op.table_name],
            )
        self._way.make(self._revision, f"{op.table_name}.{column.name}")

    def alter_column(self, op: ops.AlterColumnOp) -> None:
        if op.modify_nullable is False:
            self._not_null(op.table_name, op.schema, [op.column_name])
        if op.modify_type is not None:
            self._narrow(op)
        if op.modify_name is not None:
            self._way.forget(self._revision, f"{op.table_name}.{op.column_name}")
            self._way.make(self._revision, f"{op.table_name}.{op.modify_name}")

    def unique(self, op: ops.CreateUniqueConstraintOp) -> None:
        self._unique(op.table_name, op.schema, list(op.columns), op.kw)

    def primary_key(self, op: ops.CreatePrimaryKeyOp) -> None:
        self._not_null(op.table_name, op.schema, op.columns)
        self._unique(op.table_name, op.schema, list(op.columns), op.kw)

    def index(self, op: ops.CreateIndexOp) -> None:
        if op.unique:
            self._unique(op.table_name, op.schema, list(op.columns), op.kw)

    def foreign_key(self, op: ops.CreateForeignKeyOp) -> None:
        if self._dialect.name != "postgresql" or op.kw.get("postgresql_not_valid"):
            # SQLite looks at keys when rows are written, and not even then unless it is told to.
            return
        child = self._table(op.source_table, op.kw.get("source_schema"))
        parent = self._table(op.referent_table, op.kw.get("referent_schema"))
        local, remote = list(op.local_cols), list(op.remote_cols)
        same = " AND ".join(
            f"parent.{identifier(theirs)} = child.{identifier(own)}" for own, theirs in zip(local, remote, strict=True)
        )
        there = " AND ".join(f"child.{identifier(own)} IS NOT NULL" for own in local)
        orphan = f"{there} AND NOT EXISTS (SELECT 1 FROM {parent} AS parent WHERE {same})"
        if str(op.kw.get("match") or "").upper() == "FULL" and len(local) > 1:
            nulls = f"num_nulls({', '.join(f'child.{identifier(own)}' for own in local)})"
            orphan = f"({orphan}) OR {nulls} BETWEEN 1 AND {len(local) - 1}"
        keys = ", ".join(f"child.{identifier(own)}" for own in local)
        subject = f"{op.source_table}.{', '.join(local)}"
        message = f"no row of {op.referent_table} has that {', '.join(remote)}"
        sql = f"SELECT {keys} FROM {child} AS child WHERE {orphan}"
        self._ask(ProbeKind.FOREIGN_KEY, subject, message, sql, [op.source_table, op.referent_table], local)

    def check(self, op: ops.CreateCheckConstraintOp) -> None:
        if op.kw.get("postgresql_not_valid"):
            return
        condition = self._text(op.condition)
        sql = f"SELECT * FROM {self._table(op.table_name, op.schema)} WHERE NOT ({condition}\n)"
        self._ask(ProbeKind.CHECK, op.table_name, f"not so: {condition}", sql, [op.table_name])

    def create_table(self, op: ops.CreateTableOp) -> None:
        self._way.make(self._revision, op.table_name)

    def drop_table(self, op: ops.DropTableOp) -> None:
        self._way.forget(self._revision, op.table_name)

    def rename_table(self, op: ops.RenameTableOp) -> None:
        self._way.forget(self._revision, op.table_name)
        self._way.make(self._revision, op.new_table_name)

    def drop_column(self, op: ops.DropColumnOp) -> None:
        self._way.forget(self._revision, f"{op.table_name}.{op.column_name}")

    def insert(self, op: ops.BulkInsertOp) -> None:
        self._way.statements.append((frozenset({op.table.name.lower()}), self._revision))

    def execute(self, op: ops.ExecuteSQLOp) -> None:
        try:
            text = self._text(op.sqltext)
        except Exception as error:
            self._way.cloud(self._revision, f"SQL that cannot be rendered ({type(error).__name__})")
            return
        self._way.send(self._revision, text)

    def nothing(self, _: ops.MigrateOperation) -> None:
        """It neither changes rows nor fails for them."""

    def unknown(self, operation: ops.MigrateOperation) -> None:
        self._way.cloud(self._revision, f"{type(operation).__name__} is not Alembic's own")

    # --- questions --------------------------------------------------------------------------------------------------

    def _not_null(self, table: str, schema: str | None, columns: Sequence[str]) -> None:
        for column in columns:
            sql = f"SELECT 1 FROM {self._table(table, schema)} WHERE {identifier(column)} IS NULL"
            self._ask(ProbeKind.NOT_NULL, f"{table}.{column}", "NULL, and to be NOT NULL", sql, [table], [column])

    def _unique(self, table: str, schema: str | None, columns: list[Any], options: Any) -> None:
        names = [column for column in columns if isinstance(column, str)]
        keys = [identifier(each) if isinstance(each, str) else f"({self._text(each)})" for each in columns]
        condition = options.get(f"{self._dialect.name}_where")
        where = [] if condition is None else [f"({self._text(condition)})"]
        if not options.get("postgresql_nulls_not_distinct"):
            where += [f"{key} IS NOT NULL" for key in keys]
        told = ", ".join(each if isinstance(each, str) else self._text(each) for each in columns)
        only = f" WHERE {' AND '.join(where)}" if where else ""
        grouped = ", ".join(keys)
        sql = f"SELECT {grouped} FROM {self._table(table, schema)}{only} GROUP BY {grouped} HAVING count(*) > 1"
        self._ask(ProbeKind.UNIQUE, f"{table}.{told}", "there more than once", sql, [table], names)

    def _narrow(self, op: ops.AlterColumnOp) -> None:
        if self._dialect.name != "postgresql":
            # SQLite keeps whatever it is given, whatever the type.
            return
        subject, new = f"{op.table_name}.{op.column_name}", cast("Any", op.modify_type)
        shown = new.compile(dialect=self._dialect)
        if "postgresql_using" in op.kw:
            self.not_probed.append(NotProbed(self._revision, subject, f"its values are converted to {shown} by USING"))
            return
        misfit = unfit(identifier(op.column_name), op.existing_type, new)
        if misfit is None:
            reason = f"whether its values can become {shown} is not known beforehand"
            self.not_probed.append(NotProbed(self._revision, subject, reason))
        elif misfit:
            sql = f"SELECT {identifier(op.column_name)} FROM {self._table(op.table_name, op.schema)} WHERE {misfit}"
            self._ask(ProbeKind.TYPE, subject, f"does not fit {shown}", sql, [op.table_name], [op.column_name])

    def _ask(
        self,
        kind: ProbeKind,
        subject: str,
        message: str,
        sql: str,
        tables: Sequence[str],
        columns: Sequence[str] = (),
    ) -> None:
        against = self._way.against(tables, columns)
        if against is not None:
            self.not_probed.append(NotProbed(self._revision, f"{kind} {subject}", *against))
            return
        self.probes.append(Probe(self._revision, kind, subject, message, sql))

    def _table(self, name: str, schema: str | None) -> str:
        return f"{identifier(schema)}.{identifier(name)}" if schema else identifier(name)

    def _text(self, expression: Any) -> str:
        """SQL as it would be sent, with its values in it."""
        if isinstance(expression, str):
            return expression
        if isinstance(expression, sa.TextClause):
            return expression.text
        return str(expression.compile(dialect=self._dialect, compile_kwargs={"literal_binds": True}))


#: What to do with each kind of operation.
_READERS: dict[type[Any], Callable[[_Reader, Any], None]] = {
    ops.AddColumnOp: _Reader.add_column,
    ops.AlterColumnOp: _Reader.alter_column,
    ops.CreateUniqueConstraintOp: _Reader.unique,
    ops.CreatePrimaryKeyOp: _Reader.primary_key,
    ops.CreateIndexOp: _Reader.index,
    ops.CreateForeignKeyOp: _Reader.foreign_key,
    ops.CreateCheckConstraintOp: _Reader.check,
    ops.CreateTableOp: _Reader.create_table,
    ops.DropTableOp: _Reader.drop_table,
    ops.RenameTableOp: _Reader.rename_table,
    ops.DropColumnOp: _Reader.drop_column,
    ops.BulkInsertOp: _Reader.insert,
    ops.ExecuteSQLOp: _Reader.execute,
    ops.DropIndexOp: _Reader.nothing,
    ops.DropConstraintOp: _Reader.nothing,
    ops.CreateTableCommentOp: _Reader.nothing,
    ops.DropTableCommentOp: _Reader.nothing,
    object: _Reader.unknown,
}
