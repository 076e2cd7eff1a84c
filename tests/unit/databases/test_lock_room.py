"""What tenants at once may lock, held against the lock table."""

from __future__ import annotations

from orchestrator.databases.postgresql.lock_room import Locked, largest, lock_room
from orchestrator.history.reach import Reach

#: Room for 1,000 locks of ten sessions, of which 100 are taken.
FACTS = {"lock_room": 1000, "locks_taken": 100, "sessions": 10}


def found(*entries: int) -> list[Locked]:
    """Tenants t0, t1, ... whose largest transactions lock so many."""
    return [Locked(count, f"t{number}", "r7") for number, count in enumerate(entries)]


def test_the_largest_transaction_counts() -> None:
    """Revisions are committed one by one: not their sum, but the one over the largest tables and the most new ones."""
    work = [Reach("r1", frozenset({"users", "nothing"}), 0), Reach("r2", frozenset({"events"}), 2)]

    assert largest("a", work, {"users": 7, "events": 20, "others": 900}) == Locked(40, "a", "r2")
    assert largest("a", work[:1], {}) == Locked(8, "a", "r1")


def test_enough() -> None:
    """Half of what is free is left to the application."""
    finding = lock_room(FACTS, found(200, 250), 2)

    assert (finding.level, finding.hint) == ("ok", None)
    assert finding.message == "900 of 1000 locks are free; 2 tenants at once may lock 450 (revision r7 in t1: 250)"


def test_little() -> None:
    """It fits, and the application would be without: that is said, with what to set."""
    finding = lock_room(FACTS, found(200, 300), 2)

    assert finding.level == "note"
    assert finding.hint == "set max_locks_per_transaction = 110 and restart the server"


def test_too_little() -> None:
    """The largest tenants may meet; fewer at once would fit."""
    finding = lock_room(FACTS, found(10, 400, 20, 401, 400), 3)

    assert (finding.level, "3 tenants at once may lock 1201 (revision r7 in t3: 401)" in finding.message) == (
        "problem",
        True,
    )
    assert finding.hint is not None
    assert finding.hint.endswith("or max_concurrency: 2 for this server in tenants.yaml")


def test_too_little_for_one() -> None:
    """Where not even one fits, nothing is said of fewer."""
    finding = lock_room(FACTS, found(901), 4)

    assert (finding.level, finding.hint) == (
        "problem",
        "set max_locks_per_transaction = 191 and restart the server",
    )


def test_nothing_pending() -> None:
    """Without work nothing is needed."""
    assert lock_room(FACTS, [], 4).level == "ok"
