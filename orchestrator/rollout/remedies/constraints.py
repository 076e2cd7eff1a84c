"""What makes a constraint of PostgreSQL's what it should be."""

from __future__ import annotations

import re
from collections.abc import Iterator

from orchestrator.databases.definitions import Definition
from orchestrator.rollout.differences import Change
from orchestrator.rollout.remedies.source import by_hand, execute, names, py, quoted, text

_COLUMNS = r'\(((?:"(?:[^"]|"")*"|[\w$]+)(?:, (?:"(?:[^"]|"")*"|[\w$]+))*)\)'
_KEY = re.compile(rf"(?:PRIMARY KEY|UNIQUE) {_COLUMNS}")
_FOREIGN = re.compile(
    rf'FOREIGN KEY {_COLUMNS} REFERENCES ("(?:[^"]|"")*"|[\w$]+){_COLUMNS}'
    r"(?: ON UPDATE (CASCADE|SET NULL|SET DEFAULT|RESTRICT))?(?: ON DELETE (CASCADE|SET NULL|SET DEFAULT|RESTRICT))?"
)
_CHECK = re.compile(r"CHECK \((.*)\)", re.DOTALL)
#: What ``op.drop_constraint`` calls them.
_DROPPED_AS = {"primary key": "primary", "unique": "unique", "foreign key": "foreignkey", "check": "check"}


def create(made: Definition) -> Iterator[str]:
    """Alembic's operation, or SQL where there is more to it than the operation takes."""
    definition, table = made.fields["definition"], made.table or ""
    if made.fields.get("type") == "not null":
        column = definition.removeprefix("NOT NULL ").split(" NO INHERIT")[0].split(" NOT VALID")[0]
        yield execute(f"ALTER TABLE {quoted(table)} ALTER COLUMN {column} SET NOT NULL")
    elif key := _KEY.fullmatch(definition):
        operation = "create_primary_key" if definition.startswith("PRIMARY") else "create_unique_constraint"
        yield f"op.{operation}({py(made.name)}, {py(table)}, {names(key[1])})"
    elif foreign := _FOREIGN.fullmatch(definition):
        columns, referred, targets, update, delete = foreign.groups()
        more = f", onupdate={py(update)}" if update else ""
        more += f", ondelete={py(delete)}" if delete else ""
        other = referred[1:-1].replace('""', '"') if referred.startswith('"') else referred
        ends = f"{py(table)}, {py(other)}, {names(columns)}, {names(targets)}"
        yield f"op.create_foreign_key({py(made.name)}, {ends}{more})"
    elif check := _CHECK.fullmatch(definition):
        yield f"op.create_check_constraint({py(made.name)}, {py(table)}, {text(check[1])})"
    else:
        yield execute(f"ALTER TABLE {quoted(table)} ADD CONSTRAINT {quoted(made.name)} {definition}")


def drop(made: Definition) -> Iterator[str]:
    """Drop it."""
    table, kind = made.table or "", made.fields.get("type", "")
    if kind == "not null":
        column = made.name.removeprefix("NOT NULL ")
        yield execute(f"ALTER TABLE {quoted(table)} ALTER COLUMN {column} DROP NOT NULL")
    elif kind in _DROPPED_AS:
        yield f"op.drop_constraint({py(made.name)}, {py(table)}, type_={py(_DROPPED_AS[kind])})"
    else:
        yield execute(f"ALTER TABLE {quoted(table)} DROP CONSTRAINT {quoted(made.name)}")


def alter(change: Change, found: Definition) -> Iterator[str]:
    """Validate it where that is all; otherwise anew. What carries it out is one of the server's own triggers."""
    if change.fields.keys() <= {"enabled", "actions"}:
        own = "enabled" in change.fields
        what = f"ALTER TABLE {found.table}" if own else "for the table that it refers to, ALTER TABLE ..."
        yield by_hand(f"{what} ENABLE TRIGGER ALL, as a superuser; what was written meanwhile has passed unchecked")
        return
    expected, there = change.definition.fields["definition"], found.fields["definition"]
    if "validated" in found.fields and there.removesuffix(" NOT VALID") == expected:
        yield execute(f"ALTER TABLE {quoted(found.table or '')} VALIDATE CONSTRAINT {quoted(found.name)}")
        return
    yield from drop(found)
    yield from create(change.definition)
