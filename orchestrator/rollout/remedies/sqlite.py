"""What makes an object of SQLite's what it should be: tables are altered by Alembic's batches, which copy them."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.databases.definitions import Definition
from orchestrator.fleet.ignoring import ObjectKind
from orchestrator.rollout.differences import Change, What
from orchestrator.rollout.remedies.source import by_hand, create_index, execute, py, quoted, sa_type, text


def operations(change: Change) -> Iterator[str]:
    """Lines for the ``upgrade()`` of a revision, in order."""
    made = change.definition
    match change.kind, change.what:
        case ObjectKind.COLUMN, what:
            yield _column(change, what)
        case ObjectKind.CONSTRAINT, What.EXTRA:
            yield from _drop_constraint(made)
        case ObjectKind.CONSTRAINT, What.MISSING:
            yield by_hand(f"with op.batch_alter_table({py(made.table or '')}) as batch: ... {made.sql}")
        case ObjectKind.CONSTRAINT, _:
            yield from _drop_constraint(change.found or made)
            yield by_hand(f"with op.batch_alter_table({py(made.table or '')}) as batch: ... {made.sql}")
        case ObjectKind.TABLE, What.DIFFERENT:
            yield by_hand(f"make the table {made.name} anew: {made.sql}")
        case _, What.MISSING:
            yield from _make(change)
        case _, What.EXTRA:
            yield _drop(made)
        case _:
            yield _drop(made)
            yield from _make(change)


def _make(change: Change) -> Iterator[str]:
    made = change.definition
    if made.kind is ObjectKind.INDEX:
        yield create_index(made.name, made.table or "", made.fields["definition"])
        return
    yield execute(made.sql or made.fields.get("definition", ""))
    for part in change.parts:
        if part.kind not in (ObjectKind.COLUMN, ObjectKind.CONSTRAINT):
            yield from operations(part)


def _drop(made: Definition) -> str:
    if made.kind is ObjectKind.INDEX:
        return f"op.drop_index({py(made.name)}, table_name={py(made.table or '')})"
    if made.kind is ObjectKind.TABLE:
        return f"op.drop_table({py(made.name)})"
    return execute(f"DROP {made.kind.value.upper()} {quoted(made.name)}")


def _drop_constraint(made: Definition) -> Iterator[str]:
    if made.name == made.fields.get("definition"):
        yield by_hand(f"make the table {made.table} anew without {made.sql}: the constraint has no name to drop it by")
        return
    kind = {"primary key": "primary", "foreign key": "foreignkey"}.get(made.fields["type"], made.fields["type"])
    yield _in_batch(made, f"drop_constraint({py(made.name)}, type_={py(kind)})")


def _column(change: Change, what: What) -> str:
    made = change.definition
    if what is What.EXTRA:
        return _in_batch(made, f"drop_column({py(made.name)})")
    if what is What.MISSING:
        return execute(f"ALTER TABLE {quoted(made.table or '')} ADD COLUMN {made.sql}")
    kind = sa_type(made.fields.get("type", ""))
    if "otherwise" in change.fields or ("type" in change.fields and kind is None):
        return by_hand(f"with op.batch_alter_table({py(made.table or '')}) as batch: ... {made.sql}")
    parts = [f"type_={kind}"] if "type" in change.fields else []
    if "nullable" in change.fields:
        parts.append(f"nullable={made.fields['nullable'] == 'yes'}")
    if "default" in change.fields:
        default = made.fields.get("default")
        parts.append(f"server_default={text(default) if default else None}")
    return _in_batch(made, f"alter_column({py(made.name)}, {', '.join(parts)})")


def _in_batch(made: Definition, call: str) -> str:
    return f"with op.batch_alter_table({py(made.table or '')}) as batch: batch.{call}"
