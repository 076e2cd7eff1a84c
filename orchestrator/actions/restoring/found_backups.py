"""Backups to restore from: those of a run, or the one that a file is. Listed first; only those that count are read."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from orchestrator.actions.another_fleet import require_same_name
from orchestrator.databases.archives import Manifest, read, verify
from orchestrator.errors import BackupError, UsageError
from orchestrator.fleet.fleet import Fleet
from orchestrator.journal.journal import Journal
from orchestrator.journal.records import EventRecord, RunRecord, StepRecord
from orchestrator.rollout.backups import BACKUP
from orchestrator.rollout.steps import step_from_json

_NONE = "orchestrator upgrade --backup DIR makes them"


@dataclass(frozen=True, slots=True)
class Found:
    """One tenant's backup, whole."""

    dump: Path
    manifest: Manifest
    #: What the tenant was half done in when it was made, which is in the dump as far as it got; ``None`` for nothing.
    step: StepRecord | None


@dataclass(frozen=True, slots=True)
class Listed:
    """One tenant's backup, as it is known without its file."""

    tenant: str
    #: The dump or its manifest.
    file: Path
    #: When it was made, which is how far back a restore goes.
    made: datetime
    #: What the journal says that the dump comes to; ``None`` where a file was named.
    sha256: str | None = None
    #: The id of the run whose backups were asked for; ``None`` where a file was named.
    run: str | None = None

    def look(self) -> Found:
        """Read the manifest and the whole dump.

        Raises:
            BackupError: one is not there, is not what it was, or is not the backup that is listed.
        """
        dump, manifest = read(self.file)
        if manifest.tenant != self.tenant or self.sha256 not in (None, manifest.sha256):
            raise BackupError(
                f"{self.file} is not the backup of {self.tenant} that the run made: by its manifest it is of "
                f"{manifest.tenant}, from run {manifest.run}; nothing was touched",
                hint="put the run's own file back there, or name the file that you mean",
            )
        verify(dump, manifest)
        try:
            return Found(dump, manifest, None if manifest.step is None else step_from_json(manifest.step))
        except (ValueError, KeyError, TypeError) as error:
            raise BackupError(f"{self.file}: its manifest has a step that cannot be read") from error


async def backups_in(journal: Journal, fleet: Fleet, source: str) -> Mapping[str, Listed]:
    """What there is to restore from, by tenant id.

    Args:
        journal: opened.
        fleet: as loaded: another one's run is not taken, unless by its files.
        source: a file; or a run: an id, or the start of one.

    Raises:
        BackupError: the file is no backup's.
        JournalError: there is no such run.
        UsageError: the run made no backup, or is another fleet's.
    """
    alone = await asyncio.to_thread(_of_file, Path(source))
    if alone is not None:
        return {alone.tenant: alone}
    run = await journal.run(source)
    before = {attempt.tenant: attempt.from_heads for attempt in await journal.attempts(run.id)}
    events = await journal.events(run.id, kind=BACKUP)
    if not events:
        raise UsageError(f"run {run.id} ({run.command}) made no backup", hint=_NONE)
    require_same_name(fleet, run, "orchestrator restore FILE -t TENANT")
    return {tenant: replace(each, run=run.id) for tenant, each in _of_run(events, before).items()}


async def last_with_backups(journal: Journal) -> RunRecord:
    """The last run that has made backups, which is what ``last`` means.

    Raises:
        UsageError: none has.
    """
    run = await journal.last_run_with(BACKUP)
    if run is None:
        raise UsageError("no run has made a backup", hint=_NONE)
    return run


async def looked_through(listed: Sequence[Listed]) -> dict[str, Found]:
    """Every one of ``listed`` read and verified, by tenant id.

    Raises:
        BackupError: one is not what it was.
    """
    return {each.tenant: await asyncio.to_thread(each.look) for each in listed}


def _of_file(path: Path) -> Listed | None:
    """The backup that a path means; ``None`` for what is no path."""
    if path.suffix != ".json" and not path.is_file():
        return None
    manifest = read(path.absolute())[1]
    return Listed(manifest.tenant, path.absolute(), manifest.created)


def _of_run(events: Sequence[EventRecord], before: Mapping[str, tuple[str, ...] | None]) -> dict[str, Listed]:
    """A resumed run may have made several of a tenant: the first one from where the run began with it counts.

    A later one at the same heads may have half of a revision in it that works outside transactions.
    """
    found: dict[str, Listed] = {}
    at_its_start: set[str] = set()
    for event in events:
        if event.tenant is None or event.detail is None or event.tenant in at_its_start:
            continue
        if tuple(event.detail["heads"]) == before.get(event.tenant):
            at_its_start.add(event.tenant)
        elif event.tenant in found:
            continue
        found[event.tenant] = Listed(event.tenant, Path(event.detail["file"]), event.at, event.detail["sha256"])
    return found
