"""What a look at a server's preconditions found, as values; the adapters' ``checkup_*`` modules do the looking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from orchestrator.fleet.tenant import Limits, Tenant


class Level(StrEnum):
    """How much a finding matters."""

    #: As it should be.
    OK = "ok"
    #: Worth knowing; a run comes through.
    NOTE = "note"
    #: A run, or some tenants of it, would not come through.
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    #: What was looked at: ``reachable``, ``rights``, ``locks``, ...
    check: str
    level: Level
    #: What was found, one line.
    message: str
    #: What to type or change; ``None`` where nothing is to be done.
    hint: str | None = None
    #: Whom it concerns, where that is not everyone on the server.
    tenants: tuple[str, ...] = ()
    #: The numbers and names behind the message.
    measured: Mapping[str, Any] = field(default_factory=dict)
    #: Server in the fleet; ``None`` for what belongs to none.
    server: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The fields of ``doctor --json`` (see docs/cli.md)."""
        return {
            "check": self.check,
            "server": self.server,
            "level": self.level.value,
            "message": self.message,
            "hint": self.hint,
            "tenants": list(self.tenants),
            "measured": dict(self.measured),
        }


@dataclass(frozen=True, slots=True)
class Need:
    """What a run would ask of one server."""

    #: Those selected.
    tenants: Sequence[Tenant]
    #: Ids of those that a run would migrate.
    pending: frozenset[str]
    #: Timeouts that the run sets.
    limits: Limits
    #: Name of the version table.
    version_table: str


#: Names that a message shows; the rest are counted.
_SHOWN = 3


def some(names: Sequence[str]) -> str:
    """``a, b, c and 4 more``."""
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
