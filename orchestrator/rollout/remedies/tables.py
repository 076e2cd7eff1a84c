"""What makes a table of PostgreSQL's what it should be."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from orchestrator.databases.definitions import Definition
from orchestrator.fleet.ignoring import ObjectKind
from orchestrator.rollout.differences import Change
from orchestrator.rollout.remedies.columns import column, in_sql
from orchestrator.rollout.remedies.source import by_hand, execute, py, quoted


def create(change: Change, operations: Callable[[Change], Iterator[str]]) -> Iterator[str]:
    """The table with its columns, after the sequences that they take their numbers from; then all that is on it."""
    made = change.definition
    if made.fields.keys() & {"partition bound", "partition key", "parents", "of type"}:
        yield by_hand(f"create the table {made.name} as the revision does that makes it")
        return
    columns = [part.definition for part in change.parts if part.kind is ObjectKind.COLUMN]
    sequences = [part for part in change.parts if part.kind is ObjectKind.SEQUENCE]
    others = [part for part in change.parts if part.kind not in (ObjectKind.COLUMN, ObjectKind.SEQUENCE)]
    for part in sequences:
        yield from operations(part)
    sources = [column(each) for each in columns]
    if all(source is not None for source in sources):
        yield f"op.create_table({', '.join([py(made.name), *(source or '' for source in sources)])})"
    else:
        unlogged = "UNLOGGED " if made.fields.get("persistence") == "unlogged" else ""
        inside = ", ".join(in_sql(each) for each in columns)
        yield execute(f"CREATE {unlogged}TABLE {quoted(made.name)} ({inside})")
    for part in sequences:
        each = part.definition
        if "identity" not in each.fields:
            owner = f"{quoted(made.name)}.{quoted(each.fields.get('column', ''))}"
            yield execute(f"ALTER SEQUENCE {quoted(each.name)} OWNED BY {owner}")
    # A key of another table's may refer to a unique constraint, and an index may be one's.
    for part in sorted(others, key=lambda part: part.definition.fields.get("type") == "foreign key"):
        if part.definition.fields.get("type") != "not null":
            yield from operations(part)
    yield from _secured(made, made.fields.keys() & {"row security", "row security for its owner"})


def drop(made: Definition) -> Iterator[str]:
    """Drop it with all that is on it."""
    yield f"op.drop_table({py(made.name)})"


def alter(change: Change, found: Definition) -> Iterator[str]:
    """What can be said of a table that is there."""
    made, changed = change.definition, change.fields.keys()
    start = f"ALTER TABLE {quoted(made.name)}"
    yield from _secured(made, changed)
    if "persistence" in changed:
        yield execute(f"{start} SET {'UNLOGGED' if 'persistence' in made.fields else 'LOGGED'}")
    if "options" in changed:
        expected, there = (_options(each) for each in (made, found))
        if gone := [name for name in there if name not in expected]:
            yield execute(f"{start} RESET ({', '.join(gone)})")
        if new := [f"{name} = {value}" for name, value in expected.items() if there.get(name) != value]:
            yield execute(f"{start} SET ({', '.join(new)})")
    if "replica identity" in changed and (how := made.fields.get("replica identity", "default")) != "an index":
        yield execute(f"{start} REPLICA IDENTITY {how.upper()}")
    rest = changed - {"row security", "row security for its owner", "persistence", "options"}
    if "an index" not in (change.fields.get("replica identity") or ("", ""))[:1]:
        rest -= {"replica identity"}
    if rest:
        yield by_hand(f"{start} ... for its {', '.join(sorted(rest))}")


def _secured(made: Definition, changed: Collection[str]) -> Iterator[str]:
    words = {"row security": ("ENABLE", "DISABLE"), "row security for its owner": ("FORCE", "NO FORCE")}
    for name, (on, off) in words.items():
        if name in changed:
            yield execute(f"ALTER TABLE {quoted(made.name)} {on if name in made.fields else off} ROW LEVEL SECURITY")


def _options(made: Definition) -> dict[str, str]:
    parts = (part.partition("=") for part in made.fields.get("options", "").split(", ") if part)
    return {name: value for name, _, value in parts}
