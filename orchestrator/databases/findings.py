"""What a look at a server's preconditions found, as values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """How much a finding matters."""

    #: As it should be.
    OK = "ok"
    #: Worth knowing; a run works.
    NOTE = "note"
    #: A run would fail, or hold somebody up.
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    #: What was looked at, in a word: ``connection``, ``version``, ``rights``, ``locks``, ...
    check: str
    #: What was found.
    message: str
    #: What to do about it; ``None`` where there is nothing to do.
    hint: str | None = None
    #: Name of the server; ``None`` for what concerns the fleet as a whole.
    server: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain data, as docs/cli.md describes it."""
        return {**asdict(self), "level": self.level.value}
