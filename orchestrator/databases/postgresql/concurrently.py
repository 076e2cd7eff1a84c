"""What says CONCURRENTLY is let wait longer than ``lock_timeout``.

PostgreSQL's manual, "Building Indexes Concurrently": such a statement waits until every older transaction has ended,
whatever tables that uses. In a database of many tenants these are the other tenants' migrations, and ``lock_timeout``
counts the wait. It is there so that nobody queues behind a waiting migration; behind this wait nobody does, while
giving up leaves an invalid index behind. ``statement_timeout`` still holds.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import asyncpg
from sqlalchemy import Engine, event
from sqlalchemy.util import await_only


def _comment(nested: int) -> str:
    """A comment with so many levels of others in it, which PostgreSQL allows, that can be read in one way only."""
    others = f"|{_comment(nested - 1)}" if nested else ""
    return rf"/\*(?:[^*/]|\*(?!/)|/(?!\*){others})*+\*/"


#: Space, or a comment.
BLANK = rf"\s|--[^\n]*(?:\n|$)|{_comment(2)}"
#: What may stand before a statement's first word. Nothing of it is tried in another way (``*+``): thirty comments would
#: be a billion ways.
LEADING = rf"(?:{BLANK})*+"
#: The statements that wait so. Not whatever has the word in it, be it in a comment.
CONCURRENTLY = (
    r"(?:CREATE\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY|DROP\s+INDEX\s+CONCURRENTLY"
    r"|REINDEX\s*(?:\([^)]*\bCONCURRENTLY\b[^)]*\)\s*(?:INDEX|TABLE|SCHEMA)"
    r"|(?:\([^)]*\)\s*)?(?:INDEX|TABLE|SCHEMA)\s+CONCURRENTLY)"
    r"|ALTER\s+TABLE\b[^;']*\bDETACH\s+PARTITION\b[^;']*\bCONCURRENTLY)\b"
)
_WAITS = re.compile(LEADING + CONCURRENTLY, re.IGNORECASE | re.DOTALL)


def let_wait(engine: Engine, raw: asyncpg.Connection) -> None:
    """Lift the timeout on ``engine``'s one connection for each statement that says CONCURRENTLY outside a transaction.

    Args:
        engine: what migrations run on.
        raw: its connection; its timeout may be another one for each tenant, and for each try.
    """

    def execute(cursor: Any, statement: str, parameters: Any, _context: Any) -> bool:
        if raw.is_in_transaction() or not _WAITS.match(statement):
            return False
        before = await_only(raw.fetchval("SHOW lock_timeout"))
        await_only(raw.execute("SET lock_timeout = 0"))
        try:
            cursor.execute(statement, parameters)
        finally:
            # Where the connection is lost, that is the error to report.
            with suppress(Exception):
                await_only(raw.execute(f"SET lock_timeout = '{before}'"))
        return True

    event.listen(engine, "do_execute", execute)
