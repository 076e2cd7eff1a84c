"""Cut a wave's tenants into chunks that workers are given: each of one physical server and one kind. Pure."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.rollout.plan import PlannedTenant, kind_of

#: Tenants of a chunk: at least, where there are so many, and at most. The engine's work on a chunk costs as much as the
#: replay of some tenants, and a worker that dies has the whole chunk looked at again.
SMALLEST, LARGEST = 10, 100
#: Chunks that each place on a server is to have at least, so that all places end at about the same time.
_PER_PLACE = 3
#: Of what a server takes, so much is to be used at least.
_USED = 0.75


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tenants that one worker is given at once."""

    #: The physical server.
    server: str
    #: Chunks at once on that server: which queue it goes to.
    places: int
    #: Tenants at once within the chunk: times ``places``, never more than the server's budget.
    width: int
    tenants: tuple[PlannedTenant, ...]
    #: How often these tenants were given out before, and came back undone.
    rounds: int = 0

    def left(self, names: Iterable[str]) -> Chunk:
        """What is left of it."""
        left = frozenset(names)
        tenants = tuple(each for each in self.tenants if each.tenant.id in left)
        return Chunk(self.server, self.places, self.width, tenants, self.rounds + 1)


def cut(
    todo: Sequence[PlannedTenant],
    budgets: Mapping[str, tuple[str, int]],
    known: Iterable[int],
    jobs: int | None = None,
) -> dict[str, deque[Chunk]]:
    """The chunks for ``todo``, by physical server, in the order in which to begin.

    Args:
        todo: in the order in which to begin.
        budgets: each server's physical identity and how many tenants it takes at once, by name.
        known: numbers of chunks at once that there are queues for; 1 is among them.
        jobs: tenants at once over all; ``None`` for whatever the servers take.
    """
    caps: dict[str, int] = {}
    for identity, cap in budgets.values():
        caps[identity] = min(cap, caps.get(identity, cap))
    of_servers: dict[str, list[PlannedTenant]] = defaultdict(list)
    for planned in todo:
        of_servers[budgets[planned.tenant.server][0]].append(planned)
    found: dict[str, deque[Chunk]] = {}
    for identity, tenants in of_servers.items():
        cap = caps[identity] if jobs is None else min(caps[identity], jobs)
        # With few tenants, a chunk for each place would be smaller than what it costs.
        wanted = min(cap, max(1, len(tenants) // SMALLEST))
        places = max(number for number in known if number <= wanted and _fills(number, cap))
        chunks = [
            Chunk(identity, places, cap // places, part)
            for alike in _alike(tenants)
            for part in _parts(alike, places, cap // places)
        ]
        begin = {each.tenant.id: number for number, each in enumerate(tenants)}
        found[identity] = deque(sorted(chunks, key=lambda chunk: begin[chunk.tenants[0].tenant.id]))
    return found


def _fills(places: int, cap: int) -> bool:
    """Whether so many chunks of equal width leave no more than a quarter of ``cap`` unused; 1 always does."""
    return places * (cap // places) >= _USED * cap


def _alike(tenants: Sequence[PlannedTenant]) -> Iterable[Sequence[PlannedTenant]]:
    kinds: dict[object, list[PlannedTenant]] = defaultdict(list)
    for planned in tenants:
        # Two declarations of one server have connections of their own.
        kinds[planned.tenant.server, kind_of(planned)].append(planned)
    return kinds.values()


def _parts(tenants: Sequence[PlannedTenant], places: int, width: int) -> Iterable[tuple[PlannedTenant, ...]]:
    """As many equal parts as there is room for, in order."""
    size = min(LARGEST * width, max(SMALLEST, math.ceil(len(tenants) / (places * _PER_PLACE))))
    count = max(1, min(len(tenants) // SMALLEST, math.ceil(len(tenants) / size)))
    least, more = divmod(len(tenants), count)
    at = 0
    for number in range(count):
        end = at + least + (number < more)
        yield tuple(tenants[at:end])
        at = end
