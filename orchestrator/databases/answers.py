"""What adapters answer and are asked with, as values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.databases.failures import Failure


@dataclass(frozen=True, slots=True)
class Reading:
    """What one look at a tenant found."""

    #: Its schema, database or file is there.
    exists: bool
    #: What its version table says, sorted; empty without a table or a row.
    heads: tuple[str, ...] = ()
    #: Why it could not be read; ``None`` when it could.
    failure: Failure | None = None

    @property
    def found(self) -> bool:
        """It is there, and could be read."""
        return self.exists and self.failure is None


@dataclass(frozen=True, slots=True)
class Check:
    """What a transaction has to bring about, looked at from inside."""

    #: Reading query.
    sql: str
    #: Raises where its rows are not as they are to be: the transaction is then rolled back.
    accept: Callable[[Sequence[Mapping[str, Any]]], None]


async def certainly() -> bool:
    """Yes."""
    return True


def never() -> bool:
    """No."""
    return False
