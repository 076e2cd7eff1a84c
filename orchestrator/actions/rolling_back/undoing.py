"""``on_failure: rollback`` of a wave: what the run has changed in it goes back, as a run of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

from orchestrator.actions.execution import Execution, Watch
from orchestrator.actions.journals import opened_journal
from orchestrator.actions.offboarding.set_aside import taken_out_since
from orchestrator.actions.rollback import take_back
from orchestrator.actions.stopping import ended_as
from orchestrator.errors import JournalError, OrchestratorError
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.selection import Selection
from orchestrator.fleet.waves import OnFailure
from orchestrator.journal.journal import Journal
from orchestrator.journal.records import RunRecord, another_process_is_there, new_run_id
from orchestrator.rollout.result import RunResult
from orchestrator.rollout.waves import WaveRecord, WaveState
from orchestrator.statuses import ASKED

#: Seconds between two looks whether another process is still at a rollback.
_LOOK = 0.25

log = logging.getLogger("orchestrator.run")


class CarryOn(Protocol):
    """Carries a run on that a worker had which is gone."""

    def __call__(self, run: str, *, execution: Execution) -> Awaitable[RunResult]:
        """See :func:`~orchestrator.actions.resume.resume`."""
        ...


async def undone(
    fleet: Fleet, result: RunResult, execution: Execution, watch: Watch, carry_on: CarryOn | None = None
) -> RunResult:
    """Take back each wave of ``result`` that has failed and is to be taken back then.

    The run that does it is written down with the wave before it begins: whoever takes ``result`` over knows it.

    Args:
        fleet: as loaded.
        result: of an upgrade that has ended.
        execution: how it was carried out.
        watch: who looks on; a run that somebody has stopped is left as it is.
        carry_on: carries such a run on that was begun before, and has not ended.

    Raises:
        JournalError: it cannot be used, and workers have the run: they try again.
    """
    declared = fleet.waves if execution.listed_waves is None else execution.listed_waves
    names = {wave.name for wave in declared if wave.on_failure is OnFailure.ROLLBACK}
    waves = list(result.waves)
    for number, wave in enumerate(waves):
        if wave.name in names and wave.state is WaveState.FAILED and not watch.stop.draining:
            waves[number] = await _back(fleet, result, wave, execution, watch, carry_on)
    return replace(result, waves=tuple(waves))


async def _back(
    fleet: Fleet, result: RunResult, wave: WaveRecord, execution: Execution, watch: Watch, carry_on: CarryOn | None
) -> WaveRecord:
    changed = [
        attempt.tenant
        for attempt in result.tenants
        if attempt.wave == wave.name and attempt.to_heads is not None and attempt.to_heads != attempt.from_heads
    ]
    if not changed:
        return wave
    # All of them, at once, and nothing of what stands between waves: there is nobody to go on to.
    # What is half done outside transactions is to be seen by somebody first, who then resumes the rollback.
    how = replace(execution, waves="100%", wave=None, approve=False, continue_on_error=True, retry_partial=False)
    before, id = wave, wave.rolled_back or new_run_id()
    try:
        async with opened_journal(fleet) as journal:
            begun = await journal.find(id)
            taken_out = await taken_out_since(journal, result.run.started_at)
            there = tuple(tenant for tenant in changed if tenant not in taken_out)
            if begun is None and not there:
                return wave
            wave = replace(before, rolled_back=id)
            await _write(journal, result, wave)
            if begun is not None:
                begun = await _let_go(journal, begun)
        if begun is None:
            await take_back(fleet, result.run.id, id, Selection(listed=there), execution=how, watch=watch)
        elif begun.finished_at is None and carry_on is not None:
            await carry_on(id, execution=how)
    except OrchestratorError as error:
        if execution.workforce is not None and isinstance(error, JournalError):
            raise
        # The run has ended, and what it did is to be told whatever becomes of this.
        log.warning("wave %s could not be taken back: %s", wave.name, error.message)
        wave = _reasoned(before, f"it could not be taken back: {error.message}")
        with suppress(JournalError):
            async with opened_journal(fleet) as journal:
                if await journal.find(id) is not None:
                    # It has begun: `resume` carries that one on, and whoever takes the run over begins no other.
                    said = f"what takes it back has not come to its end: {error.message}"
                    wave = replace(_reasoned(before, said), rolled_back=id)
                await _write(journal, result, wave)
    watch.observer.wave(wave)
    return wave


async def _let_go(journal: Journal, begun: RunRecord) -> RunRecord:
    """``begun`` when no other process is at it any more, ended as somebody has asked for if it had not come to that."""
    told = False
    while begun.finished_at is None and another_process_is_there(begun, datetime.now(UTC)):
        if not told:
            log.info("run %s: process %s on %s is still at it", begun.id, begun.actor.pid, begun.actor.host)
            told = True
        await asyncio.sleep(_LOOK)
        begun = await journal.run(begun.id)
    if begun.finished_at is not None or begun.status not in ASKED:
        return begun
    await ended_as(journal, begun.id, begun.status)
    return await journal.run(begun.id)


def _reasoned(wave: WaveRecord, said: str) -> WaveRecord:
    """``wave``, not taken back, with why: once, however often it is tried."""
    reason = wave.reason or ""
    return replace(wave, reason=reason if said in reason else f"{reason}; {said}", rolled_back=None)


async def _write(journal: Journal, result: RunResult, wave: WaveRecord) -> None:
    journal.record_event(wave.event(result.run.id))
    if not await journal.flush(durable=True):
        raise JournalError(
            "what becomes of the wave cannot be written down", hint="see that the journal can be reached and written"
        )
