"""A desk that receives new tenants for as long as a program runs, and keeps what is the same for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.actions.earlier import Earlier
from orchestrator.actions.execute import guarded, run_plan
from orchestrator.actions.execution import Execution, Watch
from orchestrator.actions.journals import opened_journal
from orchestrator.actions.onboarding.pooling import Filler
from orchestrator.actions.onboarding.readiness import Readiness, made_ready, ready_for_many
from orchestrator.actions.onboarding.unchanged import warn_of_other_keys, warn_of_seeds
from orchestrator.actions.onboarding.welcoming import Arrivals, Expected, expected
from orchestrator.actions.project import Project, read_project
from orchestrator.actions.servers import opened_servers
from orchestrator.errors import UsageError
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.load import load
from orchestrator.history.directory import History
from orchestrator.journal.journal import Journal
from orchestrator.journal.records import Actor, RunRecord, new_run_id
from orchestrator.rollout.planning import Request
from orchestrator.rollout.result import RunResult
from orchestrator.statuses import RunStatus

#: What a newcomer is in Python: an id, or an entry as in tenants.yaml with ``seed`` beside its keys.
Entry = str | Mapping[str, Any]

#: Who would be made by what is prepared.
_EXAMPLE = "tenant-to-come"
#: Name, time of the last change in nanoseconds, and size in bytes of each file that something was read from.
_Seen = tuple[tuple[str, int, int], ...]


@asynccontextmanager
async def onboarding(fleet: Fleet, *, refill: bool = True) -> AsyncIterator[Desk]:
    """Receive new tenants: keeps connections, the read directory and the journal from one to the next.

    What others change meanwhile counts: tenants.yaml and the directory are looked at before each onboarding, and the
    fleet's sources are read again. Any number of onboardings may go on at once in one event loop.

    Args:
        fleet: as loaded from tenants.yaml, with ``may_be_empty`` where it may be.
        refill: make another database ready behind each tenant that came from a pool; what is being made at the end is
            waited for, less than a second. Not for a program that ends with its onboarding.

    Raises:
        OrchestratorError: the directory, env.py, a source or the journal cannot be read.
    """
    desk = Desk(fleet, refill=refill)
    try:
        await desk.open()
        yield desk
    finally:
        await desk.end()


class Desk:
    """Use :func:`onboarding`."""

    def __init__(self, fleet: Fleet, *, refill: bool = True) -> None:
        self._fleet = fleet
        self._refill = refill
        self._filler: Filler | None = None
        self._opened = AsyncExitStack()
        self._project: Project | None = None
        self._journal: Journal | None = None
        #: With the commit that the files are of: asked of git as often as they are read.
        self._actor: Actor | None = None
        self._file: _Seen = ()
        self._files: _Seen = ()
        self._looking = asyncio.Lock()
        #: Nobody is received any more.
        self._ended = False
        self._at_work = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def open(self) -> None:
        """Read everything, and connect."""
        try:
            await self._open()
        except BaseException:
            await self._close()
            raise

    async def _open(self) -> None:
        servers = await self._opened.enter_async_context(opened_servers(self._fleet))
        servers.kept = True
        self._journal = await self._opened.enter_async_context(opened_journal(self._fleet))
        self._project = await read_project(self._fleet, servers)
        self._files = await asyncio.to_thread(_seen, _files_of(self._project.history))
        self._actor = await asyncio.to_thread(Actor.current, self._fleet.root)

    async def end(self) -> None:
        """Receive nobody any more."""
        self._ended = True
        await self._close()

    async def _close(self) -> None:
        """Close every connection and the journal."""
        filler, self._filler = self._filler, None
        if filler is not None:
            await filler.end()
        stack, self._opened = self._opened, AsyncExitStack()
        self._project = self._journal = None
        await stack.aclose()

    async def onboard(
        self,
        *newcomers: Entry,
        seed: str | None = None,
        adopt: bool = False,
        origin: str = "the call",
        expand: bool = True,
        execution: Execution = Execution(),  # noqa: B008  frozen
        watch: Watch | None = None,
    ) -> RunResult:
        """As :func:`orchestrator.onboard`."""
        arrivals = Arrivals(entries_of(newcomers), seed, adopt, origin, expand)
        async with self._looking:
            project, journal = await self._now()
            declared, actor = self._fleet, self._actor or Actor.current(self._fleet.root)
            self._at_work += 1
            self._idle.clear()
        try:
            arriving = await expected(project, declared, arrivals)
            warn_of_other_keys(arriving)
            result = await _receive(arriving, journal, arrivals, execution, watch or Watch(), actor)
            await warn_of_seeds(arriving, journal, result)
            if self._refill and self._project is not None:
                self._filler = self._filler or Filler(self._project)
                # As tenants.yaml has it by now.
                self._filler.project = self._project
                for tenant in arriving.tenants:
                    self._filler.wake(tenant)
            return result
        finally:
            self._at_work -= 1
            if self._at_work == 0:
                self._idle.set()

    async def prepare(self, **keys: Any) -> Readiness:
        """Make what new tenants are made from, so that the next ones are made fast; takes a few migrations' time.

        Where tenants.yaml asks for a pool, and they are databases, it is filled, too.

        For a deploy, after ``upgrade``. What an earlier call has made is kept, as long as directory, env.py and
        versions are the same.

        Args:
            keys: what an entry of tenants.yaml says of such a tenant beside its id: ``server``, ``isolation``.

        Raises:
            OrchestratorError: the directory does not lead to the target, or nothing can be made on the server.
        """
        async with self._looking:
            project, _ = await self._now()
        example = Arrivals(({"id": _EXAMPLE, **keys},), seed="", origin="prepare")
        arriving = await expected(project, self._fleet, example)
        return await made_ready(arriving.project, arriving.tenants[0])

    async def _now(self) -> tuple[Project, Journal]:
        """The project as it is now: what was changed since the last time is read again."""
        if self._project is None and not self._ended:
            # What was read the last time could not be.
            await self.open()
        if self._project is None or self._journal is None:
            raise UsageError("the desk is closed", hint="async with orchestrator.onboarding(fleet) as desk: ...")
        file = await asyncio.to_thread(_seen, [self._fleet.path])
        fleet = self._fleet
        if file != self._file:
            fleet = await asyncio.to_thread(load, self._fleet.path, may_be_empty=True)
        files = await asyncio.to_thread(_seen, _files_of(self._project.history))
        if files != self._files or (fleet.servers, fleet.journal) != (self._fleet.servers, self._fleet.journal):
            # Those that are under way go on with what they have begun with.
            await self._idle.wait()
            await self._close()
            self._fleet, self._file = fleet, file
            await self.open()
        elif fleet is not self._fleet or fleet.sources:
            self._fleet, self._file = fleet, file
            servers = self._project.servers
            servers.reread(fleet)
            self._project = replace(self._project, fleet=await servers.fleet())
        return self._project, self._journal


async def _receive(
    arriving: Expected, journal: Journal, arrivals: Arrivals, execution: Execution, watch: Watch, actor: Actor
) -> RunResult:
    project = arriving.project
    if not arrivals.adopt:
        await ready_for_many(project, arriving.tenants)
    request = Request("onboard", None, True, execution.budget, execution.wave, waves=execution.listed_waves)
    plan, files = await guarded(project, journal, await project.plan(request, arriving.tenants), execution)
    record = RunRecord(
        id=new_run_id(),
        command="onboard",
        target=plan.target,
        requested_target="",
        status=RunStatus.RUNNING,
        started_at=datetime.now(UTC),
        finished_at=None,
        actor=actor,
        directory_digest=project.history.digest,
        options={"provision": True, "waves": execution.waves, **arrivals.as_options()},
    )
    return await run_plan(project, journal, record, plan, files, request, execution, watch, Earlier(), arriving.asked)


def entries_of(newcomers: Sequence[Entry]) -> tuple[dict[str, Any], ...]:
    """Newcomers as entries of tenants.yaml."""
    return tuple({"id": each} if isinstance(each, str) else dict(each) for each in newcomers)


def _files_of(history: History) -> Iterator[Path]:
    """The files that a directory is read from, and env.py."""
    config = history.config.config_file_name
    if config is not None:
        yield Path(config)
    places = {Path(history.script.dir), *(Path(place) for place in history.script._version_locations)}
    for place in sorted(places):
        yield from sorted(place.rglob("*.py"))


def _seen(files: Iterator[Path] | list[Path]) -> _Seen:
    def found() -> Iterator[tuple[str, int, int]]:
        for file in files:
            try:
                stat = file.stat()
            except OSError:
                continue
            yield str(file), stat.st_mtime_ns, stat.st_size

    return tuple(found())
