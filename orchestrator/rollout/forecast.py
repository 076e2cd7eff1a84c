"""How long a run will take, from what its revisions took on clones. Pure.

A revision takes a fixed time, and more the larger the tables are that it touches. Both are fitted to what clones of
several sizes took, an empty one among them. What a tenant takes is the sum over its path; what the run takes follows
from dealing its tenants to the places that each server's budget has, where they are in each other's way.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

#: However alike all measurements are, a run meets caches and neighbours that a rehearsal does not: the estimate's range
#: is never narrower than from this part of it to this multiple.
_LEAST_SPREAD = (0.6, 1.6)
#: How much of what one tenant takes each other one adds to it that is under way on its server: they share processors,
#: disks and log. Usually, at best, at worst. (300 small schemas, 16 at once on 2 processors, ran 4 times as fast as one
#: by one.)
_IN_THE_WAY = (0.2, 0.0, 0.5)


@dataclass(frozen=True, slots=True)
class Sample:
    """What one revision took on one clone, once."""

    #: Bytes of the tables that it touches, as the tenant has them.
    size: int
    ms: float
    #: Of it, what the database took.
    sql_ms: float


@dataclass(frozen=True, slots=True)
class Rate:
    """What one revision takes on a tenant of a certain size."""

    fixed_ms: float
    ms_per_byte: float
    #: Of that, the part that the database takes.
    sql_fixed_ms: float
    sql_ms_per_byte: float
    #: Least and greatest part of the fitted time that was measured.
    low: float
    high: float

    def ms(self, size: int) -> float:
        """Milliseconds, through Alembic."""
        return self.fixed_ms + self.ms_per_byte * size

    def sql_ms(self, size: int) -> float:
        """Milliseconds of the database alone."""
        return min(self.ms(size), self.sql_fixed_ms + self.sql_ms_per_byte * size)


@dataclass(frozen=True, slots=True)
class Takes:
    """What one tenant is thought to take."""

    tenant: str
    #: The physical server that it is on.
    identity: str
    ms: float
    #: Of it, what this process computes: of all tenants, one after the other.
    own_ms: float
    #: The whole of it at the best and at the worst.
    low_ms: float
    high_ms: float
    #: Nothing of it goes through Alembic.
    replayed: bool = False

    def as_json(self) -> list[Any]:
        """How a rehearsal keeps it."""
        times = (round(each, 2) for each in (self.ms, self.own_ms, self.low_ms, self.high_ms))
        return [self.identity, *times, self.replayed]

    @classmethod
    def from_json(cls, tenant: str, kept: Sequence[Any]) -> Takes:
        """What :meth:`as_json` gave."""
        ms, own_ms, low_ms, high_ms = (float(each) for each in kept[1:5])
        return cls(tenant, str(kept[0]), ms, own_ms, low_ms, high_ms, bool(kept[5]))


@dataclass(frozen=True, slots=True)
class Range:
    """Seconds: what is expected, and what it may be."""

    seconds: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        """Three keys of the estimate."""
        return {"s": round(self.seconds, 3), "low_s": round(self.low, 3), "high_s": round(self.high, 3)}


def fitted(samples: Sequence[Sample]) -> Rate:
    """Fit a revision's time to what was measured: by least squares, through the mean of the smallest clones.

    Args:
        samples: at least one.
    """
    fixed, slope = _line([(each.size, each.ms) for each in samples])
    sql_fixed, sql_slope = _line([(each.size, each.sql_ms) for each in samples])
    parts = [each.ms / max(fixed + slope * each.size, 0.001) for each in samples]
    return Rate(fixed, slope, sql_fixed, sql_slope, min(1.0, *parts), max(1.0, *parts))


def _line(points: Sequence[tuple[int, float]]) -> tuple[float, float]:
    least = min(size for size, _ in points)
    smallest = [ms for size, ms in points if size == least]
    start = sum(smallest) / len(smallest)
    spread = sum((size - least) ** 2 for size, _ in points)
    slope = sum((size - least) * (ms - start) for size, ms in points) / spread if spread else 0.0
    slope = max(slope, 0.0)
    # Where the smallest one is not empty, the line is followed down to nothing, and no further.
    return max(start - slope * least, 0.0), slope


def takes(
    tenant: str,
    identity: str,
    path: Iterable[str],
    rates: Mapping[str, Rate],
    sizes: Mapping[str, int],
    replayed: frozenset[str],
    overhead_ms: tuple[float, float],
) -> Takes | None:
    """What ``path`` takes on one tenant; ``None`` where a revision of it was not rehearsed.

    Args:
        tenant: its id.
        identity: the physical server that it is on.
        path: its pending revisions.
        rates: what was fitted, by revision.
        sizes: bytes of the tables that each revision touches, as this tenant has them, by revision.
        replayed: revisions that go to it as recorded SQL, without Alembic.
        overhead_ms: what a tenant takes beside its revisions, through Alembic and replayed.
    """
    total = own = low = high = 0.0
    through_alembic = False
    for revision in path:
        rate = rates.get(revision)
        if rate is None:
            return None
        size = sizes.get(revision, 0)
        ms, sql = rate.ms(size), rate.sql_ms(size)
        if revision in replayed:
            ms = sql
        else:
            through_alembic = True
            own += ms - sql
        total, low, high = total + ms, low + ms * rate.low, high + ms * rate.high
    beside = overhead_ms[0] if through_alembic else overhead_ms[1]
    total, low, high, own = total + beside, low + beside, high + beside, own + beside / 2
    low, high = min(low, total * _LEAST_SPREAD[0]), max(high, total * _LEAST_SPREAD[1])
    return Takes(tenant, identity, total, own, low, high, replayed=not through_alembic)


def run_time(waves: Iterable[Sequence[Takes]], caps: Mapping[str, int]) -> Range:
    """What a run takes from its first tenant to its last.

    Args:
        waves: who is in each, in the order in which they start.
        caps: tenants at once on each physical server, by its identity.
    """
    made = [list(wave) for wave in waves]
    usual, best, worst = _IN_THE_WAY
    return Range(
        sum(_wave([(each.identity, each.ms, each.own_ms) for each in wave], caps, usual) for wave in made),
        sum(_wave([(each.identity, each.low_ms, 0.0) for each in wave], caps, best) for wave in made),
        sum(_wave([(each.identity, each.high_ms, each.own_ms) for each in wave], caps, worst) for wave in made),
    )


def _wave(tenants: Sequence[tuple[str, float, float]], caps: Mapping[str, int], in_the_way: float) -> float:
    """Seconds: the slowest server's; at least what this process computes."""
    by_server: dict[str, list[float]] = defaultdict(list)
    for identity, ms, _ in tenants:
        by_server[identity].append(ms)
    servers = (_server(durations, caps.get(identity, 1), in_the_way) for identity, durations in by_server.items())
    return max(max(servers, default=0.0), sum(own for _, _, own in tenants)) / 1000


def _server(durations: Sequence[float], cap: int, in_the_way: float) -> float:
    """Milliseconds that one server needs for tenants of so many milliseconds each, taking them in order.

    All that are under way at once come on at one pace, which is slower the more they are.
    """
    waiting = iter(durations)
    # When each of those under way will be through, by a clock that goes at their pace.
    ends = list(islice(waiting, max(1, cap)))
    heapq.heapify(ends)
    now = took = 0.0
    while ends:
        pace = 1 + in_the_way * (len(ends) - 1)
        end = heapq.heappop(ends)
        took, now = took + (end - now) * pace, end
        following = next(waiting, None)
        if following is not None:
            heapq.heappush(ends, now + following)
    return took
