"""Who is told what happens in a run, and how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from orchestrator.journal.records import AttemptRecord, EventRecord, RevisionRecord, RunRecord, StepRecord
    from orchestrator.migration.scope import StepDone
    from orchestrator.rollout.waves import WaveRecord


class Recorder(Protocol):
    """Where a run writes down what happens; the journal, in practice. No ``record`` may block."""

    def record(self, attempt: AttemptRecord) -> None:
        """Note how a tenant stands now."""
        ...

    def record_event(self, event: EventRecord) -> None:
        """Note something that happened on the way."""
        ...

    def record_step(self, step: StepRecord) -> None:
        """Note how far a step outside any transaction has come."""
        ...

    def record_revision(self, revision: RevisionRecord) -> None:
        """Note which file a revision was applied from."""
        ...

    async def flush(self, *, durable: bool = False) -> bool:
        """Wait until all of it is on disk; says whether it is."""
        ...

    async def open_steps(self, tenant: str) -> Sequence[tuple[StepRecord, RunRecord | None]]:
        """Steps outside transactions on a tenant that nobody has seen the end of, each with its run."""
        ...


class Beginning(Protocol):
    """What begins: a plan, or a run that somebody begins to watch while others carry it out."""

    @property
    def command(self) -> str:
        """``upgrade``, for example."""
        ...

    @property
    def requested(self) -> str | None:
        """The target as typed; of a rollback, the run that it takes back."""
        ...

    @property
    def target(self) -> tuple[str, ...]:
        """The revisions that tenants end at."""
        ...

    @property
    def waves(self) -> Sequence[object]:
        """As many as there are."""
        ...

    @property
    def tenants(self) -> Sequence[object]:
        """As many as there are."""
        ...


class Observer(Protocol):
    """Whoever watches a run as it goes: a terminal, usually."""

    def started(self, plan: Beginning, run: str) -> None:
        """The run begins."""
        ...

    def tenant(self, attempt: AttemptRecord) -> None:
        """A tenant's status has changed."""
        ...

    def step(self, tenant: str, step: StepDone) -> None:
        """A tenant has run a revision."""
        ...

    def wave(self, record: WaveRecord) -> None:
        """A wave's tenants are through; how it stands now."""
        ...


class Silent:
    """An observer that does not look."""

    def started(self, plan: Beginning, run: str) -> None:
        """Ignored."""

    def tenant(self, attempt: AttemptRecord) -> None:
        """Ignored."""

    def step(self, tenant: str, step: StepDone) -> None:
        """Ignored."""

    def wave(self, record: WaveRecord) -> None:
        """Ignored."""
