"""Who is told what happens in a run, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from orchestrator.journal.records import AttemptRecord, EventRecord
    from orchestrator.migration.scope import StepDone
    from orchestrator.rollout.plan import Plan


class Recorder(Protocol):
    """Where a run writes down what happens; the journal, in practice. Neither call may block."""

    def record(self, attempt: AttemptRecord) -> None:
        """Note how a tenant stands now."""
        ...

    def record_event(self, event: EventRecord) -> None:
        """Note something that happened on the way."""
        ...


class Observer(Protocol):
    """Whoever watches a run as it goes: a terminal, usually."""

    def started(self, plan: Plan, run: str) -> None:
        """The run begins."""
        ...

    def tenant(self, attempt: AttemptRecord) -> None:
        """A tenant's status has changed."""
        ...

    def step(self, tenant: str, step: StepDone) -> None:
        """A tenant has run a revision."""
        ...


class Silent:
    """An observer that does not look."""

    def started(self, plan: Plan, run: str) -> None:
        """Ignored."""

    def tenant(self, attempt: AttemptRecord) -> None:
        """Ignored."""

    def step(self, tenant: str, step: StepDone) -> None:
        """Ignored."""
