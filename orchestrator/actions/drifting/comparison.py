"""Tenants held against what the shared directory makes at their heads, or against one of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.actions.drifting.looking import Looking
from orchestrator.actions.project import Project
from orchestrator.actions.references import Reference, References, reference_of
from orchestrator.databases.definitions import Definition
from orchestrator.databases.failures import Failure
from orchestrator.errors import ServerUnreachable
from orchestrator.fleet.ignoring import IgnoreRule
from orchestrator.fleet.tenant import Tenant
from orchestrator.rollout.differences import Change, differences
from orchestrator.rollout.drift import REVISIONS, DriftReport, NotCompared, Shape, merged, report
from orchestrator.rollout.sightings import Kind, Sighting, unlike

#: Tenants whose definitions are held at once.
_READ_AT_ONCE = 50
_MOVED = Failure("moved", "it was migrated while it was looked at", hint="look again when nothing is being migrated")


async def compared(project: Project, looking: Looking, accepted: frozenset[str]) -> DriftReport:
    """Compare those who are being looked at, as :func:`orchestrator.drift` says.

    Args:
        project: opened.
        looking: who is looked at, and with whom they are to be compared.
        accepted: differences that are normal, as :func:`~orchestrator.rollout.baseline.load_baseline` has read them.
    """
    name = looking.against or REVISIONS
    comparison, references = _Comparison(project, accepted, looking.also), References(project, looking.also)
    try:
        if looking.against is not None:
            seen = await looking.seen(project.loop.version_table)
            todo = comparison.comparable(each for each in seen if each.tenant.id in looking.chosen)
            await comparison.with_tenant(seen[0], todo)
        else:
            seen = await looking.seen(project.loop.version_table, references.begin)
            await comparison.with_revisions(comparison.comparable(seen), references)
    finally:
        await references.close()
    return report(name, comparison.shapes, comparison.not_compared, list(looking.chosen))


@dataclass(slots=True)
class _Comparison:
    """Holds tenants against references, as they come."""

    project: Project
    accepted: frozenset[str]
    also: frozenset[str]
    shapes: list[Shape] = field(default_factory=list)
    not_compared: list[NotCompared] = field(default_factory=list)

    def comparable(self, seen: Iterable[Sighting]) -> list[Sighting]:
        """Those that can be compared; the others are noted."""
        graph = self.project.history.graph
        todo = []
        for sighting in seen:
            failure = unlike(sighting)
            if failure is not None:
                known = failure.type in ("unprovisioned", "unreadable")
                self._leave([sighting], failure, failure.type if known else "unreachable")
            elif unknown := graph.unknown(sighting.reading.heads):
                message = f"it is at {', '.join(unknown)}, which this directory does not have"
                failure = Failure("unknown_revision", message, hint="deploy the directory that has it")
                self._leave([sighting], failure)
            else:
                todo.append(sighting)
        return todo

    async def with_revisions(self, seen: Iterable[Sighting], references: References) -> None:
        """Each with what the shared directory makes at its heads."""
        kinds: dict[Kind, dict[tuple[str, ...], list[Sighting]]] = defaultdict(lambda: defaultdict(list))
        for sighting in seen:
            assert sighting.kind is not None
            kinds[sighting.kind][sighting.reading.heads].append(sighting)
        for kind, places in kinds.items():
            like = next(iter(places.values()))[0].tenant
            found = await references.made(kind, like, places)
            for heads, here in places.items():
                reference = found[heads]
                if isinstance(reference, Reference):
                    await self.compare(reference, here)
                else:
                    self._leave(here, reference)

    async def with_tenant(self, reference: Sighting, seen: Sequence[Sighting]) -> None:
        """All with one of them.

        Raises:
            ServerUnreachable: it cannot be read.
        """
        tenant, heads = reference.tenant, reference.reading.heads
        failure = unlike(reference)
        if failure is not None or reference.digest is None:
            message = failure.message if failure is not None else "it cannot be read"
            raise ServerUnreachable(f"tenant {tenant.id} is no reference: {message}", hint="name another one")
        alike = [each for each in seen if (each.kind, each.reading.heads) == (reference.kind, heads)]
        await self.compare(await reference_of(self.project, tenant, heads, reference.digest, self.also), alike)
        for sighting in seen:
            if sighting.reading.heads != heads:
                at, there = (", ".join(each) or "base" for each in (sighting.reading.heads, heads))
                message = f"it is at {at}, and {tenant.id} at {there}"
                self._leave([sighting], Failure("not_alike", message, hint="take a reference that is there, too"))
            elif sighting.kind != reference.kind:
                message = f"{_told(sighting.kind)} cannot be compared with {tenant.id}, {_told(reference.kind)}"
                self._leave([sighting], Failure("not_alike", message, hint="take a reference that is like it"))

    async def compare(self, reference: Reference, seen: Sequence[Sighting]) -> None:
        """Hold tenants at the reference's heads against it."""
        odd = [sighting for sighting in seen if sighting.digest != reference.digest]
        moved = await self._moved(odd)
        self._leave([each for each in odd if each.tenant.id in moved], _MOVED)
        groups: dict[str, list[Sighting]] = defaultdict(list)
        for sighting in seen:
            if sighting.tenant.id not in moved:
                groups[sighting.digest or ""].append(sighting)
        found, ignored = await self._differences(reference, groups)
        for digest in [digest for digest in groups if digest != reference.digest and digest not in found]:
            gone = Failure("unreadable", "its definitions could not be read in full", hint="try again")
            self._leave(groups.pop(digest), gone)
        if seen:
            kind = seen[0].kind
            assert kind is not None
            ids = {digest: [each.tenant.id for each in group] for digest, group in groups.items()}
            self.shapes += merged(kind, reference.heads, reference.digest, ids, found, ignored, self.accepted)

    async def _moved(self, odd: Sequence[Sighting]) -> frozenset[str]:
        """Who has been migrated between the reading of its heads and of its shape."""
        again = await self.project.inventory([sighting.tenant for sighting in odd]) if odd else None
        if again is None:
            return frozenset()
        return frozenset(
            sighting.tenant.id for sighting in odd if again.readings[sighting.tenant.id].heads != sighting.reading.heads
        )

    async def _differences(
        self, reference: Reference, groups: Mapping[str, Sequence[Sighting]]
    ) -> tuple[dict[str, tuple[Change, ...]], frozenset[str]]:
        """How each group's first tenant differs, by digest, and of which digests something is ignored.

        Groups are of equal digests: one tenant stands for all.
        """
        examples = {group[0].tenant: digest for digest, group in groups.items() if digest != reference.digest}
        if not examples:
            return {}, frozenset()
        # Before the first revision an empty version table is right, too: going back to base leaves it.
        always = () if reference.heads else (IgnoreRule(table=self.project.loop.version_table),)
        rules = (*self.project.fleet.ignore, *always)
        found: dict[str, tuple[Change, ...]] = {}
        ignored = set()
        async for tenant, definitions in self._read(examples):
            digest = examples[tenant]
            found[digest] = differences(reference.definitions, definitions, rules)
            if not found[digest] and differences(reference.definitions, definitions, always):
                ignored.add(digest)
        return found, frozenset(ignored)

    async def _read(self, tenants: Iterable[Tenant]) -> AsyncIterator[tuple[Tenant, Sequence[Definition]]]:
        for server, here in _by_server(tenants):
            for start in range(0, len(here), _READ_AT_ONCE):
                part = here[start : start + _READ_AT_ONCE]
                found = await self.project.databases[server].definitions(part, self.also)
                for tenant in part:
                    if tenant.id in found:
                        yield tenant, found[tenant.id]

    def _leave(self, seen: Iterable[Sighting], failure: Failure, state: str | None = None) -> None:
        self.not_compared += [NotCompared(each.tenant.id, state or failure.type, failure) for each in seen]


def _by_server(tenants: Iterable[Tenant]) -> Iterator[tuple[str, list[Tenant]]]:
    servers: dict[str, list[Tenant]] = defaultdict(list)
    for tenant in tenants:
        servers[tenant.server].append(tenant)
    yield from servers.items()


def _told(kind: Kind | None) -> str:
    if kind is None:
        return "what is not there"
    return f"{'a database' if kind.whole else 'a schema'} on {kind.dialect} {kind.version}"
