"""What is said of PostgreSQL's objects beside what they are: comments, and whose they are."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.databases.definitions import COMMENT, OWNER, Definition
from orchestrator.fleet.ignoring import ObjectKind
from orchestrator.rollout.differences import Change
from orchestrator.rollout.remedies.source import by_hand, execute, quoted

#: What SQL calls them, where that is another word.
_WORDS = {ObjectKind.ENUM: "TYPE", ObjectKind.FUNCTION: "ROUTINE"}
_COLUMNS = (ObjectKind.COLUMN, ObjectKind.VIEW_COLUMN, ObjectKind.ATTRIBUTE)


def said(change: Change) -> Iterator[str]:
    """Lines that give an object the comment and the owner that it should have."""
    made = change.definition
    if made.kind is ObjectKind.FUNCTION and " DEFAULT " in made.name:
        yield by_hand(f"give the function {made.name} the {' and '.join(sorted(change.fields))} that it should have")
        return
    if COMMENT in change.fields:
        text = made.fields.get(COMMENT)
        yield execute(f"COMMENT ON {_named(made)} IS {_literal(text) if text is not None else 'NULL'}")
    if OWNER in change.fields and OWNER in made.fields:
        yield execute(f"ALTER {_named(made)} OWNER TO {quoted(made.fields[OWNER])}")


def _named(made: Definition) -> str:
    if made.kind in _COLUMNS:
        return f"COLUMN {quoted(made.table or '')}.{quoted(made.name)}"
    if made.kind is ObjectKind.CONSTRAINT:
        return f"CONSTRAINT {quoted(made.name)} ON {quoted(made.table or '')}"
    name = made.name if made.kind is ObjectKind.FUNCTION else quoted(made.name)
    return f"{_WORDS.get(made.kind, made.kind.value.upper())} {name}"


def _literal(text: str) -> str:
    escaped = text.replace("'", "''")
    return f"E'{escaped}'".replace("\\", "\\\\") if "\\" in text else f"'{escaped}'"
