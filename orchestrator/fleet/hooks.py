"""Hooks: what is called before and after a run, a wave, a tenant. Only declared here, never called."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from orchestrator.fleet.secrets import Template
from orchestrator.fleet.sources import PythonSource


class Moment(StrEnum):
    """When a hook is called. What is called before may say no; what is called after cannot."""

    BEFORE_RUN = "before_run"
    AFTER_RUN = "after_run"
    BEFORE_WAVE = "before_wave"
    AFTER_WAVE = "after_wave"
    BEFORE_TENANT = "before_tenant"
    AFTER_TENANT = "after_tenant"


@dataclass(frozen=True, slots=True)
class Hook:
    """One thing to call. One of the three."""

    #: A shell command. It gets the document as JSON on stdin, and says no by another exit code than 0.
    command: str | None = None
    #: A function. It gets the document as a dictionary, and says no by raising.
    python: PythonSource | None = None
    #: An address that the document is posted to as JSON. It says no by an answer outside 200 to 299.
    webhook: Template | None = None

    def __str__(self) -> str:
        return self.command or (self.python.callable if self.python else str(self.webhook))
