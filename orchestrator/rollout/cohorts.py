"""Who of a run goes alike: two tenants of a kind are recorded on their way through Alembic, the others are replayed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise

from orchestrator.databases.failures import Failure
from orchestrator.databases.port.database import Database
from orchestrator.history.directory import History
from orchestrator.history.position import direction_of
from orchestrator.migration.outcome import Outcome
from orchestrator.migration.recording import Recorded, Recording, compared
from orchestrator.migration.replay import Transcript
from orchestrator.rollout.plan import Kind, Plan, PlannedTenant, kind_of
from orchestrator.rollout.transcripts import Transcripts
from orchestrator.statuses import TenantStatus

#: Tenants that have to have gone the same way; a recording of an earlier run stands for one.
PROOFS = 2
#: Seconds that a tenant waits for those that are recorded; after that it goes through Alembic itself.
_PATIENCE = 2.0
#: Why a revision is not replayed that could be.
_REMEMBERED = "a later revision needs what Alembic remembers of it (a type that it makes)"
#: Why nothing is replayed where the recordings have nothing in common.
_TWO_WAYS = "two tenants were migrated in different ways"


@dataclass(slots=True)
class Cohort:
    """Tenants of one kind, and what has been found out about their way so far."""

    #: ``upgrade`` or ``downgrade``.
    direction: str
    kind: Kind
    transcripts: Transcripts
    #: Why a revision must not be replayed, as far as its file tells, by revision.
    impure: Mapping[str, str]
    #: Look at the shape of every replayed tenant, not only of a few.
    verify_all: bool = False
    #: How they go; ``None`` until it is known, and for good when all of them go through Alembic.
    transcript: Transcript | None = None
    settled: bool = False
    #: Why revisions go through Alembic for every tenant, by revision; known once it is settled.
    reasons: Mapping[str, str] = field(default_factory=dict)
    _stored: tuple[Recorded, ...] | None = None
    _proofs: list[Recording] = field(default_factory=list)
    _recording: int = 0
    _replayed: int = 0
    #: Recorded tenants that are through, and whose shape is being read.
    _looking: int = 0
    #: What the recorded tenants looked like afterwards, by what they looked like before.
    _shapes: dict[str, str] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def join(self) -> Transcript | Recording | None:
        """How the next tenant is to go: replayed, recorded (then :meth:`leave`), or neither."""
        while not self.settled:
            if len(self._proofs) + self._recording < self._wanted:
                self._recording += 1
                return Recording()
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self._changed.wait()
            except TimeoutError:
                return None
        return self.transcript

    def leave(self, recording: Recording, outcome: Outcome | None) -> bool:
        """A recorded tenant is through; only one that succeeded proves anything.

        Returns:
            Whether it is settled by this one.
        """
        before = self.settled
        self._recording -= 1
        if outcome is not None and outcome.status is TenantStatus.SUCCEEDED and outcome.steps and not self.settled:
            self._proofs.append(recording)
            self._settle()
        self._change()
        return self.settled and not before

    @contextmanager
    def looking(self) -> Iterator[None]:
        """A recorded tenant that is through is looked at once more; :meth:`looked` waits for the end of that."""
        self._looking += 1
        try:
            yield
        finally:
            self._looking -= 1
            self._change()

    async def looked(self) -> None:
        """Wait until it is known what the recorded tenants look like."""
        while self._looking:
            await self._changed.wait()

    def is_sampled(self) -> bool:
        """Whether the next replayed tenant is looked at: the first, the tenth, the hundredth, ... or all.

        None where two tenants that are migrated rightly may come out different.
        """
        self._replayed += 1
        chosen = self.verify_all or str(self._replayed).rstrip("0") == "1"
        return chosen and self.transcript is not None and self.transcript.decides_shape

    def note_shape(self, before: str | None, after: str | None) -> None:
        """Remember what a recorded tenant looked like before and afterwards; ``None`` for what could not be read."""
        if before is not None and after is not None:
            self._shapes[before] = after

    def judge_shape(self, before: str | None, after: str | None) -> Failure | None:
        """What is wrong with a replayed tenant's shape, if anything.

        One that was of another shape to begin with (an index of its own), or could not be read, is not judged.
        """
        if before is None or after is None or self._shapes.get(before, after) == after:
            return None
        self.transcript, self.settled = None, True
        return Failure(
            "shape",
            "after a replay its tables are not as those of the tenants that were recorded; no more are replayed",
            hint="compare it with another tenant (pg_dump --schema-only); then: orchestrator resume --no-replay",
        )

    @property
    def _wanted(self) -> int:
        return PROOFS if self._stored is None else PROOFS - 1

    def _change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _settle(self) -> None:
        one = self._proofs[0]
        if self._stored is not None:
            now = _judged(one, one.transactions, one.reason, self.impure)
            if _confirms(now.transactions, self._stored):
                self._conclude(now)
            # Otherwise what was sent then is not what is sent now: this run proves its own.
            self._stored = None
        elif len(self._proofs) >= PROOFS:
            made = proven(one, self._proofs[1], self.impure)
            self._conclude(made)
            self.transcripts.save(self.direction, self.kind, made.transactions)

    def _conclude(self, made: Transcript) -> None:
        self.settled = True
        self.reasons = made.reasons if made.transactions else dict.fromkeys(self.kind.path, _TWO_WAYS)
        self.transcript = made if made.replayable else None


def proven(one: Recording, other: Recording, impure: Mapping[str, str]) -> Transcript:
    """What two tenants of a kind, who went the same way, say about how others go.

    Args:
        one: one's recording.
        other: the other's.
        impure: why a revision must not be replayed, as far as its file tells, by revision.

    Returns:
        The transcript; without transactions where the two went different ways.
    """
    same = compared(one.transactions, other.transactions) if one.options == other.options else []
    return _judged(one, same, one.reason or other.reason, impure)


def _judged(
    recording: Recording, transactions: Sequence[Recorded], reason: str | None, impure: Mapping[str, str]
) -> Transcript:
    def judged(recorded: Recorded) -> Recorded:
        by_text = (impure[revision] for revision in recorded.step.revisions if revision in impure)
        return replace(recorded, reason=reason or next(by_text, None) or recorded.reason)

    return Transcript(tuple(_kept_together([judged(each) for each in transactions])), recording.options or {})


def _kept_together(transactions: Sequence[Recorded]) -> list[Recorded]:
    """Let all go through Alembic up to the last one that has to, and that comes after something Alembic remembers.

    Begun in the middle, Alembic would make a type once more that an earlier revision has made.
    """
    lasts = [
        number
        for number, (before, each) in enumerate(pairwise(transactions), start=1)
        if each.reason is not None and before.remembers
    ]
    last = max(lasts, default=0)
    return [
        replace(each, reason=each.reason or _REMEMBERED) if number < last else each
        for number, each in enumerate(transactions)
    ]


def _confirms(now: Sequence[Recorded], stored: Sequence[Recorded]) -> bool:
    """Whether a tenant was sent what another was sent in an earlier run, and nothing speaks against it any more."""
    return [each.step for each in now] == [each.step for each in stored] and all(
        then.reason in (None, each.reason) for each, then in zip(now, stored, strict=True)
    )


class Cohorts:
    """The cohorts of one run, in this process.

    Args:
        history: the shared directory.
        databases: by server name.
        transcripts: what earlier runs recorded.
        verify_all: look at the shape of every replayed tenant, not only of a few.
    """

    def __init__(
        self,
        history: History,
        databases: Mapping[str, Database],
        transcripts: Transcripts,
        *,
        verify_all: bool = False,
    ) -> None:
        self._history = history
        self._databases = databases
        self._transcripts = transcripts
        self._verify_all = verify_all
        self._cohorts: dict[Kind, Cohort] = {}

    def expect(self, plan: Plan) -> None:
        """Have the tenants of ``plan`` go alike, with those before them; whom nobody expects is not replayed."""
        if plan.command == "stamp":
            return
        todo = [each for each in plan.tenants if each.verdict is TenantStatus.PENDING]
        can = Counter(kind_of(each) for each in todo if self._databases[each.tenant.server].replays)
        for kind, count in can.items():
            if kind in self._cohorts:
                continue
            # What is sent on the way back is the same, whatever asks for it.
            direction = direction_of(plan.command)
            impure = self._history.impurities(kind.path, direction)
            if len(impure) == len(kind.path):
                continue
            stored = self._transcripts.load(direction, kind)
            cohort = Cohort(direction, kind, self._transcripts, impure, self._verify_all, _stored=stored)
            # Recording is worth it where somebody is left to be replayed.
            if count > cohort._wanted:
                self._cohorts[kind] = cohort

    def of(self, planned: PlannedTenant) -> Cohort | None:
        """The tenant's cohort; ``None`` where nobody is replayed."""
        return self._cohorts.get(kind_of(planned))
