"""How a run is carried out, and who looks on: what a caller says beside what is to be done. Imports nothing large."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from orchestrator.fleet.fleet import FailureBudget, Wave
from orchestrator.fleet.tenant import Limits
from orchestrator.fleet.wave_lists import waves_from
from orchestrator.journal.records import EXECUTOR, GIVEN_AS
from orchestrator.rollout.stop import Stop
from orchestrator.rollout.watching import Observer, Silent

if TYPE_CHECKING:
    from orchestrator.actions.project import Project
    from orchestrator.journal.journal import Journal
    from orchestrator.journal.records import AttemptRecord, RunRecord
    from orchestrator.rollout.executor import Executor
    from orchestrator.rollout.plan import Plan
    from orchestrator.rollout.planning import Request


#: Tenants at once in one process, unless somebody says otherwise.
AT_ONCE = 32
#: The executor that is not this process.
DBOS = "dbos"


class Workforce(Protocol):
    """Workers on other machines."""

    @property
    def run(self) -> str:
        """The id of the run that they were given."""
        ...

    def executor(
        self,
        project: Project,
        journal: Journal,
        record: RunRecord,
        plan: Plan,
        request: Request,
        execution: Execution,
        budgets: Mapping[str, tuple[str, int]],
        earlier: Mapping[str, AttemptRecord],
    ) -> Executor:
        """What gives them the tenants of a run.

        Args:
            project: opened.
            journal: opened for writing.
            record: the run.
            plan: for the tenants that are still to be done.
            request: what the plan was made from.
            execution: how; that of a part of the run (what takes a wave back) is not the run's.
            budgets: each server's physical identity and how many tenants it takes at once, by name.
            earlier: what the run had done before it was carried on, by tenant id.
        """
        ...


@dataclass(frozen=True, slots=True)
class Execution:
    """How a run is carried out, whatever it does."""

    #: Tenants at once over all servers; ``None`` for the executor's own: :data:`AT_ONCE` here, and as many as the
    #: servers take where workers attempt them.
    jobs: int | None = None
    #: Failures tolerated per wave; ``None`` for what tenants.yaml says (none, without a word).
    max_failures: FailureBudget | None = None
    #: Go on whatever fails.
    continue_on_error: bool = False
    #: Only this wave.
    wave: str | None = None
    #: In place of the waves of tenants.yaml: ``1,10%`` is one tenant, then 10 % of them, then the rest.
    waves: str | None = None
    #: Let the wave begin that waits for approval.
    approve: bool = False
    #: Seconds to wait for a tenant that another process holds.
    lock_wait: float = 10.0
    #: Timeouts of statements, over those of tenants.yaml.
    limits: Limits = field(default_factory=Limits)
    #: Replay on the rest of a cohort what two of its tenants were sent, where that is safe.
    replay: bool = True
    #: Compare the shape of every replayed tenant with that of the recorded ones, not only of a few.
    verify_all: bool = False
    #: Touch tenants that an earlier run left partial, and run again the revision that was cut off.
    retry_partial: bool = False
    #: Revisions that may be other than they were when tenants were migrated with them.
    accept_edited: tuple[str, ...] = ()
    #: Directory for a backup of each tenant, made right before it is migrated; ``None`` for no backups.
    backup: Path | None = None
    #: Who attempts the tenants: ``None`` for this process, :data:`DBOS` for workers.
    executor: str | None = None
    #: Leave the run to the workers, and do not wait for it.
    detach: bool = False
    #: The workers, for the one of them that has the run as a whole.
    workforce: Workforce | None = field(default=None, compare=False, repr=False)

    @property
    def at_once(self) -> int:
        """Tenants at once in this process."""
        return AT_ONCE if self.jobs is None else self.jobs

    @property
    def handed_over(self) -> bool:
        """Others carry the run out."""
        return self.executor is not None and self.workforce is None

    def recorded(self, run: str) -> dict[str, str]:
        """The options of a run that say who carries it out.

        Args:
            run: its id; what workers were given may be another one that it is a part of.
        """
        if self.executor is None:
            return {}
        given = run if self.workforce is None else self.workforce.run
        return {EXECUTOR: self.executor} | ({} if given == run else {GIVEN_AS: given})

    @property
    def budget(self) -> FailureBudget | None:
        """The failure budget that these say."""
        return FailureBudget(count=None) if self.continue_on_error else self.max_failures

    @property
    def listed_waves(self) -> tuple[Wave, ...] | None:
        """The waves that these say, in place of those of tenants.yaml.

        Raises:
            UsageError: they are not such a list.
        """
        return None if self.waves is None else waves_from(self.waves)


@dataclass(frozen=True, slots=True)
class Watch:
    """Who looks on, and who may stop it."""

    observer: Observer = field(default_factory=Silent)
    stop: Stop = field(default_factory=Stop)
