"""The shape of one SQLite file: files of one shape have one digest.

SQLite keeps every definition as the text it was given, so the text is all there is to compare; pragmas tell less of it
(no CHECK, no generated expression, no AUTOINCREMENT). What counts are tables, indexes, views and triggers with every
word of their definitions: types, defaults, constraints, collations, generated columns, STRICT, WITHOUT ROWID. What does
not: comments, spacing, the case of words, quotes around a name that does without, the order of a table's columns and
constraints (Alembic's batch mode writes them in another order each time, and ALTER TABLE puts a column last), what
SQLite makes for itself (``sqlite_%``), and rows.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from dataclasses import dataclass

#: A comment, a text, a quoted name, a word or number, or any other character. Quotes are doubled inside themselves.
_TOKEN = re.compile(
    r"(?P<comment>--[^\n]*|/\*.*?(?:\*/|\Z))"
    r"|(?P<text>[xX]?'(?:[^']|'')*')"
    r'|(?P<quoted>"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\])'
    r"|(?P<word>[\w$]+)"
    r"|(?P<other>\S)",
    re.DOTALL,
)
_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a file."""

    #: ``table``, ``index``, ``view`` or ``trigger``.
    kind: str
    name: str
    #: The table that it belongs to, or is.
    table: str
    #: Its definition word by word; of a table, what is around its parentheses and then each column and constraint.
    words: list[str] | list[list[str]]


def fingerprint_file(connection: sqlite3.Connection) -> str:
    """Fingerprint the file behind ``connection``.

    Returns:
        SHA-256 of all definitions in order, its first half as 32 hex digits.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    lines = sorted(json.dumps([each.kind, each.name, each.table, each.words]) for each in entries(connection))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def entries(connection: sqlite3.Connection) -> list[Entry]:
    """What is digested of the file behind ``connection``.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    rows = connection.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    )
    return [
        Entry(kind, name, table, _table(sql or "") if kind == "table" else _tokens(sql or ""))
        for kind, name, table, sql in rows
    ]


def _tokens(sql: str) -> list[str]:
    return [_normal(match) for match in _TOKEN.finditer(sql) if match.lastgroup != "comment"]


def _normal(match: re.Match[str]) -> str:
    token = match.group()
    if match.lastgroup == "word":
        return token.lower()
    if match.lastgroup == "quoted":
        # `ALTER TABLE ... RENAME` quotes names that were not quoted before.
        name = token[1:-1].replace(token[-1] * 2, token[-1]) if token[0] != "[" else token[1:-1]
        return name if _PLAIN_NAME.fullmatch(name) else '"' + name.replace('"', '""') + '"'
    return token


def _table(sql: str) -> list[list[str]]:
    """What stands before, after and between the outermost parentheses; the last split at its commas and sorted."""
    around: list[str] = []
    parts: list[list[str]] = [[]]
    depth = 0
    for token in _tokens(sql):
        depth -= token == ")"
        if depth == 0:
            around.append(token)
        elif depth == 1 and token == ",":
            parts.append([])
        else:
            parts[-1].append(token)
        depth += token == "("
    return [around, *sorted(parts)]
