"""Make what new tenants are made from: a blueprint for each kind of place, found out in scratch tenants.

Two are brought to the target through Alembic. Only what both have in common is believed; what they were sent, or what
they hold, is then tried on a third one before it is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import alembic
import sqlalchemy

from orchestrator.actions.project import Project
from orchestrator.actions.scratch import Escaping, bring, scratch_tenant, watched
from orchestrator.databases.definitions import Definition
from orchestrator.databases.failures import describe
from orchestrator.databases.postgresql.copying.snapshot import snapshot
from orchestrator.databases.postgresql.script import Snapshot, Step
from orchestrator.errors import BackupError
from orchestrator.fleet.tenant import Isolation, Limits, Tenant
from orchestrator.history.directory import History
from orchestrator.history.surroundings import digest_of, imported, passing
from orchestrator.journal.journal import DIRECTORY
from orchestrator.migration.abroad import Watched
from orchestrator.migration.seam import installed
from orchestrator.migration.stand_in import NotReplayed, configured_for
from orchestrator.migration.whole import whole
from orchestrator.migration.work import Work
from orchestrator.rollout.blueprints import Blueprint, Blueprints, described, key_of
from orchestrator.rollout.cohorts import proven
from orchestrator.rollout.differences import differences
from orchestrator.rollout.telling import told

#: Ways of a new tenant, as they are named in blueprints.
TEMPLATE, REPLAY, SNAPSHOT = "template", "replay", "snapshot"
#: How connections that build name themselves to the server.
_APPLICATION = "orchestrator prepare"
#: Blueprints that have to agree.
_TWO = 2
#: Characters of a script's line that are told.
_TOLD = 80
#: Seconds between two looks whether somebody else has built a template.
_POLL = 0.2


@dataclass(frozen=True, slots=True)
class Kind:
    """What one blueprint is for."""

    key: str
    #: The key without what changes when the history grows.
    family: str
    #: The server that it is used on: a template is one server's.
    server: str


@dataclass(slots=True)
class Memory:
    """What is known as long as a project is open, also with more tenants in its fleet."""

    found: dict[Kind, Blueprint] = field(default_factory=dict)
    kinds: dict[tuple[object, ...], Kind] = field(default_factory=dict)
    #: Digest of all that decides what a tenant comes to, but for the server.
    surroundings: str | None = None
    #: What env.py configured Alembic with, by blueprint: once it was found to be what that was made with.
    options: dict[Kind, Mapping[str, Any]] = field(default_factory=dict)
    #: Whether the seam was proved.
    concurrent: bool | None = None


class Store:
    """Where the blueprints of one project are, in memory and on disk."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._directory = project.fleet.root / DIRECTORY / "blueprints"
        self.blueprints = Blueprints(self._directory)
        self.memory: Memory = project.kept.setdefault(__name__, Memory())

    @property
    def templates(self) -> Path:
        """Where files are kept that others are copied from."""
        return self._directory

    async def kind(self, tenant: Tenant, target: str) -> Kind:
        """What blueprint ``tenant`` needs to come to ``target``.

        Raises:
            OrchestratorError: no such target, or no connection.
        """
        database = self._project.databases[tenant.server]
        goal = self._project.history.resolve(target)
        asked = (tenant.server, tenant.isolation, goal)
        if asked not in self.memory.kinds:
            version = await database.version()
            extensions = self._project.fleet.server_of(tenant).extensions_schema
            table = self._project.loop.version_table
            # Each fleet has its own: staging is ahead of production on the same server, and drops what it has outgrown.
            fleet = self._project.identity
            lasting = (database.dialect, version, fleet, tenant.isolation, table, extensions)
            family = key_of(*lasting, self._project.history.script.get_bases(), target)
            key = key_of(*lasting, goal, await asyncio.to_thread(self._digest))
            self.memory.kinds[asked] = Kind(key, family, tenant.server)
        return self.memory.kinds[asked]

    async def load(self, tenant: Tenant, kind: Kind) -> Blueprint | None:
        """The blueprint of ``kind``; ``None`` where it was not made, or what it leads to is not there."""
        if kind not in self.memory.found:
            found = await asyncio.to_thread(self.blueprints.load, kind.key)
            if found is None and tenant.isolation is not Isolation.SCHEMA:
                found = await self._noted(tenant, kind)
            if found is None:
                return None
            self.memory.found[kind] = found
        return self.memory.found[kind]

    def keep(self, kind: Kind, blueprint: Blueprint) -> None:
        """Keep a blueprint, in the place of what was known of ``kind``."""
        self.memory.found[kind] = blueprint
        if blueprint.template is None:
            # Of a template, the note that is written at it tells.
            self.blueprints.save(kind.key, blueprint)

    def forget(self, kind: Kind) -> None:
        """What was known of ``kind`` is not so any more; look again the next time."""
        self.memory.found.pop(kind, None)

    async def _noted(self, tenant: Tenant, kind: Kind) -> Blueprint | None:
        """What somebody else's process, on another machine perhaps, has written at the template."""
        database = self._project.databases[tenant.server]
        note = await database.note(database.template(kind.key, self.templates))
        try:
            return None if note is None else Blueprint.from_json(note)
        except (KeyError, TypeError, ValueError):
            return None

    def _digest(self) -> str:
        """Of all that decides what a tenant comes to, but for the server."""
        history = self._project.history
        if self.memory.surroundings is None:
            packages = imported([*_files(history), Path(history.script.env_py_location)])
            self.memory.surroundings = key_of(
                history.digest,
                Path(history.script.env_py_location).read_text(encoding="utf-8"),
                alembic.__version__,
                sqlalchemy.__version__,
                digest_of(packages),
            )
        return self.memory.surroundings


