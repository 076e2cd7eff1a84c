"""Rules of ``lint`` that the SQL of a revision answers, as Alembic renders it without a database. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.history.data_loss import Loss, in_sql
from orchestrator.history.enum_types import left_over
from orchestrator.history.hazards import Hazard, HazardKind

_CONCURRENTLY = re.compile(r"^\s*(?!REFRESH\b)(?:CREATE|DROP|REINDEX|ALTER)\b[^;]*?\bCONCURRENTLY\b", re.I | re.M)
_IF_NOT_EXISTS = re.compile(r"\bINDEX\s+CONCURRENTLY\s+IF\s+NOT\s+EXISTS\b", re.IGNORECASE)
_ENDS = re.compile(r"^\s*(?:COMMIT|END|ROLLBACK)\s*(?:WORK|TRANSACTION)?\s*;?\s*$", re.IGNORECASE)
_BEGINS = re.compile(r"^\s*(?:BEGIN|START\s+TRANSACTION)\b", re.IGNORECASE)
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_STRING = re.compile(r"'(?:[^']|'')*'")
_PUBLIC = re.compile(r"(?<![\w.\"'$])(?:public|\"public\")\.(?:\"[^\"]+\"|\w+)", re.IGNORECASE)
#: Names in strings that PostgreSQL reads as names.
_AS_NAME = re.compile(r"nextval\(\s*'(public\.[^']+)'|'(public\.[^']+)'\s*::\s*reg", re.IGNORECASE)
#: One name, or several, each maybe in quotes.
_PLACES = r"(?:\"[^\"]*\"|'[^']*'|[\w$]+)(?:\s*,\s*(?:\"[^\"]*\"|'[^']*'|[\w$]+))*"
#: What is made from then on, or what is moved, goes there.
_GOES_TO = re.compile(
    rf"\bSET\s+(?:(?:SESSION|LOCAL)\s+)?(?:search_path\s*(?:=|\bTO\b)|SCHEMA)\s*(?P<places>{_PLACES})"
    r"|\bset_config\(\s*'search_path'\s*,\s*'(?P<given>[^']*)'",
    re.IGNORECASE,
)
_IS_PUBLIC = re.compile(r"(?<![\w$])public(?![\w$])", re.IGNORECASE)
#: Characters of a statement that is told.
_SHORT = 80


@dataclass(frozen=True, slots=True)
class Statement:
    """One piece of a revision's SQL."""

    #: With its semicolon; ``COMMIT;`` and ``BEGIN;`` stand around an autocommit block.
    text: str
    #: 1-based line of the revision file that it comes from.
    line: int

    @property
    def short(self) -> str:
        """Its beginning, on one line."""
        return " ".join(self.text.split())[:_SHORT]


def concurrently(sql: str) -> bool:
    """Whether SQL has what PostgreSQL refuses inside a transaction; a materialized view may be refreshed there."""
    return bool(_CONCURRENTLY.search(sql))


def if_not_exists(sql: str) -> bool:
    """Whether SQL makes an index CONCURRENTLY, IF NOT EXISTS."""
    return bool(_IF_NOT_EXISTS.search(sql))


def leaves_transaction(sql: str) -> bool:
    """Whether a statement ends the transaction that it is in."""
    return bool(_ENDS.match(sql))


def is_nothing(statements: Sequence[Statement]) -> bool:
    """Whether there is no SQL in them: semicolons, comments, and transactions with nothing inside."""
    texts = (_COMMENT.sub(" ", statement.text).replace(";", " ").strip() for statement in statements)
    return all(not text or _ENDS.match(text) or _BEGINS.match(text) for text in texts)


def names_public(sql: str) -> str | None:
    """The first name in public's schema that SQL has outside strings and comments, or what sends others there.

    Returns:
        It, as it stands there; ``None`` without one.
    """
    plain = _COMMENT.sub(" ", sql)
    if found := _PUBLIC.search(_STRING.sub("''", plain)):
        return found[0]
    if hidden := _AS_NAME.search(plain):
        return hidden[1] or hidden[2]
    for sent in _GOES_TO.finditer(plain):
        if _IS_PUBLIC.search(sent["places"] or sent["given"] or ""):
            return " ".join(sent[0].split())
    return None


def sql_hazards(
    revision: str, forward: Sequence[Statement], back: Sequence[Statement], known: Sequence[Loss]
) -> Iterator[Hazard]:
    """What the rendered SQL of a revision tells; much of it the source tells, too.

    Args:
        revision: the identifier to report.
        forward: what ``upgrade`` sends.
        back: what ``downgrade`` sends.
        known: what its source says that ``upgrade`` throws away, types changed without loss included.
    """
    yield from _losses(revision, forward, known)
    for statements in (forward, back):
        inside = True
        for statement in statements:
            if _ENDS.match(statement.text) or _BEGINS.match(statement.text):
                inside = bool(_BEGINS.match(statement.text))
                continue
            if inside and concurrently(statement.text):
                detail = f"CONCURRENTLY cannot run in a transaction: {statement.short}"
                yield Hazard(revision, HazardKind.UNGUARDED_AUTOCOMMIT, detail, statement.line)
            if if_not_exists(statement.text):
                yield Hazard(revision, HazardKind.CONCURRENT_IF_NOT_EXISTS, statement.short, statement.line)
            if (name := names_public(statement.text)) is not None:
                yield Hazard(revision, HazardKind.PUBLIC_NAME, name, statement.line)


def enum_hazards(revision: str, forward: Sequence[Statement], back: Sequence[Statement]) -> Iterator[Hazard]:
    """ENUM types that stay when a revision is taken back.

    Args:
        revision: the identifier to report.
        forward: what ``upgrade`` sends.
        back: all that ``downgrade`` sends.
    """
    left = left_over([one.text for one in forward], [one.text for one in back])
    for name, number in left.items():
        yield Hazard(revision, HazardKind.ENUM_LEAK, f"type {name} stays after downgrade()", forward[number].line)


def _losses(revision: str, statements: Sequence[Statement], known: Sequence[Loss]) -> Iterator[Hazard]:
    # All together: SQLite's way to change a table drops one, and gives another its name.
    script = "\n".join(statement.text for statement in statements)
    whole = in_sql(script)
    for statement in statements:
        for loss in in_sql(statement.text, script):
            if loss in whole and not any(loss.is_like(other) for other in known):
                yield Hazard(revision, HazardKind.UPGRADE_LOSES_DATA, loss.detail, statement.line, loss.table)
