"""``on_failure: rollback`` of a wave: what the run has changed in it goes back, as a run of its own."""

from __future__ import annotations

import logging
from dataclasses import replace

from orchestrator.actions.execution import Execution, Watch
from orchestrator.actions.journals import opened_journal
from orchestrator.actions.rollback import rollback
from orchestrator.errors import OrchestratorError
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.selection import Selection
from orchestrator.fleet.waves import OnFailure
from orchestrator.rollout.result import RunResult
from orchestrator.rollout.waves import WaveRecord, WaveState

log = logging.getLogger("orchestrator.run")


async def undone(fleet: Fleet, result: RunResult, execution: Execution, watch: Watch) -> RunResult:
    """Take back each wave of ``result`` that has failed and is to be taken back then.

    Args:
        fleet: as loaded.
        result: of an upgrade that has ended.
        execution: how it was carried out.
        watch: who looks on; a run that somebody has stopped is left as it is.
    """
    declared = fleet.waves if execution.listed_waves is None else execution.listed_waves
    names = {wave.name for wave in declared if wave.on_failure is OnFailure.ROLLBACK}
    waves = list(result.waves)
    for number, wave in enumerate(waves):
        if wave.name in names and wave.state is WaveState.FAILED and not watch.stop.draining:
            waves[number] = await _back(fleet, result, wave, execution, watch)
    return replace(result, waves=tuple(waves))


async def _back(fleet: Fleet, result: RunResult, wave: WaveRecord, execution: Execution, watch: Watch) -> WaveRecord:
    changed = tuple(
        attempt.tenant
        for attempt in result.tenants
        if attempt.wave == wave.name and attempt.to_heads is not None and attempt.to_heads != attempt.from_heads
    )
    if not changed:
        return wave
    # All of them, at once, and nothing of what stands between waves: there is nobody to go on to.
    how = replace(execution, waves="100%", wave=None, approve=False, continue_on_error=True)
    try:
        back = await rollback(fleet, result.run.id, tenants=Selection(listed=changed), execution=how, watch=watch)
        wave = replace(wave, rolled_back=back.run.id)
        async with opened_journal(fleet) as journal:
            journal.record_event(wave.event(result.run.id))
    except OrchestratorError as error:
        # The run has ended, and what it did is to be told whatever becomes of this.
        log.warning("wave %s could not be taken back: %s", wave.name, error.message)
        wave = replace(wave, reason=f"{wave.reason}; it could not be taken back: {error.message}")
    watch.observer.wave(wave)
    return wave
