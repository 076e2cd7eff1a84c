"""The arithmetic: medians, what a smaller count says about a larger one, and whether a goal is reached. No IO."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run of a command took."""

    #: Seconds from its start to its end.
    wall_s: float
    #: Seconds of processor time, user and system, of it and its children.
    cpu_s: float
    #: Most memory that one of its processes held, in KiB.
    peak_kib: int


@dataclass(frozen=True, slots=True)
class Subject:
    """Who was measured, and what was found."""

    name: str
    #: How many tenants each run was for.
    tenants: int
    #: One for each repetition.
    samples: tuple[Sample, ...] = ()
    #: The same program started with little or nothing to do; empty where nobody needs it.
    idle: tuple[Sample, ...] = ()
    #: How many tenants the idle runs were for.
    idle_tenants: int = 0
    #: Why there are no samples, where there are none.
    problem: str | None = None

    def seconds(self, tenants: int) -> float | None:
        """Wall time for ``tenants``: the median, extrapolated where the runs were for another number."""
        if not self.samples:
            return None
        wall = statistics.median(sample.wall_s for sample in self.samples)
        start = statistics.median(sample.wall_s for sample in self.idle) if self.idle else 0.0
        return extrapolate(wall, start, self.tenants, tenants, self.idle_tenants)

    def cost_s(self) -> float | None:
        """Wall time per tenant, start-up taken off: of the medians; ``None`` without both measurements."""
        if not self.samples or not self.idle:
            return None
        whole, start = (statistics.median(each.wall_s for each in runs) for runs in (self.samples, self.idle))
        return (whole - start) / (self.tenants - self.idle_tenants)

    def processor_s(self) -> float | None:
        """Processor time per tenant, start-up taken off; ``None`` without both measurements.

        Of the smallest, not of the medians: what else runs on a core only ever adds to it, and the difference is small.
        """
        if not self.samples or not self.idle:
            return None
        whole, start = (min(each.cpu_s for each in runs) for runs in (self.samples, self.idle))
        return (whole - start) / (self.tenants - self.idle_tenants)

    def peak_kib(self) -> float | None:
        """Median of the peaks."""
        return statistics.median(sample.peak_kib for sample in self.samples) if self.samples else None


@dataclass(frozen=True, slots=True)
class Figure:
    """One number, and the goal it is held against."""

    #: What the number is, such as ``orchestrator : psql``.
    what: str
    #: ``None`` where it could not be measured, which reaches no goal.
    value: float | None
    goal: float
    #: Whether the goal is the most that it may be; else it is the least.
    at_most: bool
    #: ``x`` for a ratio, else the unit.
    unit: str = "x"

    @property
    def ok(self) -> bool:
        """Whether the goal is reached."""
        if self.value is None:
            return False
        return self.value <= self.goal if self.at_most else self.value >= self.goal

    @property
    def verdict(self) -> str:
        """``ok``, ``short`` or ``missing``."""
        return "missing" if self.value is None else "ok" if self.ok else "short"


@dataclass(frozen=True, slots=True)
class RowResult:
    """One line of the goals' table, measured."""

    name: str
    #: The work, in words.
    work: str
    #: Number of tenants that every subject's seconds are for.
    tenants: int
    subjects: tuple[Subject, ...]
    figures: tuple[Figure, ...]
    #: What a reader must know beside the numbers.
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every goal is reached, and nobody failed."""
        failed = any(subject.problem for subject in self.subjects)
        return bool(self.figures) and not failed and all(figure.ok for figure in self.figures)

    def as_json(self) -> dict[str, Any]:
        """Itself as plain values; :meth:`from_json` turns them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> RowResult:
        """A row that :meth:`as_json` wrote."""
        subjects = tuple(_subject(each) for each in document["subjects"])
        figures = tuple(Figure(**each) for each in document["figures"])
        plain = {key: document[key] for key in ("name", "work", "tenants")}
        return cls(**plain, subjects=subjects, figures=figures, notes=tuple(document["notes"]))


def extrapolate(wall: float, start: float, measured: int, wanted: int, started: int = 0) -> float:
    """Seconds for ``wanted`` tenants from a run for ``measured``: start-up is paid once, the rest per tenant.

    Args:
        wall: seconds of the run.
        start: seconds of the run for ``started`` tenants.
        measured: tenants of the run, more than ``started``.
        wanted: tenants asked about.
        started: tenants whose part is in ``start``: none where the program had nothing to do, a few where there is work
            that is only done once.
    """
    if measured == wanted:
        return wall
    return start + max(wall - start, 0.0) * (wanted - started) / (measured - started)


def ratio(of: float | None, to: float | None) -> float | None:
    """``of / to``; ``None`` where either is missing or there is nothing to divide by."""
    return None if of is None or not to else of / to


def _subject(document: Mapping[str, Any]) -> Subject:
    samples, idle = (tuple(Sample(**each) for each in document[key]) for key in ("samples", "idle"))
    return Subject(document["name"], document["tenants"], samples, idle, document["idle_tenants"], document["problem"])
