"""What the steps of a way do to tables and rows so far: whether rows that are looked at now will be the same then."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from orchestrator.databases.failures import shortened

#: How SQL begins that changes no other rows than those of tables it names.
_NAMES_ITS_TABLES = frozenset(
    {"alter", "analyze", "begin", "comment", "commit", "create", "drop", "grant", "insert", "lock", "reindex", "reset"}
    | {"revoke", "set", "update", "vacuum"}
)
#: Words in SQL of several statements that may call what changes any rows.
_CALLS = frozenset({"call", "delete", "do", "merge", "perform", "select", "truncate"})
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_WORD = re.compile(r"\w+")


@dataclass(slots=True)
class Way:
    """What the steps so far do to tables and rows, by what is named in lower case."""

    #: Revision that makes it, by ``table`` or ``table.column``.
    made: dict[str, str] = field(default_factory=dict)
    #: Revision that renames or drops it.
    gone: dict[str, str] = field(default_factory=dict)
    #: Words of a statement, and its revision.
    statements: list[tuple[frozenset[str], str]] = field(default_factory=list)
    #: Why any rows may be others by then.
    clouded: str | None = None

    def against(self, tables: Sequence[str], columns: Iterable[str]) -> tuple[str, bool] | None:
        """Why rows of ``tables`` cannot be judged now, and whether it is for what is not there yet."""
        first = tables[0].lower()
        names = [*(table.lower() for table in tables), *(f"{first}.{column.lower()}" for column in columns)]
        for name in names:
            if name in self.made:
                return f"{name} is made by {self.made[name]}, which is pending, too", True
            if name in self.gone:
                return f"{name} is renamed or dropped by {self.gone[name]} first", False
        if self.clouded is not None:
            return self.clouded, False
        for words, revision in self.statements:
            for table in tables:
                if table.lower() in words:
                    return f"{revision} may change rows of {table} first", False
        return None

    def cloud(self, revision: str, what: str) -> None:
        """From here on any rows may be others than they are now."""
        self.clouded = self.clouded or f"{revision} may change rows first: {what}"

    def send(self, revision: str, sql: str) -> None:
        """SQL of the revision's own is run."""
        text = _COMMENT.sub(" ", sql).strip()
        words = [word.lower() for word in _WORD.findall(text)]
        several = ";" in text.rstrip("; \n")
        if words and (words[0] not in _NAMES_ITS_TABLES or (several and _CALLS.intersection(words))):
            self.cloud(revision, shortened(text))
        self.statements.append((frozenset(words), revision))

    def forget(self, revision: str, name: str) -> None:
        """A table, or ``table.column``, is dropped or renamed."""
        self.made.pop(name.lower(), None)
        self.gone[name.lower()] = revision

    def make(self, revision: str, name: str) -> None:
        """A table, or ``table.column``, is made."""
        self.made[name.lower()] = revision