async def prepare(project: Project, tenant: Tenant, target: str, store: Store) -> Blueprint:
    """Make the blueprint that tenants like ``tenant`` are made from, where it is not there.

    Args:
        project: opened.
        tenant: an example, on one of its servers; it need not be there, and is not touched.
        target: ``heads``, ``label@head`` or a revision.
        store: where it is kept.

    Raises:
        OrchestratorError: the directory does not lead there, or nothing can be made on the server.
    """
    kind = await store.kind(tenant, target)
    known = await store.load(tenant, kind)
    if known is not None:
        return known
    database = project.databases[tenant.server]
    if tenant.isolation is Isolation.SCHEMA:
        built = await _closed_where_different(_of_schemas(project, tenant, target), (REPLAY, SNAPSHOT))
        store.keep(kind, replace(built, family=kind.family))
        return replace(built, family=kind.family)
    template = database.template(kind.key, store.templates)
    while True:
        async with database.building(template) as alone:
            # Whoever has built it meanwhile has left it here.
            known = await store.load(tenant, kind)
            if known is None and alone:
                building = _with_template(project, tenant, target, kind.family, template)
                known = await _closed_where_different(building, (TEMPLATE,))
                store.keep(kind, known)
        if known is not None:
            return known
        await asyncio.sleep(_POLL)


async def _of_schemas(project: Project, tenant: Tenant, target: str) -> Blueprint:
    pair, recordings = [], []
    async with AsyncExitStack() as places:
        for _ in range(_TWO):
            empty = await places.enter_async_context(scratch_tenant(project, tenant, "base"))
            recording = watched(project, empty)
            await bring(project, empty, target, recording)
            pair.append(empty)
            recordings.append(recording)
        blueprint = await _alike(project, pair, target)
        path = project.history.path("upgrade", (), target)
        step = whole(proven(recordings[0], recordings[1], project.history.impurities(path, "upgrade")))
        if isinstance(step, Step):
            tried = await _trial(project, tenant, replace(blueprint, step=step))
            if isinstance(tried, Blueprint):
                return tried
            step = tried
        made = await _snapshot(project, pair, recordings, blueprint)
        should = (await project.databases[tenant.server].definitions(pair[:1])).get(pair[0].id, ())
    # Only now: what a snapshot is filled from has the name of the first of them.
    if isinstance(made, Snapshot):
        tried = await _trial(project, tenant, replace(blueprint, snapshot=made, closed={REPLAY: step}), should)
        if isinstance(tried, Blueprint):
            return tried
        made = tried
    return replace(blueprint, closed={REPLAY: step, SNAPSHOT: made})


class _Different(Exception):
    """What one scratch tenant comes to says nothing about the next one; the message says why."""


async def _closed_where_different(building: Awaitable[Blueprint], ways: Sequence[str]) -> Blueprint:
    """What ``building`` comes to, with all ways closed where tenants need not come out alike."""
    try:
        return await building
    except Escaping as error:
        return Blueprint((), "", {}, closed=dict.fromkeys(ways, f"{error.touched}, and a scratch tenant must not"))
    except (_Different, NotReplayed) as error:
        return Blueprint((), "", {}, closed=dict.fromkeys(ways, str(error)))


async def _with_template(project: Project, tenant: Tenant, target: str, family: str, template: str) -> Blueprint:
    database, pair = project.databases[tenant.server], []
    async with AsyncExitStack() as places:
        for _ in range(_TWO):
            pair.append(await places.enter_async_context(scratch_tenant(project, tenant, target)))
        blueprint = replace(await _alike(project, pair, target), family=family)
        texts = await _texts(project, pair)
        # Also where one says its own name: each has another.
        problem = _passing(project.history) or (texts if isinstance(texts, str) else _differ(texts[0], texts[1]))
        kept = replace(blueprint, template=template)
        if problem is None:
            problem = await database.keep_template(pair[0], template, kept.as_json())
        return kept if problem is None else replace(blueprint, closed={TEMPLATE: problem})


