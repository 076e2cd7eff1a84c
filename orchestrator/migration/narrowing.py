"""Which values of a PostgreSQL column would not go into another type."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

#: Smallest and largest of the whole numbers, the narrowest first.
_RANGES = tuple((-(2**bits), 2**bits - 1) for bits in (15, 31, 63))


def unfit(column: str, old: Any, new: Any) -> str | None:
    """The condition for values that ``new`` does not hold; empty where it holds all, ``None`` where nobody knows."""
    if isinstance(new, sa.Enum):
        return None
    if isinstance(new, sa.String):
        wide = isinstance(old, sa.String) and old.length is not None and new.length is not None
        if new.length is None or (wide and old.length <= new.length):
            return ""
        # Spaces at the end beyond the length are cut off, and are no error.
        return f"length(rtrim({column}::text, ' ')) > {new.length}"
    size = _size(new)
    if size is not None:
        held = _size(old)
        least, most = _RANGES[size]
        return "" if held is not None and held <= size else f"{column} NOT BETWEEN {least} AND {most}"
    if isinstance(new, sa.Numeric) and not isinstance(new, sa.Float):
        if new.precision is None:
            return ""
        scale = new.scale or 0
        return f"abs(round({column}::numeric, {scale})) >= 1e{new.precision - scale}::numeric"
    return "" if old is not None and type(old) is type(new) else None


def _size(kind: Any) -> int | None:
    """Which of the whole numbers it is; ``None`` where it is none."""
    if isinstance(kind, sa.BigInteger):
        return 2
    if isinstance(kind, sa.SmallInteger):
        return 0
    return 1 if isinstance(kind, sa.Integer) else None
