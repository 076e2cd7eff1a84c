"""Records on their way into the database, as JSON. Nothing here fails: one odd value must not hold up a batch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from orchestrator.fleet.secrets import mask


def moment(value: datetime | None) -> str | None:
    """``value`` in UTC, in the form that both databases read."""
    # Not left to json's `default`: calling back for every moment takes five times as long.
    return None if value is None else value.astimezone(UTC).isoformat(" ", "microseconds")


def masked(value: Any) -> Any:
    """``value`` with the secrets in all its texts masked, however deep they lie."""
    if value is None:
        return None
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Mapping):
        return {str(key): masked(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [masked(item) for item in value]
    return value


def to_json(rows: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> str:
    """``rows`` as JSON that every database takes. What JSON has no form for is written as its text."""
    try:
        document = _dump(rows)
        document.encode()
    except ValueError:  # NaN, or half of a surrogate pair
        return _dump(_fit(rows))
    # PostgreSQL refuses NUL in text. The escape may also be an innocent backslash: then this only costs time.
    return _dump(_fit(rows)) if "\\u0000" in document else document


def _dump(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _fit(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode().replace("\0", "")
    if isinstance(value, Mapping):
        return {_fit(str(key)): _fit(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_fit(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, int | float | None) else _fit(str(value))
