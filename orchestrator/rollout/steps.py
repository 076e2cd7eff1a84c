"""Steps outside transactions in the journal: on disk before they are taken, and closed only when they are through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from orchestrator.databases.failures import Failure
from orchestrator.errors import DatabaseError, JournalError
from orchestrator.journal.encoding import masked
from orchestrator.journal.records import StepRecord
from orchestrator.migration.outcome import Outcome
from orchestrator.migration.outside import Keep, Outside, ways_on, what_stayed
from orchestrator.rollout.watching import Recorder
from orchestrator.statuses import TenantStatus


class LeftPartial(DatabaseError):
    """An earlier run was cut off in the very step that was about to be taken."""


@dataclass(slots=True)
class Steps:
    """The steps of one run."""

    run: str
    recorder: Recorder
    #: Take steps again that were cut off.
    retry: bool = False
    #: What is not through, by tenant.
    _open: dict[str, StepRecord] = field(default_factory=dict)

    def keeper(self, tenant: str) -> Keep:
        """What writes down the steps of one attempt on ``tenant``, whose lock is held meanwhile.

        What it raises before the first statement of a revision keeps that from being sent: the journal cannot be
        written, or says that the revision was cut off in its middle before.
        """

        async def keep(outside: Outside) -> None:
            known = self._open.get(tenant)
            begins = known is None or known.revision != outside.revision
            if begins and not self.retry:
                await self._refuse_again(tenant, outside)
            step = _record(self.run, tenant, outside, known)
            self._open[tenant] = step
            self.recorder.record_step(step)
            if not await self.recorder.flush(durable=begins) and begins:
                del self._open[tenant]
                if known is not None:
                    self._open[tenant] = known
                self.recorder.record_step(known or replace(step, done_at=datetime.now(UTC)))
                raise JournalError(
                    f"revision {outside.revision} leaves its transaction, and the journal, which has to know of that "
                    "first, cannot be written; nothing of it was done",
                    hint="see the journal's own message above, mend that, then resume",
                )

        return keep

    def end(self, tenant: str, outcome: Outcome) -> None:
        """An attempt has ended."""
        step = self._open.get(tenant)
        if step is None:
            return
        if outcome.status is TenantStatus.PARTIAL:
            heads = step.heads if outcome.after is None or outcome.after in step.heads else (outcome.after,)
            error = None if outcome.failure is None else outcome.failure.as_json()
            # Where the connection was lost, nobody could look.
            looked = outcome.after is not None
            self.recorder.record_step(replace(step, heads=heads, error=error, invalid=outcome.invalid, looked=looked))
        elif outcome.outside is not None and outcome.outside.done:
            self.recorder.record_step(replace(step, current=None, done_at=datetime.now(UTC)))
        else:
            return
        del self._open[tenant]

    def cut_off(self, tenant: str) -> Failure | None:
        """Why a tenant whose attempt was cut off is partial; ``None`` where it is not."""
        step = self._open.get(tenant)
        if step is None:
            return None
        failure = cut_off(step)
        self.recorder.record_step(replace(step, error=failure.as_json()))
        return failure

    async def _refuse_again(self, tenant: str, outside: Outside) -> None:
        for step, _ in await self.recorder.open_steps(tenant):
            if step.revision == outside.revision and set(step.heads) & set(outside.heads):
                failure = cut_off(step)
                raise LeftPartial(failure.message, hint=failure.hint)


def cut_off(step: StepRecord) -> Failure:
    """What is known of a step that was begun, and whose end nobody has seen."""
    doing = f", while it ran: {step.current}" if step.current else ""
    return Failure(
        "cut_off",
        f"run {step.run} was cut off in revision {step.revision}, outside any transaction{doing}; "
        f"{what_stayed(step.stayed, step.count)}",
        revision=step.revision,
        statement=step.current,
        hint=ways_on(step.tenant, step.revision, step.direction),
    )


async def half_done(recorder: Recorder, tenant: str, heads: tuple[str, ...]) -> StepRecord | None:
    """The step that a tenant is in the middle of, as far as the journal knows; ``None`` where it is in none.

    Args:
        recorder: the journal.
        tenant: its id.
        heads: what its version table says: where it has gone on, the step is through.
    """
    found = (step for step, _ in await recorder.open_steps(tenant) if heads in step.heads)
    return next(found, None)


def step_as_json(step: StepRecord) -> dict[str, Any]:
    """``step`` as a manifest holds it."""
    known = {**asdict(step), "begun_at": step.begun_at.isoformat(), "done_at": None}
    return dict(masked(known))


def step_from_json(given: Mapping[str, Any]) -> StepRecord:
    """What :func:`step_as_json` made.

    Raises:
        ValueError, KeyError, TypeError: it is something else.
    """
    lists = {key: tuple(given[key]) for key in ("stayed", "invalid_before", "invalid")}
    heads = tuple(tuple(each) for each in given["heads"])
    return StepRecord(**{**given, **lists, "heads": heads, "begun_at": datetime.fromisoformat(given["begun_at"])})


def _record(run: str, tenant: str, outside: Outside, known: StepRecord | None) -> StepRecord:
    return StepRecord(
        tenant=tenant,
        run=run,
        revision=outside.revision,
        direction=outside.direction,
        heads=outside.heads,
        begun_at=datetime.now(UTC) if known is None else known.begun_at,
        stayed=outside.stayed,
        count=outside.count,
        current=outside.current,
        invalid_before=outside.invalid_before,
    )
