"""What a database, driver or migration raised, as a value that can be printed, counted and kept. Secrets are masked."""

from __future__ import annotations

import re
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import OrchestratorError, ServerUnreachable
from orchestrator.fleet.secrets import mask

#: A statement longer than this many characters is cut: a data migration can carry megabytes.
_STATEMENT_LIMIT = 2000
#: Characters that are shown of somebody else's statement.
_SHORT = 80
#: Texts and numbers in it.
_VALUES = re.compile(r"[eE]?'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$|\b\d+(?:\.\d+)?\b", re.DOTALL)
#: From here on a message repeats row values, which may have line breaks of their own.
_DETAILS = re.compile(r"^(?:DETAIL:|\[SQL:|\[parameters:)", re.MULTILINE)

#: A lock was not to be had within lock_timeout.
LOCK_NOT_AVAILABLE = "55P03"
#: SQLSTATEs after which the same transaction may succeed when it is run again: lock_not_available, deadlock_detected,
#: serialization_failure (PostgreSQL documentation, appendix A).
#:
#: Not disk_full (53100): a disk does not empty itself within the seconds of a few tries, and each try would take what
#: is left of it from the application: what a table grew by before it was rolled back is not given back at once.
_PASSING = frozenset({LOCK_NOT_AVAILABLE, "40P01", "40001"})
#: SQLSTATEs of a server that takes no connection just now: too_many_connections, cannot_connect_now.
_FULL = frozenset({"53300", "57P03"})
#: SQLite's codes for "somebody else is at work" (sqlite.org/rescode.html), in the low byte of its extended codes.
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
#: SQLSTATEs that say the connection is gone: admin_shutdown, crash_shutdown, cannot_connect_now and class 08.
_LOST = frozenset({"57P01", "57P02", "57P03"})

