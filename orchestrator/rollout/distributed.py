"""The executor that gives a wave to workers, chunk by chunk, and learns from the journal how each tenant fared."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from time import monotonic
from typing import Any, TypeVar

from orchestrator.databases.failures import Failure
from orchestrator.engine.client import OPEN as NOT_OVER
from orchestrator.engine.client import Engine, Piece, Standing
from orchestrator.engine.queues import PLACES, Queues, poll_interval
from orchestrator.engine.surely import surely
from orchestrator.journal.journal import Journal
from orchestrator.journal.records import AttemptRecord
from orchestrator.rollout.chunks import Chunk, cut
from orchestrator.rollout.executor import Ledger
from orchestrator.rollout.plan import PlannedTenant, PlannedWave
from orchestrator.statuses import OPEN, RunStatus, TenantStatus

#: Chunks given out and not taken, for each that a server takes at once: a worker is not to wait for us.
_AHEAD = 3
#: Times that a tenant is given out whose worker gives it back undone (because it was told to end, usually).
_ROUNDS = 50
#: Seconds between two looks at how it goes: at least, as a multiple of what a look takes, and at most.
_LOOK = (0.1, 2.0, 2.0)
#: Seconds until queues are made again, which are there already: a worker that was taken for dead, and had this run, may
#: have taken them away since.
_MADE_AGAIN = 5.0

log = logging.getLogger("orchestrator.run")
T = TypeVar("T")


@dataclass(slots=True)
class ChunkExecutor:
    """Of one run. See :class:`~orchestrator.rollout.executor.Executor`."""

    run: str
    engine: Engine
    journal: Journal
    queues: Queues
    #: Each server's physical identity and how many tenants it takes at once, by name.
    budgets: Mapping[str, tuple[str, int]]
    #: Tenants at once over all; ``None`` for whatever the servers take.
    jobs: int | None
    #: What a worker has to be told of a chunk.
    job: Callable[[PlannedWave, Chunk, int], Mapping[str, Any]]
    #: Closes the connections to the servers that this process has open.
    disconnect: Callable[[], Coroutine[Any, Any, None]]
    #: What the run had done before it was carried on, by tenant id.
    earlier: Mapping[str, AttemptRecord]
    #: How many chunks the run has had.
    given: int = 0
    #: Tells its chunks from those of the run's other executors (of tenants that have joined), which the engine still
    #: has. Random: who takes a run over waits for the chunks of before, and forgets them, before he gives out any.
    part: str = field(default_factory=lambda: f"{secrets.token_hex(3)}-")
    _out: dict[str, Chunk] = field(default_factory=dict)
    _waiting: dict[str, deque[Chunk]] = field(default_factory=dict)
    #: Attempts that were told of, by tenant id.
    _heard: dict[str, AttemptRecord] = field(default_factory=dict)
    _mark: str | None = None

    async def carry_out(self, wave: PlannedWave, todo: Sequence[PlannedTenant], ledger: Ledger) -> None:
        """Give out chunks as long as more tenants may be begun, and wait until all that were given out are over."""
        # One that idles here would count against the server's budget as well.
        await self.disconnect()
        jobs = self.jobs if wave.settings.jobs is None else min(self.jobs or wave.settings.jobs, wave.settings.jobs)
        self._waiting = cut(todo, self.budgets, PLACES, jobs)
        places = {chunk.places for chunks in self._waiting.values() for chunk in chunks}
        names = sorted(map(self.queues.chunks, places))
        await self._surely(lambda: self.journal.turn(self.run, RunStatus.RUNNING, RunStatus.FAILED))
        made = await self._make(places)
        await self._ask(self.engine.close, [self.queues.chunks(others) for others in PLACES if others not in places])
        await self._ask(self.engine.release, names)
        self._mark = await self._surely(self.journal.mark)
        held = False
        pause = _LOOK[0]
        while True:
            if ledger.may_start(wave):
                await self._give(wave, ledger, jobs)
            elif self._out:
                if not held:
                    await self._hold(names)
                    held = True
                await self._take_back()
            if not self._out:
                break
            await asyncio.sleep(pause)
            began = monotonic()
            await self._listen(ledger)
            await self._collect(wave, ledger)
            if monotonic() - made > _MADE_AGAIN:
                made = await self._make(places)
            pause = max(_LOOK[0], min(_LOOK[2], _LOOK[1] * (monotonic() - began)))
        if held:
            await self._ask(self.engine.release, names)

    async def _make(self, places: Collection[int]) -> float:
        """Have queues for so many chunks at once on a server; says when."""
        await self._ask(self.engine.register, self.queues, places, len(self.budgets))
        return monotonic()

    async def _give(self, wave: PlannedWave, ledger: Ledger, jobs: int | None) -> None:
        """Give out as much as is worth while."""
        pieces = []
        busy: dict[str, int] = {}
        for chunk in self._out.values():
            busy[chunk.server] = busy.get(chunk.server, 0) + 1
        at_once = sum(chunk.width for chunk in self._out.values())
        more = True
        # One of each server in turn: where not all can be at work at once, none is to be last.
        while more:
            more = False
            for server, chunks in self._waiting.items():
                if not chunks or busy.get(server, 0) >= (1 + _AHEAD) * chunks[0].places:
                    continue
                if jobs is not None and at_once and at_once + chunks[0].width > jobs:
                    continue
                chunk = chunks.popleft()
                self.given += 1
                id = f"{self.run}:{wave.name}:{self.part}{self.given}"
                self._out[id] = chunk
                busy[server] = busy.get(server, 0) + 1
                at_once += chunk.width
                job = self.job(wave, chunk, ledger.failures(wave))
                pieces.append(Piece(id, self.queues.chunks(chunk.places), job, chunk.server))
                more = True
        if pieces:
            await self._ask(self.engine.enqueue, pieces)

    async def _hold(self, names: Sequence[str]) -> None:
        """Nobody more is to be begun: neither by those who are at a chunk, nor by taking one that waits."""
        await self._surely(lambda: self.journal.turn(self.run, RunStatus.FAILED, RunStatus.RUNNING))
        await self._ask(self.engine.hold, names)
        # Who is looking for work just now has still read that there may be some. What is taken must not be cancelled:
        # it would go on, and no longer be counted.
        await asyncio.sleep(2 * poll_interval(len(self.budgets)) + _LOOK[0])

    async def _take_back(self) -> None:
        """What waits in a held queue, nobody will take: also what a worker had that has died since."""
        standings = await self._ask(self.engine.standings, list(self._out))
        await self._ask(self.engine.cancel, [id for id, standing in standings.items() if standing is Standing.QUEUED])

    async def _listen(self, ledger: Ledger) -> None:
        """Tell what has happened since the last time."""
        self._mark, changed = await self._surely(lambda: self.journal.changes(self.run, self._mark))
        theirs = {each.tenant.id for chunk in self._out.values() for each in chunk.tenants}
        for attempt in changed:
            if attempt.tenant in theirs:
                self._hear(attempt, ledger)

    async def _collect(self, wave: PlannedWave, ledger: Ledger) -> None:
        """Settle what is over."""
        standings = await self._ask(self.engine.standings, list(self._out))
        over = [id for id in self._out if standings.get(id) not in NOT_OVER]
        names = [each.tenant.id for id in over for each in self._out[id].tenants]
        if not over:
            return
        cut_off = {}
        for attempt in await self._surely(lambda: self.journal.attempts_of(self.run, names)):
            self._hear(attempt, ledger)
            if attempt.status is TenantStatus.RUNNING and attempt != self.earlier.get(attempt.tenant):
                cut_off[attempt.tenant] = attempt
        for id in over:
            chunk = self._out.pop(id)
            left = chunk.left(each.tenant.id for each in chunk.tenants if each.tenant.id not in self._heard)
            if not left.tenants:
                continue
            standing = standings.get(id)
            if standing is Standing.CANCELLED:
                # Its worker has died of it, or with it, and nobody begins it again.
                for name in cut_off.keys() & {each.tenant.id for each in left.tenants}:
                    self._heard[name] = ended = _interrupted(cut_off[name])
                    ledger.note(ended)
            if standing in (Standing.BROKEN, Standing.GIVEN_UP) or left.rounds > _ROUNDS:
                log.warning("chunk %s is not done: %s", id, standing.value if standing else "gone")
                for planned in left.tenants:
                    ledger.note(self._given_up(wave, planned, id, standing))
            else:
                self._waiting[chunk.server].append(left)

    def _hear(self, attempt: AttemptRecord, ledger: Ledger) -> None:
        if attempt.status in OPEN or attempt in (self.earlier.get(attempt.tenant), self._heard.get(attempt.tenant)):
            return
        self._heard[attempt.tenant] = attempt
        ledger.hear(attempt)

    def _given_up(self, wave: PlannedWave, planned: PlannedTenant, id: str, standing: Standing | None) -> AttemptRecord:
        failure = Failure(
            "worker",
            f"no worker could carry out chunk {id} ({standing.value if standing else 'gone'}): see what they have said",
            hint=f"orchestrator resume {self.run} --executor dbos",
        )
        earlier = self.earlier.get(planned.tenant.id)
        made = earlier or AttemptRecord(self.run, planned.tenant.id, wave.name, TenantStatus.FAILED, planned.heads)
        self._heard[planned.tenant.id] = made
        return replace(
            made, status=TenantStatus.FAILED, error=failure.as_json(), to_heads=None, finished_at=datetime.now(UTC)
        )

    async def _ask(self, function: Callable[..., T], *given: Any) -> T:
        return await self._surely(lambda: asyncio.to_thread(function, *given))

    async def _surely(self, asked: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return await surely(asked, log)


def _interrupted(attempt: AttemptRecord) -> AttemptRecord:
    return replace(attempt, status=TenantStatus.INTERRUPTED, finished_at=datetime.now(UTC))
