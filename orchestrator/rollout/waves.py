"""How a run's waves stand: what was journaled of each, and what is told of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from orchestrator.journal.records import EventRecord

#: What such an event is called in the journal.
EVENT = "wave"


class WaveState(StrEnum):
    """How far a wave has come whose tenants are through."""

    #: Its tenants are through; the next wave begins when the time is up.
    BAKING = "baking"
    #: The next wave begins when somebody approves.
    WAITING = "waiting"
    #: The next wave may begin.
    DONE = "done"
    #: It used up its failure budget, or a check turned it down.
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class WaveRecord:
    """One wave of a run, as it stands."""

    name: str
    state: WaveState
    #: When the bake ends, or ended.
    until: datetime | None = None
    #: Why it failed, in a line.
    reason: str | None = None
    #: Tenants that a check turned down, with what it said.
    refused: Mapping[str, str] | None = None
    #: The run that has taken it back.
    rolled_back: str | None = None

    def __str__(self) -> str:
        match self.state:
            case WaveState.BAKING:
                assert self.until is not None
                return f"wave {self.name}: through; it bakes until {self.until:%Y-%m-%d %H:%M:%S} UTC"
            case WaveState.WAITING:
                return f"wave {self.name}: through; the next one waits for approval"
            case WaveState.FAILED:
                back = f"; taken back by run {self.rolled_back}" if self.rolled_back is not None else ""
                return f"wave {self.name}: {self.reason}{back}"
            case WaveState.DONE:
                return f"wave {self.name}: done"

    def event(self, run: str) -> EventRecord:
        """What is written down."""
        detail = {
            "wave": self.name,
            "state": self.state.value,
            "until": None if self.until is None else self.until.isoformat(),
            "reason": self.reason,
            "refused": None if self.refused is None else dict(self.refused),
            "rolled_back": self.rolled_back,
        }
        return EventRecord(run, None, datetime.now(UTC), EVENT, detail=detail)

    def as_json(self) -> dict[str, Any]:
        """A wave in a run's document."""
        return {
            "name": self.name,
            "state": self.state.value,
            "until": None if self.until is None else self.until.isoformat(),
            "reason": self.reason,
            "refused": [{"tenant": tenant, "reason": why} for tenant, why in (self.refused or {}).items()],
            "rolled_back": self.rolled_back,
        }


def with_rollbacks(run: str, waves: Iterable[WaveRecord]) -> list[str]:
    """Ids of a run and of those that have taken its waves back."""
    return [run, *(wave.rolled_back for wave in waves if wave.rolled_back is not None)]


def waves_of(events: Iterable[EventRecord]) -> dict[str, WaveRecord]:
    """The last thing that a run's events say of each wave, by name, in the order in which they began.

    Args:
        events: of one run, in the order in which they happened; those of other kinds are passed over.
    """
    found: dict[str, WaveRecord] = {}
    for event in events:
        if event.kind == EVENT and event.detail is not None:
            until = event.detail.get("until")
            record = WaveRecord(
                name=str(event.detail["wave"]),
                state=WaveState(event.detail["state"]),
                until=None if until is None else datetime.fromisoformat(until),
                reason=event.detail.get("reason"),
                refused=event.detail.get("refused"),
                rolled_back=event.detail.get("rolled_back"),
            )
            found[record.name] = record
    return found
