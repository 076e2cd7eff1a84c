"""What makes a column of PostgreSQL's what it should be."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from orchestrator.databases.definitions import Definition
from orchestrator.rollout.differences import Change, What
from orchestrator.rollout.remedies.source import by_hand, execute, py, quoted, sa_type, text


def column(made: Definition) -> str | None:
    """``sa.Column(...)``; ``None`` where its type is not among the usual ones."""
    kind = sa_type(made.fields.get("type", ""))
    if kind is None or made.fields.keys() & {"collation", "compression"}:
        return None
    parts = [py(made.name), kind]
    if "generated as" in made.fields:
        persisted = "" if "virtual" in made.fields else ", persisted=True"
        parts.append(f"sa.Computed({py(made.fields['generated as'])}{persisted})")
    elif "identity" in made.fields:
        parts.append(f"sa.Identity(always={made.fields['identity'] == 'always'})")
    elif "default" in made.fields:
        parts.append(f"server_default={text(made.fields['default'])}")
    if made.fields.get("nullable") == "no":
        parts.append("nullable=False")
    return f"sa.Column({', '.join(parts)})"


def in_sql(made: Definition) -> str:
    """The same as SQL."""
    fields = made.fields
    parts = [quoted(made.name), fields.get("type", "")]
    parts += [f"COLLATE {fields['collation']}"] if "collation" in fields else []
    parts += [f"GENERATED {fields['identity'].upper()} AS IDENTITY"] if "identity" in fields else []
    if "generated as" in fields:
        parts.append(f"GENERATED ALWAYS AS ({fields['generated as']}) {'VIRTUAL' if 'virtual' in fields else 'STORED'}")
    parts += [f"DEFAULT {fields['default']}"] if "default" in fields else []
    parts += ["NOT NULL"] if fields.get("nullable") == "no" else []
    return " ".join(parts)


def add(change: Change, operations: Callable[[Change], Iterator[str]]) -> Iterator[str]:
    """Add it, after the sequence that it takes its numbers from."""
    made = change.definition
    if "inherited" in made.fields:
        yield _with_its_parent(made)
        return
    for part in change.parts:
        yield from operations(part)
    source = column(made)
    if source is not None:
        yield f"op.add_column({py(made.table or '')}, {source})"
    else:
        yield execute(f"ALTER TABLE {quoted(made.table or '')} ADD COLUMN {in_sql(made)}")


def drop(made: Definition) -> Iterator[str]:
    """Drop it."""
    if "inherited" in made.fields:
        yield _with_its_parent(made)
        return
    yield f"op.drop_column({py(made.table or '')}, {py(made.name)})"


def alter(change: Change, found: Definition) -> Iterator[str]:
    """What Alembic alters in one operation, and what only SQL does."""
    made, changed = change.definition, change.fields.keys()
    if "inherited" in made.fields and "inherited" in found.fields:
        yield _with_its_parent(made)
        return
    if changed & {"generated as", "virtual"}:
        yield from _generated(made, found)
        return
    start = f"ALTER TABLE {quoted(made.table or '')} ALTER COLUMN {quoted(made.name)}"
    parts = []
    if changed & {"type", "collation"}:
        kind = None if "collation" in changed else sa_type(made.fields["type"])
        if kind is None:
            collation = f" COLLATE {made.fields.get('collation', chr(34) + 'default' + chr(34))}"
            yield execute(f"{start} TYPE {made.fields['type']}{collation if 'collation' in changed else ''}")
        else:
            parts.append(f"type_={kind}")
    if "nullable" in changed:
        parts.append(f"nullable={made.fields['nullable'] == 'yes'}")
    if "default" in changed:
        default = made.fields.get("default")
        parts.append(f"server_default={text(default) if default else None}")
    if parts:
        yield f"op.alter_column({py(made.table or '')}, {py(made.name)}, {', '.join(parts)})"
    if "identity" in changed:
        yield execute(f"{start} {_identity(made, found)}")
    if "storage" in changed:
        yield execute(f"{start} SET STORAGE {made.fields.get('storage', 'plain').upper()}")
    if "compression" in changed:
        yield by_hand(f"{start} SET COMPRESSION ...")
    if "inherited" in changed:
        yield by_hand(f"whether {made.table} inherits {made.name} or has it itself is said by ALTER TABLE ... INHERIT")


def _with_its_parent(made: Definition) -> str:
    return by_hand(f"{made.table}.{made.name} is inherited, and comes, goes and changes with its parent's")


def _generated(made: Definition, found: Definition) -> Iterator[str]:
    if "generated as" not in made.fields and "virtual" not in found.fields:
        yield execute(f"ALTER TABLE {quoted(made.table or '')} ALTER COLUMN {quoted(made.name)} DROP EXPRESSION")
        return
    yield from drop(found)
    yield from add(Change(What.MISSING, made), lambda _: iter(()))


def _identity(made: Definition, found: Definition) -> str:
    if "identity" not in made.fields:
        return "DROP IDENTITY"
    how = made.fields["identity"].upper()
    return f"SET GENERATED {how}" if "identity" in found.fields else f"ADD GENERATED {how} AS IDENTITY"