_HINTS: Mapping[str, str] = {
    LOCK_NOT_AVAILABLE: "something held the lock longer than lock_timeout; try again when it is done, or raise it:"
    " --lock-timeout 10s",
    "57014": "the statement ran longer than statement_timeout; raise it: --statement-timeout 4h",
    "25P03": "the migration left its transaction idle longer than idle_in_transaction_timeout; raise it:"
    " --idle-in-transaction-timeout 10m",
    "42501": "the migrating role lacks a right; GRANT it, then resume",
    "53300": "the server has no free connection; lower the server's max_concurrency or --jobs",
    "53200": "the server ran out of lock-table memory; raise max_locks_per_transaction",
    "53100": "the disk with that file is full, which does not pass by itself: make room there (pg_tblspc/NUMBER is the"
    " tablespace with that oid: SELECT spcname FROM pg_tablespace WHERE oid = NUMBER), then: orchestrator resume",
    "25006": "the server only reads, as a standby does: name the primary in the server's url in tenants.yaml; where it"
    " is the primary: ALTER ROLE ... SET default_transaction_read_only = off; then resume",
    "28P01": "the password is wrong; look at the server's url in tenants.yaml",
    "28000": "the server does not let this role in; look at the server's url and pg_hba.conf",
    "3D000": "create the database, or let upgrade do it with --provision",
}
#: The same for whole classes of SQLSTATEs (their first two characters), where the code itself has none.
_CLASS_HINTS: Mapping[str, str] = {
    "08": "the connection was lost, the server's log says why; one whose migration computes for longer than"
    " idle_in_transaction_timeout is ended: --idle-in-transaction-timeout 10m",
    "23": "the tenant's own rows break the new rule: mend them, then resume",
    "42": "the tenant's tables are not as the revision expects: compare them with a healthy tenant's, then resume",
    "53": "the server is out of a resource; free some, then resume",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a tenant is where it is, in the form that the JSON and the journal keep."""

    #: The exception's class, or what this product found: ``unreachable``, ``unknown_revision``, ...
    type: str
    #: First line is enough to act on; row values (DETAIL) are left out.
    message: str
    #: PostgreSQL's five characters; ``None`` where the database did not say.
    sqlstate: str | None = None
    #: The revision that was running.
    revision: str | None = None
    #: The SQL that failed.
    statement: str | None = None
    #: What to do next.
    hint: str | None = None
    #: Running the tenant again may succeed without anybody changing anything.
    passing: bool = False
    #: The connection was lost: what was committed is only known from reading again.
    lost: bool = False

    def as_json(self) -> dict[str, Any]:
        """The fields that the contract names (see docs/cli.md)."""
        return {
            "type": self.type,
            "sqlstate": self.sqlstate,
            "message": self.message,
            "revision": self.revision,
            "statement": self.statement,
            "hint": self.hint,
        }


def describe(error: BaseException, revision: str | None = None) -> Failure:
    """Turn whatever connecting or migrating raised into a :class:`Failure`.

    Args:
        error: the exception, with its chain.
        revision: the revision that was running, if one was.
    """
    if isinstance(error, OrchestratorError):
        unreachable = isinstance(error, ServerUnreachable)
        kind = "unreachable" if unreachable else type(error).__name__
        passing = unreachable and _takes_no_connection(error)
        return Failure(kind, mask(error.message), _sqlstate(error), revision, hint=error.hint, passing=passing)
    sqlstate = _sqlstate(error)
    cause = _driver_error(error)
    statement = _statement(error)
    return Failure(
        type=type(cause).__name__,
        message=mask(_first_lines(cause)),
        sqlstate=sqlstate,
        revision=revision,
        statement=mask(statement[:_STATEMENT_LIMIT]) if statement else None,
        hint=_hint(sqlstate),
        passing=sqlstate in _PASSING or _is_busy(error),
        lost=_is_lost(error, sqlstate),
    )


def shortened(statement: str) -> str:
    """A statement of somebody else's in a line: what it is, and none of the values in it."""
    line = " ".join(mask(_VALUES.sub("?", statement)).split())
    return line if len(line) <= _SHORT else f"{line[: _SHORT - 3]}..."


def _hint(sqlstate: str | None) -> str | None:
    if sqlstate is None:
        return None
    return _HINTS.get(sqlstate) or _CLASS_HINTS.get(sqlstate[:2])


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and those it came from, outermost first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = getattr(current, "orig", None) or current.__cause__


def _sqlstate(error: BaseException) -> str | None:
    for link in _chain(error):
        code = getattr(link, "sqlstate", None) or getattr(link, "pgcode", None)
        if isinstance(code, str):
            return code
    return None


def _takes_no_connection(error: BaseException) -> bool:
    """Whether a server that gave no connection may give one in a moment: it is full, or being restarted.

    Not one that does not answer: to wait for it again and again, for every tenant, takes too long.
    """
    return _sqlstate(error) in _FULL or any(isinstance(link, ConnectionRefusedError) for link in _chain(error))


def _statement(error: BaseException) -> str | None:
    """The SQL that failed, where it went through SQLAlchemy."""
    return getattr(error, "statement", None) if _is_sqlalchemys(error, "StatementError") else None


def _driver_error(error: BaseException) -> BaseException:
    """The driver's own exception below SQLAlchemy's wrappers: its text has no SQL and no parameters in it."""
    return list(_chain(error))[-1] if _is_sqlalchemys(error, "StatementError") else error


def _is_sqlalchemys(error: BaseException, kind: str) -> bool:
    """Whether it is an error of SQLAlchemy's of this kind.

    Nothing is imported for that: servers are asked before SQLAlchemy is there, and while another thread imports it.
    """
    found = getattr(sys.modules.get("sqlalchemy.exc"), kind, None)
    return found is not None and isinstance(error, found)


def _first_lines(error: BaseException) -> str:
    lines = _DETAILS.split(str(error), maxsplit=1)[0].strip().splitlines()
    return "\n".join(lines[:5]) or type(error).__name__


def _is_busy(error: BaseException) -> bool:
    return any(
        isinstance(link, sqlite3.Error) and getattr(link, "sqlite_errorcode", 0) & 0xFF in _BUSY
        for link in _chain(error)
    )


def _is_lost(error: BaseException, sqlstate: str | None) -> bool:
    if sqlstate is not None and (sqlstate in _LOST or sqlstate.startswith("08")):
        return True
    if _is_sqlalchemys(error, "DBAPIError") and getattr(error, "connection_invalidated", False):
        return True
    return any(
        isinstance(link, ConnectionError)
        # SQLAlchemy says so too, of what a migration has closed itself; to the server the connection is still there.
        or ("connection is closed" in str(link).lower() and not _is_sqlalchemys(link, "ResourceClosedError"))
        # asyncpg's word for a connection that the server has told the end of, and whose socket is still open.
        or (type(link).__name__ == "InternalClientError" and "cannot switch to state" in str(link))
        for link in _chain(error)
    )
