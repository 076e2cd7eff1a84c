"""The definitions in a SQLite file, taken apart: tables into what is said of them, their columns and constraints."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from orchestrator.databases.definitions import Definition
from orchestrator.databases.sqlite.fingerprint import Entry, entries
from orchestrator.fleet.ignoring import ObjectKind

#: How a table's constraint begins; anything else is a column.
_CONSTRAINTS = {"primary": "primary key", "unique": "unique", "check": "check", "foreign": "foreign key"}
#: Words that end a column's type (sqlite.org/syntax/column-constraint.html).
_AFTER_TYPE = frozenset(
    {"constraint", "primary", "not", "null", "unique", "check", "default", "collate", "references", "generated", "as"}
)
_KINDS = {"index": ObjectKind.INDEX, "view": ObjectKind.VIEW, "trigger": ObjectKind.TRIGGER}


def definitions_in(connection: sqlite3.Connection) -> tuple[Definition, ...]:
    """What the file behind ``connection`` holds.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    return tuple(definition for entry in entries(connection) for definition in _definitions(entry))


def _definitions(entry: Entry) -> Iterator[Definition]:
    if entry.kind != "table":
        words = [word for word in entry.words if isinstance(word, str)]
        text = _text(words)
        yield Definition(_KINDS[entry.kind], entry.name, entry.table, {"definition": text}, text)
        return
    around, *parts = [part for part in entry.words if isinstance(part, list)]
    # A virtual table has no parentheses, or no columns in them.
    begin, end = (around.index("("), len(around) - around[::-1].index(")")) if "(" in around else (len(around),) * 2
    options = _text([*(word for word in around[1:begin] if word in ("virtual", "using")), *around[end:]])
    inside = ", ".join(_text(part) for part in sorted(parts, key=lambda part: _constraint_at(part) is not None))
    sql = f"{_text(around[:begin])} ({inside}) {_text(around[end:])}".strip()
    yield Definition(ObjectKind.TABLE, entry.name, entry.name, {"options": options} if options else {}, sql)
    for part in parts:
        if part:
            yield _constraint(entry.table, part) if _constraint_at(part) is not None else _column(entry.table, part)


def _constraint_at(part: Sequence[str]) -> int | None:
    """Where a constraint's own text begins, after its name; ``None`` for a column."""
    if part[:1] == ["constraint"]:
        return 2
    return 0 if part and part[0] in _CONSTRAINTS else None


def _constraint(table: str, part: Sequence[str]) -> Definition:
    at = _constraint_at(part) or 0
    text = _text(part[at:])
    fields = {"type": _CONSTRAINTS.get(part[at] if at < len(part) else "", "other"), "definition": text}
    return Definition(ObjectKind.CONSTRAINT, unquoted(part[1]) if at else text, table, fields, _text(part))


def _column(table: str, part: Sequence[str]) -> Definition:
    rest = list(part[1:])
    end = next((number for number, word in enumerate(rest) if word in _AFTER_TYPE), len(rest))
    type_, rest = rest[:end], rest[end:]
    nullable = "yes"
    for number in range(len(rest) - 1):
        if rest[number : number + 2] == ["not", "null"]:
            nullable, rest = "no", rest[:number] + rest[number + 2 :]
            break
    default = None
    if "default" in rest:
        begin = rest.index("default")
        end = _end_of_value(rest, begin + 1)
        default, rest = _text(rest[begin + 1 : end]), rest[:begin] + rest[end:]
    found = {"type": _text(type_), "nullable": nullable, "default": default, "otherwise": _text(rest)}
    fields = {name: value for name, value in found.items() if value}
    return Definition(ObjectKind.COLUMN, unquoted(part[0]), table, fields, _text(part))


def _end_of_value(words: Sequence[str], start: int) -> int:
    """Where a default that begins at ``start`` is over: a literal, a signed number, or what is in parentheses."""
    if words[start : start + 1] == ["("]:
        depth = 0
        for at in range(start, len(words)):
            depth += {"(": 1, ")": -1}.get(words[at], 0)
            if depth == 0:
                return at + 1
    end = start + (2 if words[start : start + 1] in (["-"], ["+"]) else 1)
    # 1.5 is three words.
    return end + 2 if words[end : end + 1] == ["."] else end


def unquoted(name: str) -> str:
    """A name without the quotes that it needs in SQL."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _text(words: Sequence[str]) -> str:
    """Words as people write them."""
    text = ""
    for word in words:
        joined = not text or word in (",", ")", ".") or text.endswith(("(", "."))
        text += word if joined else f" {word}"
    return text
