"""What went wrong with the journal's database, in words an operator can act on."""

from __future__ import annotations

import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from orchestrator.errors import JournalError
from orchestrator.fleet.secrets import mask

#: What to do where the place itself is the trouble.
ELSEWHERE = "name another place for it in tenants.yaml, such as `journal: postgresql://...`"

#: By SQLite's result code (https://www.sqlite.org/rescode.html): what is wrong and what to do, where that is not just
#: to put the file away.
_SQLITE: dict[str, tuple[str, str | None]] = {
    "SQLITE_NOTADB": ("is not a SQLite database", None),
    "SQLITE_CORRUPT": ("is damaged", None),
    "SQLITE_FULL": ("cannot grow: the disk is full", "free some space there, or " + ELSEWHERE),
    "SQLITE_READONLY": ("may not be written", "make the file and its directory writable, or " + ELSEWHERE),
    "SQLITE_CANTOPEN": ("cannot be opened", "check that its directory exists and can be written, or " + ELSEWHERE),
    "SQLITE_IOERR": ("cannot be read or written (input/output error)", "check the disk, or " + ELSEWHERE),
    "SQLITE_BUSY": ("is locked by another process", "see who holds it (`fuser` on the file) and end that process"),
}

#: By the first characters of PostgreSQL's error code (its manual, Appendix A): what to do.
_POSTGRESQL = {
    "28": "check user and password in tenants.yaml (`journal:`)",
    "3D000": "create that database, or correct the name in tenants.yaml (`journal:`)",
    "3F000": "grant its user CREATE on a schema of its search path",
    "42501": "grant its user CREATE on a schema of its search path, and all rights on the tables orchestrator_*",
    "53100": "free some space on that server",
    "53300": "raise max_connections there, or close connections: the journal needs one",
}


def is_database_fault(error: BaseException) -> bool:
    """Whether ``error`` comes from the journal's database or the way to it, and not from a mistake of ours."""
    # asyncpg's errors arrive unwrapped where a connection cannot be made; it is not imported for SQLite's sake.
    return isinstance(error, SQLAlchemyError | OSError | sqlite3.Error) or type(error).__module__.startswith("asyncpg")


@contextmanager
def explained(place: str) -> Iterator[None]:
    """Raise what the journal's database raises inside as :class:`JournalError`; mistakes of ours pass as they are."""
    try:
        yield
    except Exception as error:
        if not is_database_fault(error):
            raise
        raise explain(error, place) from error


def explain(error: BaseException, place: str) -> JournalError:
    """The error to show for ``error``.

    Args:
        error: what the driver or the system raised.
        place: the journal's address for messages.
    """
    origin = _origin(error)
    known = _SQLITE.get(_sqlite_name(origin))
    if known is not None:
        what, hint = known
        return JournalError(f"the journal {place} {what}", hint=hint or put_away(place))
    code = str(getattr(origin, "sqlstate", None) or "")
    hints = (hint for start, hint in _POSTGRESQL.items() if code.startswith(start))
    return JournalError(
        mask(f"the journal {place} cannot be used: {_first_line(origin)}"),
        hint=next(hints, "check that address, or " + ELSEWHERE),
    )


def put_away(place: str) -> str:
    """What to do with a file that is of no use any more."""
    return (
        f"move the file away (`mv {shlex.quote(place)} {shlex.quote(place + '.broken')}`) and start again: "
        "the databases decide what is done, nothing is lost but the explanations of earlier runs"
    )


def _origin(error: BaseException) -> BaseException:
    """The driver's own error inside SQLAlchemy's, which would show the statement and its values."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        # SQLAlchemy's asyncpg adapter wraps once more and keeps asyncpg's error as the cause.
        return error.orig if isinstance(error.orig, sqlite3.Error) else error.orig.__cause__ or error.orig
    return error


def _sqlite_name(error: BaseException) -> str:
    """SQLite's primary result code: SQLITE_READONLY also for its extension SQLITE_READONLY_DIRECTORY."""
    name = getattr(error, "sqlite_errorname", None) or ""
    return "_".join(name.split("_")[:2])


def _first_line(error: BaseException) -> str:
    """The error's message without the lines that PostgreSQL adds, which can hold values."""
    lines = str(error).splitlines()
    if not lines:
        return "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
    return lines[0]
