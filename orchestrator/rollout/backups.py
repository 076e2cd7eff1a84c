"""A run's backups: one of each tenant before anything is done to it, listed in the journal."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.databases.archives import Manifest, keep, path_for, prepare, unfinished
from orchestrator.databases.port.database import Database
from orchestrator.errors import BackupError
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.shortest import kept_entry
from orchestrator.fleet.tenant import Limits, Tenant
from orchestrator.journal.records import EventRecord, StepRecord
from orchestrator.rollout.steps import half_done, step_as_json
from orchestrator.rollout.watching import Recorder

#: Kind of the journal's event that a backup is.
BACKUP = "backup"


@dataclass(slots=True)
class Backups:
    """Makes the backups of one run."""

    #: The run's id.
    run: str
    #: Where they go, in a directory of the run's own.
    directory: Path
    #: That the tenants are in.
    fleet: Fleet
    recorder: Recorder
    #: By server name.
    databases: Mapping[str, Database]
    #: How connections name themselves to the server, before the tenant's id.
    application: str
    #: Tenants that have one, and what it says.
    made: dict[str, EventRecord] = field(default_factory=dict)

    async def make(
        self,
        tenant: Tenant,
        heads: tuple[str, ...],
        version_table: str,
        limits: Limits,
        held_in: Tenant | None = None,
    ) -> None:
        """Back ``tenant`` up, whose lock is held. Done once: a second try begins at what the first one has saved.

        Args:
            tenant: whom.
            heads: what its version table says.
            version_table: the table's name.
            limits: timeouts.
            held_in: where what it holds is just now; ``None`` for its own place.

        Raises:
            OrchestratorError: it could not be done.
        """
        if tenant.id in self.made:
            return
        started = datetime.now(UTC)
        try:
            await asyncio.to_thread(prepare, self.directory / self.run)
            dump = await asyncio.to_thread(path_for, self.directory, self.run, tenant.id)
            step = await half_done(self.recorder, tenant.id, heads)
            manifest = await self._dumped(tenant, held_in or tenant, heads, version_table, limits, dump, step)
        except OSError as error:
            raise BackupError(
                f"the backup cannot be written into {self.directory}: {error.strerror}",
                hint="make room there, or name another directory: --backup DIR",
            ) from error
        detail = {
            "file": str(dump),
            "sha256": manifest.sha256,
            "bytes": manifest.bytes,
            "heads": list(heads),
            "made_by": manifest.made_by,
        }
        took = (manifest.created - started).total_seconds() * 1000
        event = EventRecord(self.run, tenant.id, manifest.created, BACKUP, duration_ms=took, detail=detail)
        self.recorder.record_event(event)
        # Before the tenant is touched: whoever looks for it later must find it. The files say the same.
        await self.recorder.flush()
        self.made[tenant.id] = event

    async def _dumped(
        self,
        tenant: Tenant,
        held_in: Tenant,
        heads: tuple[str, ...],
        version_table: str,
        limits: Limits,
        dump: Path,
        step: StepRecord | None,
    ) -> Manifest:
        database, source = self.databases[tenant.server], unfinished(dump)
        try:
            dumped = await database.dump(held_in, source, f"{self.application} {tenant.id}", limits)
            manifest = Manifest(
                tenant=tenant.id,
                dialect=database.dialect,
                server_version=await database.version(),
                server=tenant.server,
                database=tenant.database,
                schema=tenant.schema,
                heads=heads,
                version_table=version_table,
                run=self.run,
                created=datetime.now(UTC),
                file=dump.name,
                bytes=0,
                sha256="",
                made_by=dumped.made_by,
                properties=dumped.properties,
                step=None if step is None else step_as_json(step),
                entry=kept_entry(tenant, self.fleet),
            )
            return await asyncio.to_thread(keep, dump, manifest)
        finally:
            with suppress(OSError):
                source.unlink(missing_ok=True)


def listed(events: Sequence[EventRecord]) -> tuple[dict[str, Any], ...]:
    """Backups as the documents list them."""
    return tuple(
        {"tenant": event.tenant, **{key: event.detail[key] for key in ("file", "bytes", "sha256", "heads")}}
        for event in events
        if event.kind == BACKUP and event.detail is not None
    )
