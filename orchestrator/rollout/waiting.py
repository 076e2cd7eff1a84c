"""What a run that was given to workers waits for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Waiting:
    """Nobody is at it: no worker has begun it, or the one that had is gone."""

    #: The run that goes before; ``None`` where it is the next one, and waits for a worker.
    behind: str | None = None
    #: The wave of that run which bakes.
    wave: str | None = None
    #: When that ends.
    until: datetime | None = None

    def __str__(self) -> str:
        if self.behind is None:
            return "waits for a worker"
        if self.until is None:
            return f"waits behind run {self.behind}"
        return f"waits behind run {self.behind}, whose wave {self.wave} bakes until {self.until:%Y-%m-%d %H:%M:%S} UTC"

    def way_on(self, run: str) -> str:
        """What to do where it waits for a worker.

        Args:
            run: the id of what workers were given.
        """
        return (
            "start one, with the files and the version of this package that the run is of: orchestrator worker; "
            f"or take it from the workers: orchestrator runs pause {run}, then: orchestrator resume {run}"
        )

    def as_json(self) -> dict[str, Any]:
        """In a run's document."""
        return {
            "behind": self.behind,
            "wave": self.wave,
            "until": None if self.until is None else self.until.isoformat(),
        }
