"""Read-only checks that a revision brings along: ``preflight = [...]`` in its file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import HistoryError
from orchestrator.history.directory import History

#: The attribute of a revision file.
ATTRIBUTE = "preflight"
_KEYS = {"sql", "message"}
_FORM = 'write preflight = ["SELECT id FROM ...", {"sql": "SELECT ...", "message": "what is wrong with these rows"}]'
#: What a query begins with; anything else could not stand where the check puts it.
_QUERY = re.compile(r"\s*(?:--[^\n]*\n\s*|\(\s*)*(?:SELECT|WITH|VALUES|TABLE)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class OwnCheck:
    """One entry of a revision's ``preflight``."""

    #: A query without a semicolon at its end; it returns the rows that stand against the revision.
    sql: str
    #: What is wrong with such rows, for people; empty where the author says nothing.
    message: str = ""


def own_checks(history: History, revision: str) -> tuple[OwnCheck, ...]:
    """The checks that a revision brings along, in order.

    Args:
        history: the shared directory.
        revision: its full identifier.

    Raises:
        HistoryError: ``preflight`` is not a list of queries, with what to write instead.
    """
    script = history.script.get_revision(revision)
    given = getattr(script.module, ATTRIBUTE, ())
    try:
        return tuple(_checks(given))
    except (TypeError, ValueError) as error:
        raise HistoryError(f"{history.file(revision).name}: {ATTRIBUTE}: {error}", hint=_FORM) from error


def _checks(given: Any) -> Iterator[OwnCheck]:
    if not isinstance(given, list | tuple):
        raise TypeError(f"a list is wanted, not {type(given).__name__}")
    for number, entry in enumerate(given, 1):
        fields = {"sql": entry} if isinstance(entry, str) else entry
        if not isinstance(fields, Mapping) or "sql" not in fields or set(fields) - _KEYS:
            raise ValueError(f"entry {number} is neither a query nor a mapping with `sql` and `message`")
        if not all(isinstance(value, str) for value in fields.values()):
            raise ValueError(f"entry {number}: `sql` and `message` are texts")
        sql = fields["sql"].strip().rstrip(";").rstrip()
        if not _QUERY.match(sql):
            raise ValueError(f"entry {number} is no query: it has to begin with SELECT or WITH")
        yield OwnCheck(sql, " ".join(fields.get("message", "").split()))
