"""Bound values as SQL text: a script is one message, and the simple query protocol binds none.

A statement with values is sent as PREPARE and EXECUTE, so that its own text stays as SQLAlchemy wrote it and its values
are read by the type that each placeholder is cast to, as they are when bound. Only pairs of a type and a Python value
are written for which the text means exactly what asyncpg would have sent; anything else is not replayed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import MAXYEAR, MINYEAR, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from orchestrator.databases.postgresql.script import literal

#: Name of the statement that a script prepares, runs and forgets.
_NAME = "orchestrator_statement"
#: A placeholder with its cast, as SQLAlchemy's asyncpg dialect writes them. The length or precision is applied by the
#: server, after the value was read; but FLOAT's chooses between two types.
_PLACEHOLDER = re.compile(
    r"\$(\d+)(?:::(DOUBLE PRECISION|TIME(?:STAMP)? WITH(?:OUT)? TIME ZONE|FLOAT\(\d+\)|\w+)(?:\([\d, ]*\))?(\[\])?)?"
)
#: What can be prepared at all (https://www.postgresql.org/docs/current/sql-prepare.html).
_PREPARABLE = re.compile(r"\s*(?:SELECT|INSERT|UPDATE|DELETE|MERGE|VALUES|WITH)\b", re.IGNORECASE)


class NotWritable(Exception):
    """A bound value has no text that surely means the same; the message is for the operator."""


def as_sql(statement: str, parameters: Sequence[Any]) -> str:
    """``statement`` with its values, as text that can stand in a script.

    Args:
        statement: as SQLAlchemy's asyncpg dialect gives it to the driver, with ``$1::TYPE`` placeholders.
        parameters: the values, in the placeholders' order.

    Raises:
        NotWritable: a value has no text that surely means the same.
    """
    if not parameters:
        return statement
    if not _PREPARABLE.match(statement):
        raise NotWritable("binds values in a statement that cannot be prepared")
    types: dict[int, str | None] = {}
    for number, cast, array in _PLACEHOLDER.findall(statement):
        if types.setdefault(int(number), None if array else cast) != cast:
            raise NotWritable(f"binds a value whose type is not told: ${number}")
    if sorted(types) != list(range(1, len(parameters) + 1)):
        raise NotWritable("binds values in a way that cannot be followed")
    written = ", ".join(_written(types[number], value) for number, value in enumerate(parameters, start=1))
    # A comment at the end of a statement would swallow what separates it from the next.
    return f"PREPARE {_NAME} AS {statement}\n;\nEXECUTE {_NAME}({written});\nDEALLOCATE {_NAME}"


def _written(cast: str | None, value: Any) -> str:
    write = _WRITERS.get((cast or "", type(value)))
    text = "NULL" if value is None and cast else write(value) if write else None
    if text is None:
        raise NotWritable(f"binds a {type(value).__name__} as {cast or 'a type that is not told'}")
    return text


def _text(value: str) -> str | None:
    return None if "\0" in value else literal(value)


def _float(value: float) -> str | None:
    # The shortest text that reads back as the same number; infinities have words of their own in PostgreSQL.
    return literal(repr(value)) if math.isfinite(value) else None


def _decimal(value: Decimal) -> str | None:
    return literal(str(value)) if value.is_finite() else None


def _day(value: date) -> str | None:
    # asyncpg takes the first and the last that Python knows for PostgreSQL's infinities; so below.
    return literal(str(value)) if value not in {date.min, date.max} else None


def _naive(value: datetime) -> str | None:
    finite = value.tzinfo is None and value not in {datetime.min, datetime.max}
    return literal(value.isoformat(" ")) if finite else None


def _aware(value: datetime) -> str | None:
    # asyncpg takes a naive one for the machine's local time, the server for the session's.
    finite = value.utcoffset() is not None and value.year not in {MINYEAR, MAXYEAR}
    return literal(value.isoformat(" ")) if finite else None


def _quoted(value: Any) -> str:
    return literal(str(value))


_WRITERS: Mapping[tuple[str, type], Callable[[Any], str | None]] = {
    **{(cast, str): _text for cast in ("VARCHAR", "TEXT", "JSON", "JSONB")},
    **{(cast, int): _quoted for cast in ("SMALLINT", "INTEGER", "BIGINT")},
    **{(cast, Decimal): _decimal for cast in ("NUMERIC", "DECIMAL")},
    **{(cast, float): _float for cast in ("FLOAT", "DOUBLE PRECISION")},
    ("BOOLEAN", bool): lambda value: "true" if value else "false",
    ("DATE", date): _day,
    ("TIME WITHOUT TIME ZONE", time): lambda value: literal(value.isoformat()) if value.tzinfo is None else None,
    ("TIMESTAMP WITHOUT TIME ZONE", datetime): _naive,
    ("TIMESTAMP WITH TIME ZONE", datetime): _aware,
    ("UUID", UUID): _quoted,
    ("BYTEA", bytes): lambda value: f"decode('{value.hex()}', 'hex')",
}