async def _alike(project: Project, pair: Sequence[Tenant], target: str) -> Blueprint:
    """What two scratch tenants that went the same way have in common, before anything is known of the ways.

    Raises:
        _Different: they did not come out alike.
    """
    database, table = project.databases[pair[0].server], project.loop.version_table
    readings, shapes = await database.look(pair, table)
    if len(shapes) < len(pair) or len(set(shapes.values())) > 1 or len({readings[one.id].heads for one in pair}) > 1:
        raise _Different("two scratch tenants came out different: a definition says its tenant's name, or is random")
    options = asked_of_env(project, pair[0], target)
    return Blueprint(readings[pair[0].id].heads, shapes[pair[0].id], described(options))


def asked_of_env(project: Project, tenant: Tenant, target: str) -> dict[str, Any]:
    """What env.py configures Alembic with for ``tenant``, asked without a database.

    Raises:
        NotReplayed: it does more than that.
    """
    work = Work.of(project.history, "upgrade", target)
    with installed():
        return configured_for(project.history, project.loop, tenant, work.options)


async def _snapshot(
    project: Project, pair: Sequence[Tenant], recordings: Sequence[Watched], blueprint: Blueprint
) -> Snapshot | str:
    """What the first of a pair holds, or why it may not be copied."""
    one, other = pair
    assert one.schema is not None
    assert other.schema is not None
    problem = _passing(project.history) or next(filter(None, (each.abroad for each in recordings)), None)
    if problem is not None:
        return problem
    texts = await _texts(project, pair)
    if isinstance(texts, str):
        return texts
    if (difference := _differ(texts[0], texts[1], one.schema, other.schema)) is not None:
        return difference
    return snapshot(texts[0], one.schema, blueprint.heads) or "pg_dump's script does not begin as expected"


async def _trial(
    project: Project, like: Tenant, blueprint: Blueprint, should: Sequence[Definition] = ()
) -> Blueprint | str:
    """Make a third scratch tenant from ``blueprint``.

    Args:
        project: opened.
        like: a tenant of the kind that it is for.
        blueprint: with one way.
        should: what the first one holds, where that may print otherwise in what is made from it: a restored
            constraint with ``IN`` says each element's cast, and means the same.

    Returns:
        It, with the shape that comes of it; or why that is not what it should be.
    """
    database, table = project.databases[like.server], project.loop.version_table
    made = blueprint.step or blueprint.snapshot
    assert made is not None
    async with scratch_tenant(project, like, "base") as third:
        try:
            shape = await database.fill(third, made, None if should else blueprint.shape, table, _APPLICATION, Limits())
        except Exception as error:
            failure = describe(error)
            if failure.passing or failure.lost:
                raise
            return f"tried on a scratch tenant: {failure.message}"
        if shape != blueprint.shape:
            found = (await database.definitions([third])).get(third.id, ())
            if changes := differences(should, found):
                return f"a scratch tenant came out different: {told(changes[0])}"
        # It has another name: where its text still says the first one's, that text means the wrong schema.
        if isinstance(made, Snapshot) and made.schema in await database.text(third, _APPLICATION, Limits()):
            return "what it holds says the schema's own name: in a function, a row, a setting or a text"
    return replace(blueprint, shape=shape)


async def _texts(project: Project, pair: Sequence[Tenant]) -> list[str] | str:
    database = project.databases[pair[0].server]
    try:
        return list(await asyncio.gather(*(database.text(one, _APPLICATION, Limits()) for one in pair)))
    except BackupError as error:
        if error.passing:
            raise
        return error.message


def _differ(one: str, other: str, its_name: str = "", others_name: str = "") -> str | None:
    """Where two blueprints hold different things, names apart; rows are not repeated."""
    if its_name:
        one, other = one.replace(its_name, "-" * len(its_name)), other.replace(others_name, "-" * len(others_name))
    if one == other:
        return None
    lines = zip(one.splitlines(), other.splitlines(), strict=False)
    line = next((mine for mine, its in lines if mine != its), "")
    return f"two scratch tenants hold different things, near: {line[:_TOLD].split(' VALUES')[0]}"


def _passing(history: History) -> str | None:
    for script in history.script.walk_revisions():
        if (found := passing(Path(script.path))) is not None:
            return f"{script.revision} may depend on more than the database: {found}"
    return None


def _files(history: History) -> list[Path]:
    return [Path(script.path) for script in history.script.walk_revisions()]
