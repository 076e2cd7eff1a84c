"""Values in SQL that is rendered without a database: as text that means on the server what the bound value would.

Alembic writes them with ``literal_binds``, by SQLAlchemy's literal processors. Those are for looking at: without a
connection they double backslashes, write bytes as text, days as hours, arrays without their type, and JSON not at all
(seen in SQLAlchemy 2.0.36 to 2.1). What still has no text is an error, never a placeholder that nobody will fill.
"""

from __future__ import annotations

import json
import math
from datetime import timedelta
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import INTERVAL
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import CompileError
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeDecorator, TypeEngine

_POSTGRESQL = "postgresql"


def write_literals(dialect: Dialect) -> None:
    """Have a dialect without a connection write values as the server reads them.

    Args:
        dialect: of one migration context alone.
    """
    base: Any = dialect.statement_compiler
    if dialect.name == _POSTGRESQL:
        # It would ask the server for standard_conforming_strings, which has been on since PostgreSQL 9.1.
        dialect._backslash_escapes = False  # type: ignore[attr-defined]

    class Compiler(base):  # type: ignore[misc]
        """The dialect's own, with values that mean the same."""

        def render_literal_value(self, value: Any, type_: TypeEngine[Any]) -> str:
            """One value, as SQL."""
            text = _own(self, value, type_)
            if text is not None:
                return text
            if type_._isnull:
                # A column that says no type: the value has one.
                type_ = sa.literal(value).type
            rendered: str = super().render_literal_value(value, type_)
            if isinstance(value, list | tuple) and isinstance(type_, sa.ARRAY):
                return f"CAST({rendered} AS {self.dialect.type_compiler_instance.process(type_)})"
            return rendered

    dialect.statement_compiler = Compiler


def _own(compiler: SQLCompiler, value: Any, type_: TypeEngine[Any]) -> str | None:
    """The text of a value that SQLAlchemy would write otherwise, or not at all; ``None`` where it writes it well.

    Raises:
        CompileError: there is no text for it.
    """
    dialect = compiler.dialect
    if isinstance(value, timedelta) and isinstance(type_.dialect_impl(dialect), INTERVAL):
        # Days are not hours to PostgreSQL, and are bound as days.
        return f"'{value.days} days {value.seconds}.{value.microseconds:06} seconds'::interval"
    if isinstance(type_, TypeDecorator):
        if isinstance(type_.impl_instance, sa.LargeBinary):
            raise CompileError(f"a value of {type_!r} has no text")
        return None
    if value is not None and isinstance(type_, sa.JSON):
        return _quoted(compiler, (getattr(dialect, "_json_serializer", None) or json.dumps)(value))
    match value:
        case str():
            if "\0" in value:
                raise CompileError("a text with a zero byte has no place in SQL")
            unwritten = type_.dialect_impl(dialect).literal_processor(dialect) is None
            return _quoted(compiler, value) if unwritten else None
        case bytes():
            return f"'\\x{value.hex()}'::bytea" if dialect.name == _POSTGRESQL else f"X'{value.hex()}'"
        case float() | Decimal() if not math.isfinite(value):
            if dialect.name != _POSTGRESQL:
                raise CompileError(f"{value} has no text")
            return f"'{value}'"
    return None


def _quoted(compiler: SQLCompiler, text: str) -> str:
    """A string whose type follows from where it stands."""
    return compiler.render_literal_value(text, sa.String())
