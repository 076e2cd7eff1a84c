"""Kinds of value in tenants.yaml: names, durations, percentages, lists. Each refuses with a message of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

#: Longest name PostgreSQL keeps, in bytes of UTF-8; it cuts longer ones without an error (NAMEDATALEN - 1).
LONGEST_NAME = 63
#: PostgreSQL counts timeouts in milliseconds in a signed 32-bit number.
_LONGEST_TIMEOUT = 2_147_483.0

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(ms|s|m|h)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?%")
_CALLABLE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def wrong(message: str, hint: str | None = None) -> PydanticCustomError:
    """An error that is shown as it is: ``message`` in the user's words, ``hint`` with what to write."""
    return PydanticCustomError("wrong", "{message}", {"message": message, "hint": hint})


def not_text(value: Any) -> PydanticCustomError:
    """An error for a value that must be text; whoever shows it knows what was written and can say "quote it"."""
    return PydanticCustomError("not_text", "must be text", {"value": value})


def _name(value: Any) -> str:
    if type(value) is not str:
        if isinstance(value, str):  # a StrEnum or such from a Python source
            return _name(str(value))
        raise not_text(value)
    if not value:
        raise wrong("a name must not be empty")
    if not value.isprintable():
        bad = next(char for char in value if not char.isprintable())
        raise wrong(f"a name must not have control or invisible characters (here U+{ord(bad):04X})")
    if value[0] == " " or value[-1] == " ":
        raise wrong(f"{value!r} starts or ends with a space")
    return value


def database_name(value: Any) -> str:
    """``value`` if PostgreSQL can have a database of that name.

    Raises:
        PydanticCustomError: it cannot.
    """
    name = _name(value)
    size = len(name.encode())
    if size > LONGEST_NAME:
        raise wrong(
            f"`{name}` has {size} bytes; PostgreSQL keeps {LONGEST_NAME}, and names alike in those become one",
            f"give a name of at most {LONGEST_NAME} bytes",
        )
    return name


def schema_name(value: Any) -> str:
    """``value`` if a tenant's schema can have that name.

    Raises:
        PydanticCustomError: it cannot.
    """
    name = database_name(value)
    if name.startswith("pg_") or name == "information_schema":
        raise wrong(f"`{name}` is one of PostgreSQL's own schemas", "give the tenant a schema with another name")
    return name


def _not_null(value: Any) -> Any:
    if value is None:
        raise not_text(value)
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise not_text(value)
    if not value.strip():
        raise wrong("must not be empty")
    if "\0" in value:
        raise wrong("must not have a NUL character")
    return value


def _split(value: Any) -> Any:
    if isinstance(value, str):
        return [part for part in (part.strip() for part in value.split(",")) if part]
    if value is None:
        return ()
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, bytes):
        return sorted(value, key=str) if isinstance(value, set | frozenset) else value
    raise wrong("must be a list of names", "write [one, two]")


def _seconds(value: Any) -> float:
    hint = "write 100ms, 2s, 10m, 1h or a number of seconds"
    if isinstance(value, str) and (found := _DURATION.fullmatch(value.strip())):
        seconds = float(found[1]) * _UNITS[found[2]]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    else:
        raise wrong(f"`{value}` is not a length of time", hint)
    if not (seconds == 0 or 0.001 <= seconds <= _LONGEST_TIMEOUT):  # also refuses nan
        raise wrong(f"`{value}` is out of range: from 1ms to 24 days, or 0 for no limit", hint)
    return seconds


def _percentage(value: Any) -> float | None:
    """The number of a text like ``10%``; ``None`` for anything else."""
    found = _PERCENT.fullmatch(value.strip()) if isinstance(value, str) else None
    return float(found[1]) if found else None


def _percent(value: Any) -> float:
    share = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else _percentage(value)
    if share is None or not 0 < share <= 100:
        raise wrong(f"`{value}` is not a percentage over 0 and up to 100", "write 10 or 10%")
    return share


def _budget(value: Any) -> tuple[int | None, float | None]:
    share = _percentage(value)
    if share is not None and share <= 100:
        return None, share
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value, None
    raise wrong(f"`{value}` is neither a number of tenants nor a percentage", "write 0, 5 or 10%")


def _day(value: Any) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    try:
        return date.fromisoformat(value) if isinstance(value, str) and len(value) == 10 else _no_day(value)
    except ValueError:
        return _no_day(value)


def _no_day(value: Any) -> date:
    raise wrong(f"`{value}` is not a date", "write it as 2027-01-31")


def _reference(value: Any) -> str:
    text = _text(value)
    if not _CALLABLE.fullmatch(text):
        hint = "write module:function, for example myapp.tenants:all_tenants"
        raise wrong(f"`{text}` does not name a Python callable", hint)
    return text


def _target(value: Any) -> str:
    name = _name(value)
    if " " in name:
        raise wrong(f"`{name}` is not a target", "write heads, a revision, or a branch like tenant@head")
    return name


_DURATION_TEXT = {"type": "string", "pattern": "^[0-9.]+ ?(ms|s|m|h)$"}
_DURATION_SCHEMA = {"anyOf": [_DURATION_TEXT, {"type": "number", "minimum": 0}]}
_PERCENT_TEXT = {"type": "string", "pattern": "^[0-9.]+ ?%$"}
_NAME_SCHEMA = {"type": "string", "minLength": 1}
_DATABASE_NAME_SCHEMA = {**_NAME_SCHEMA, "maxLength": LONGEST_NAME}

_T = TypeVar("_T")
#: A key that may be left out, but must not stand there without a value: ``schema: null`` is nobody's wish.
Given = Annotated[_T | None, BeforeValidator(_not_null)]
#: An id, a tag, a server, a pattern.
Name = Annotated[str, PlainValidator(_name), WithJsonSchema(_NAME_SCHEMA)]
#: A database on a server.
DatabaseName = Annotated[str, PlainValidator(database_name), WithJsonSchema(_DATABASE_NAME_SCHEMA)]
#: A schema of a database.
SchemaName = Annotated[str, PlainValidator(schema_name), WithJsonSchema(_DATABASE_NAME_SCHEMA)]
#: Any text that is not empty: an address, a query, a file.
Text = Annotated[str, PlainValidator(_text), WithJsonSchema(_NAME_SCHEMA)]
#: Names as a list or as one comma separated text.
Names = Annotated[
    tuple[Name, ...],
    BeforeValidator(_split),
    WithJsonSchema({"anyOf": [{"type": "array", "items": _NAME_SCHEMA}, {"type": "string"}, {"type": "null"}]}),
]
#: Seconds.
Duration = Annotated[float, PlainValidator(_seconds), WithJsonSchema(_DURATION_SCHEMA)]
#: Over 0 and up to 100.
Percent = Annotated[
    float,
    PlainValidator(_percent),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0, "maximum": 100}, _PERCENT_TEXT]}),
]
#: A number of tenants, or a percentage of them.
Budget = Annotated[
    tuple[int | None, float | None],
    PlainValidator(_budget),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, _PERCENT_TEXT]}),
]
Day = Annotated[date, PlainValidator(_day), WithJsonSchema({"type": "string", "format": "date"})]
#: ``module:function``
Reference = Annotated[str, PlainValidator(_reference), WithJsonSchema({"type": "string", "pattern": "^[^:]+:[^:]+$"})]
Target = Annotated[str, PlainValidator(_target), WithJsonSchema(_NAME_SCHEMA)]
