"""The benchmarks' arithmetic."""

from __future__ import annotations

import json

import pytest

from benchmarks.peers import COOKBOOK, OURS
from benchmarks.rows import against, faster
from benchmarks.run import lines
from benchmarks.verdicts import Figure, RowResult, Sample, Subject, extrapolate, ratio


def subject(name: str, *walls: float, tenants: int = 10, **more: object) -> Subject:
    """Somebody whose runs took these seconds."""
    return Subject(name, tenants, tuple(Sample(wall, wall / 2, 1024) for wall in walls), **more)


def test_seconds_are_the_median() -> None:
    """One slow run does not count, whichever it was."""
    assert subject(OURS, 9.0, 1.0, 2.0).seconds(10) == 2.0


def test_start_up_is_paid_once() -> None:
    """Ten times the tenants take ten times what is not start-up."""
    assert extrapolate(3.0, 1.0, measured=10, wanted=100) == 1.0 + 2.0 * 10
    assert extrapolate(3.0, 0.0, measured=10, wanted=100) == 30.0


def test_an_idle_run_for_a_few_tenants_has_their_part_in_it() -> None:
    """Two points on a line: 3 s for 10 and 2 s for 6 are 0.25 s for each."""
    assert extrapolate(3.0, 2.0, measured=10, wanted=106, started=6) == 2.0 + 0.25 * 100


def test_what_was_measured_is_not_extrapolated() -> None:
    """At the count itself the run is the answer, even where it was quicker than the idle one."""
    assert extrapolate(1.0, 2.0, measured=10, wanted=10) == 1.0
    assert extrapolate(1.0, 2.0, measured=10, wanted=20) == 2.0


def test_cost_takes_start_up_off() -> None:
    """Wall and processor time per tenant, without what is there for no tenant; unknown without an idle run."""
    idle = (Sample(1.0, 0.5, 1024),)
    measured = subject(OURS, 6.0, idle=idle)
    assert measured.cost_s() == 0.5
    assert measured.processor_s() == 0.25
    assert subject(OURS, 6.0, idle=idle, idle_tenants=2).cost_s() == pytest.approx(5 / 8)
    assert subject(OURS, 6.0).cost_s() is None


def test_processor_time_is_the_smallest() -> None:
    """What other programs add to a run's, or to an idle run's, is not taken for the work's."""
    idle = (Sample(1.0, 0.9, 1), Sample(1.0, 0.5, 1), Sample(1.0, 0.8, 1))
    assert subject(OURS, 8.0, 6.0, 7.0, idle=idle).processor_s() == 0.25


@pytest.mark.parametrize(("value", "verdict"), [(1.5, "ok"), (1.51, "short"), (None, "missing")])
def test_at_most(value: float | None, verdict: str) -> None:
    """The goal itself is reached; what is missing reaches nothing."""
    figure = Figure("ours : theirs", value, 1.5, at_most=True)
    assert (figure.verdict, figure.ok) == (verdict, verdict == "ok")


@pytest.mark.parametrize(("value", "verdict"), [(4.0, "ok"), (3.99, "short"), (None, "missing")])
def test_at_least(value: float | None, verdict: str) -> None:
    """The same for how many times quicker ours is."""
    assert Figure("theirs : ours", value, 4, at_most=False).verdict == verdict


def test_ratios_of_a_row() -> None:
    """Ours to a peer and a peer to ours, both for the row's count."""
    found = [subject(OURS, 2.0), subject(COOKBOOK, 10.0), subject("psql", 3.0, tenants=20)]
    assert against(found, COOKBOOK, 10, 1).value == 0.2
    assert faster(found, COOKBOOK, 10, 1).value == 5.0
    # Without an idle run half of the tenants take half of the time.
    assert faster(found, "psql", 10, 1).value == 0.75


def test_nobody_wins_against_who_is_missing() -> None:
    """A peer that failed, or is not there, leaves the goal unreached."""
    found = [subject(OURS, 2.0), subject(COOKBOOK, problem="no psycopg")]
    figures = (faster(found, COOKBOOK, 10, 4), against(found, "psql", 10, 1.5))
    row = RowResult("name", "work", 10, tuple(found), figures)
    assert [figure.verdict for figure in figures] == ["missing", "missing"]
    assert not row.ok
    assert "cookbook loop failed" in lines(row)[-1]
    assert ratio(1.0, 0.0) is None


def test_a_row_without_figures_reaches_nothing() -> None:
    """No figure, no goal reached."""
    assert not RowResult("name", "work", 10, (), ()).ok


def test_a_row_in_which_somebody_failed_is_not_whole() -> None:
    """Also where no goal is held against him: the table would have a hole."""
    figures = (Figure("a : b", 1.0, 2, at_most=True),)
    assert RowResult("name", "work", 10, (subject(OURS, 1.0),), figures).ok
    assert not RowResult("name", "work", 10, (subject(OURS, 1.0), subject("d", problem="no")), figures).ok


def test_results_survive_their_file() -> None:
    """What is written as JSON comes back the same."""
    found = (subject(OURS, 1.0, idle=(Sample(0.5, 0.1, 7),), idle_tenants=3), subject("psql", problem="none"))
    row = RowResult("name", "work", 10, found, (Figure("a : b", None, 2, at_most=True),), ("a note",))
    assert RowResult.from_json(json.loads(json.dumps(row.as_json()))) == row
