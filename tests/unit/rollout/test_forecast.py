"""How long a run will take, from what clones took."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.journal.records import AttemptRecord
from orchestrator.rollout.forecast import Rate, Sample, Takes, fitted, run_time, takes
from orchestrator.rollout.foretold import foretold
from orchestrator.statuses import TenantStatus

_NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


def flat(ms: float) -> Rate:
    """A revision that takes the same whatever the size, half of it in the database."""
    return Rate(ms, 0.0, ms / 2, 0.0, 1.0, 1.0)


def at(tenant: str, seconds: float, identity: str = "main") -> Takes:
    """A tenant that takes so long, all of it in the database."""
    return Takes(tenant, identity, seconds * 1000, 0.0, seconds * 500, seconds * 2000)


def test_one_size_says_nothing_of_others() -> None:
    """From clones of one size, a revision is thought to take the same on everybody."""
    rate = fitted([Sample(1000, 10.0, 8.0), Sample(1000, 30.0, 28.0)])
    assert (rate.ms(0), rate.ms(10**9)) == (20.0, 20.0)
    assert (rate.low, rate.high) == (0.5, 1.5)


def test_a_line_through_empty_and_large() -> None:
    """With an empty clone beside a large one, what lies between is in proportion; a larger one takes longer still."""
    rate = fitted([Sample(0, 5.0, 2.0), Sample(1000, 105.0, 102.0)])
    assert rate.ms(500) == pytest.approx(55.0)
    assert rate.ms(2000) == pytest.approx(205.0)
    assert rate.sql_ms(500) == pytest.approx(52.0)


def test_never_shorter_for_being_larger() -> None:
    """Where the larger clone happened to be quicker, size does not count, rather than the other way round."""
    rate = fitted([Sample(0, 50.0, 40.0), Sample(1000, 10.0, 5.0)])
    assert rate.ms(10**9) == rate.ms(0) == 50.0


def test_the_smallest_is_followed_down_to_nothing() -> None:
    """Two clones that are both large: an empty tenant does not take less than no time."""
    rate = fitted([Sample(1000, 100.0, 100.0), Sample(2000, 300.0, 300.0)])
    assert rate.ms(0) == 0.0


def test_a_path_is_the_sum_of_its_revisions() -> None:
    """Through Alembic with what it takes beside them; a revision that was not rehearsed makes it unknown."""
    rates = {"r1": flat(10.0), "r2": flat(30.0)}
    found = takes("acme", "main", ("r1", "r2"), rates, {}, frozenset(), (5.0, 1.0))
    assert found is not None
    assert (found.ms, found.own_ms) == (45.0, 22.5)
    assert found.low_ms <= found.ms * 0.6
    assert found.high_ms >= found.ms * 1.6
    assert takes("acme", "main", ("r1", "r3"), rates, {}, frozenset(), (5.0, 1.0)) is None


def test_what_is_replayed_takes_what_the_database_takes() -> None:
    """Sent as recorded, a revision costs its SQL alone, and the tenant less beside it."""
    found = takes("acme", "main", ("r1",), {"r1": flat(10.0)}, {}, frozenset({"r1"}), (5.0, 1.0))
    assert found is not None
    assert (found.ms, found.own_ms, found.replayed) == (6.0, 0.5, True)
    assert Takes.from_json("acme", found.as_json()).replayed


def test_budgets_and_waves() -> None:
    """Tenants are dealt to the places that a server has; servers work at once, waves one after the other."""
    four = [at(str(number), 1.0) for number in range(4)]
    assert run_time([four], {"main": 1}).seconds == pytest.approx(4.0)
    # All at once, each of the others adds a fifth.
    assert run_time([four], {"main": 4}).seconds == pytest.approx(1.6)
    assert run_time([four[:1], four[1:]], {"main": 4}).seconds == pytest.approx(1 + 1.4)
    both = [at("a", 3.0), at("b", 2.0, "eu")]
    assert run_time([both], {"main": 1, "eu": 1}).seconds == pytest.approx(3.0)


def test_who_is_left_alone_is_not_held_up() -> None:
    """A tenant that takes long is slower for as long as others are at it, too, and no longer."""
    assert run_time([[at("large", 10.0), at("small", 1.0)]], {"main": 2}).seconds == pytest.approx(1 * 1.2 + 9)


def test_the_range() -> None:
    """At the best, tenants take their shortest and are in nobody's way; at the worst their longest, and much so."""
    four = [at(str(number), 1.0) for number in range(4)]
    found = run_time([four], {"main": 4})
    assert (found.low, found.seconds, found.high) == pytest.approx((0.5, 1.6, 2 * 2.5))


def test_this_process_computes_for_one_after_the_other() -> None:
    """However many places there are: what Alembic computes is computed once for each tenant, in one process."""
    many = [Takes(str(number), "main", 10.0, 8.0, 10.0, 10.0) for number in range(100)]
    assert run_time([many], {"main": 100}).seconds == pytest.approx(0.8)


def attempt(tenant: str, began: float, ended: float, wave: str = "all", *, moved: bool = True) -> AttemptRecord:
    """A tenant that was migrated between two moments, in seconds."""
    to = ("r2",) if moved else ("r1",)
    moments = (_NOON + timedelta(seconds=each) for each in (began, ended))
    return AttemptRecord("run", tenant, wave, TenantStatus.SUCCEEDED, ("r1",), to, 1, 1.0, None, None, *moments)


def test_only_those_that_the_run_has_migrated() -> None:
    """Compared over the tenants that were migrated; what lies between two waves, and who had nothing to do, is not."""
    kept = {"takes": {name: at(name, 2.0).as_json() for name in ("a", "b", "c")}, "caps": {"main": 1}}
    attempts = [attempt("a", 0, 2, "canary"), attempt("b", 600, 603, "rest"), attempt("new", 601, 604, "rest")]
    found = foretold("rehearsal", kept, [*attempts, attempt("c", 604, 604, "rest", moved=False)])
    assert found is not None
    assert (found["s"], found["measured_s"]) == (4.0, 6.0)
    assert (found["tenants"], found["unforeseen"], found["not_replayed"]) == (3, 1, 0)
    assert foretold("rehearsal", kept, [attempt("new", 0, 1)]) is None
