"""What a wave may say beside whom it takes: the order in it, and what stands between it and the next one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from orchestrator.fleet.sources import PythonSource


class Order(StrEnum):
    """In what order a wave's tenants start."""

    #: Those that took long in an earlier run first: begun last, one alone would hold up the end.
    LONGEST = "longest"
    #: By id.
    NAME = "name"
    #: As tenants.yaml and its sources list them.
    LISTED = "listed"


class Approval(StrEnum):
    """Who lets the next wave begin."""

    #: Somebody, by ``orchestrator resume RUN --approve``.
    MANUAL = "manual"


class OnFailure(StrEnum):
    """What follows a wave that used up its failure budget, or that a check has turned down."""

    #: The run ends.
    STOP = "stop"
    #: The next wave begins all the same.
    CONTINUE = "continue"
    #: The run ends, and what it has changed in the wave goes back.
    ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True)
class Check:
    """What has to be true once a wave is through. One of the three."""

    #: A query for every tenant of the wave, in its scope, whose one value must be true.
    sql: str | None = None
    #: A shell command, once for the wave; it must exit with 0. It gets the wave as JSON on stdin.
    command: str | None = None
    #: A function, once for the wave; it must return true. It gets the wave as a dictionary.
    python: PythonSource | None = None

    def __str__(self) -> str:
        return self.sql or self.command or (self.python.callable if self.python else "")
