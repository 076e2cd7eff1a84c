"""Whether a column's new type may not hold what its old one did, read from the source of both. Pure."""

from __future__ import annotations

import ast
import re

#: Bytes of whole numbers, by the name of SQLAlchemy's type.
_INTEGERS = {
    **dict.fromkeys(("SmallInteger", "SMALLINT"), 2),
    **dict.fromkeys(("Integer", "INTEGER", "INT"), 4),
    **dict.fromkeys(("BigInteger", "BIGINT"), 8),
}
#: Texts; without a length, they hold any.
_TEXTS = frozenset({"String", "VARCHAR", "Unicode", "NVARCHAR", "Text", "TEXT", "UnicodeText", "CHAR", "NCHAR"})
#: Of those, what holds one character where no length is said.
_ONE = frozenset({"CHAR", "NCHAR"})
#: Exact numbers; without precision and scale, they hold any.
_NUMBERS = frozenset({"Numeric", "NUMERIC", "DECIMAL"})
#: Binary fractions; they hold any number, though not to the last digit.
_FRACTIONS = frozenset({"Float", "FLOAT", "Double", "DOUBLE", "DOUBLE_PRECISION", "REAL"})
#: Moments: what holds day and time, and with a zone which moment that is.
_MOMENTS = frozenset({"DateTime", "DATETIME", "TIMESTAMP"})
#: Decimal digits of the largest whole number of so many bytes.
_DIGITS = {2: 5, 4: 10, 8: 19}


def narrows(old: ast.expr | None, new: ast.expr) -> bool:
    """Whether values may be lost between two types as a revision writes them; ``True`` where that cannot be told.

    Args:
        old: what ``existing_type`` says; ``None`` where it is not said.
        new: what ``type_`` says.
    """
    is_, has = _read(new)
    if is_ in _TEXTS and has.get("length") is None:
        # Whatever there was has a text, and all of it is kept.
        return False
    if old is None:
        return True
    if ast.dump(old) == ast.dump(new):
        return False
    was, had = _read(old)
    if was in _TEXTS and is_ in _TEXTS:
        return _less(has.get("length"), had.get("length"))
    if was in _INTEGERS and is_ in _INTEGERS:
        return _INTEGERS[is_] < _INTEGERS[was]
    if was in _INTEGERS and is_ in _NUMBERS:
        return _less(_whole_digits(has), _DIGITS[_INTEGERS[was]])
    if was in _NUMBERS and is_ in _NUMBERS:
        return _less(_whole_digits(has), _whole_digits(had)) or _less(_scale(has), _scale(had))
    if was in _MOMENTS and is_ in _MOMENTS:
        return bool(had.get("timezone")) and not has.get("timezone")
    if was in _INTEGERS | dict.fromkeys(_NUMBERS | _FRACTIONS) and is_ in _TEXTS:
        return has.get("length") is not None
    if was == "JSON" and is_ == "JSONB":
        return False
    return not (was == "Date" and is_ in _MOMENTS)


def shown(type_: ast.expr) -> str:
    """A type as people write it: without the module in front of it."""
    return re.sub(r"\b\w+\.(?=\w)", "", ast.unparse(type_))


def _read(type_: ast.expr) -> tuple[str, dict[str, int]]:
    """Name and parameters of a type; a parameter that is no number in the source is ``0``: nothing fits into it."""
    call = type_ if isinstance(type_, ast.Call) else None
    named = call.func if call is not None else type_
    name = named.attr if isinstance(named, ast.Attribute) else named.id if isinstance(named, ast.Name) else ""
    least = {"length": 1} if name in _ONE else {}
    if call is None:
        return name, least
    order = ["precision", "scale"] if name in _NUMBERS else ["timezone"] if name in _MOMENTS else ["length"]
    given = [*zip(order, call.args, strict=False), *((word.arg or "", word.value) for word in call.keywords)]
    return name, {**least, **{word: _number(value) for word, value in given if not _is_none(value)}}


def _number(value: ast.expr) -> int:
    return int(value.value) if isinstance(value, ast.Constant) and isinstance(value.value, int) else 0


def _is_none(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is None


def _whole_digits(parameters: dict[str, int]) -> int | None:
    return None if "precision" not in parameters else parameters["precision"] - parameters.get("scale", 0)


def _scale(parameters: dict[str, int]) -> int | None:
    return None if "precision" not in parameters else parameters.get("scale", 0)


def _less(new: int | None, old: int | None) -> bool:
    """Whether a bound is tighter than another; ``None`` is no bound."""
    return new is not None and (old is None or new < old)
