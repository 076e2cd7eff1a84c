"""A rehearsal's document in words: what matters, worst first, each once."""

from __future__ import annotations

from typing import Any

from orchestrator.rollout import rehearsal_telling as telling
from orchestrator.rollout.rehearsal_report import report


def lock(table: str, mode: str, held_ms: float, blocks: str | None) -> dict[str, Any]:
    """As measured."""
    return {"table": table, "mode": mode, "held_ms": held_ms, "blocks": blocks}


def measured(*locks: dict[str, Any], ms: float = 10.0, wal: int | None = 1000, **more: Any) -> dict[str, Any]:
    """One direction of a revision."""
    found = {"duration_ms": ms, "sql_ms": ms, "transaction_ms": ms, "locks": list(locks), "rows_written": {}}
    return {**found, "rewritten": [], "wal_bytes": wal, "outside_transaction": False, **more}


def revision(name: str, up: dict[str, Any], again: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A revision on a clone."""
    found = {"revision": name, "message": f"about {name}", "up": up, "down": None, "again": again}
    return {**found, "back": "same", "error": None, "difference": [], **more}


def clone(tenant: str, *revisions: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A clone that is fine."""
    found = {"tenant": tenant, "picked": ["named"], "from": ["r0"], "ok": True, "way": "pg_dump", "clone_s": 1.0}
    found |= {"bytes": 8_000_000, "error": None, "revisions": list(revisions), "again_same": True, "again_error": None}
    return {**found, "changed_rows": [], "overhead_ms": 5.0, "notes": [], "not_measured": [], **more}


def document(*clones: dict[str, Any], **estimate: Any) -> dict[str, Any]:
    """What ``rehearse --json`` prints."""
    known = {"s": 12.34, "low_s": 8.0, "high_s": 20.0, "tenants": 300, "longest": {"tenant": "acme", "s": 3.0}}
    known |= {"unknown_tenants": 0, "not_rehearsed": [], "bake_s": 0.0, "beyond": None}
    found = {"run": "run", "command": "rehearse", "target": ["r2"], "ok": True, "pending": 300, "losses": []}
    return {**found, "clones": list(clones), "estimate": {**known, **estimate}, "notes": []}


WRITES, ALL = "writes", "reads and writes"


def test_the_worst_lock_of_each_table_comes_first() -> None:
    """On the clone that held it longest; a weaker one beside a stronger one only where it was held longer."""
    found = document(
        clone("acme", revision("r1", measured(lock("a", "ShareLock", 900, WRITES), lock("b", "ShareLock", 5, WRITES)))),
        clone(
            "globex",
            revision(
                "r1",
                measured(lock("a", "AccessExclusiveLock", 10, ALL), lock("b", "RowExclusiveLock", 99, None)),
                measured(lock("a", "AccessExclusiveLock", 30, ALL), lock("b", "ShareLock", 40, WRITES)),
            ),
        ),
    )
    told = [(each.table, each.mode, each.held_ms, each.tenant) for each in telling.locks(found)]
    strong = ("a", "AccessExclusiveLock", 30, "globex")
    assert told == [("a", "ShareLock", 900, "acme"), ("b", "ShareLock", 40, "globex"), strong]
    found["clones"][0]["revisions"][0]["up"]["locks"][0]["held_ms"] = 20
    assert [each.mode for each in telling.locks(found)] == ["ShareLock", "AccessExclusiveLock"]


def test_rows_that_are_changed_are_locked_to_the_commit() -> None:
    """However short the ALTER after it was: the UPDATE's rows keep whoever would write them waiting all the time."""
    update, alter = lock("a", "RowExclusiveLock", 3000, None), lock("a", "AccessExclusiveLock", 20, ALL)
    found = document(
        clone("acme", revision("r1", measured(update, alter, rows_changed={"a": 200_000}))),
        clone("globex", revision("r1", measured(rows_changed={"a": 5}), measured(ms=4.0, rows_changed={"a": 1}))),
    )
    told = [(each.table, each.mode, each.blocks, each.held_ms, each.tenant) for each in telling.locks(found)]
    assert told == [
        ("a", "row locks", "writes to 200,000 rows", 3000, "acme"),
        ("a", "AccessExclusiveLock", ALL, 20, "acme"),
    ]
    # A stronger lock on the whole table, held as long, says it all.
    alter["held_ms"] = 3000
    assert [each.mode for each in telling.locks(found)] == ["AccessExclusiveLock"]


def test_what_cannot_be_undone() -> None:
    """What a revision throws away, what its way back leaves or lacks, and rows that came back otherwise; each once."""
    left = {"back": "different", "difference": ["extra column a.b"]}
    none = {"back": "none", "error": {"message": "it cannot"}}
    found = document(
        clone("acme", revision("r1", measured(), **left), revision("r2", measured(), **none)),
        clone("globex", revision("r1", measured(), **left), changed_rows=["a: 3 rows before, 2 after, not the same"]),
    )
    found["losses"] = [{"revision": "r2", "table": "a", "detail": "drop_column a.c", "line": 7}]
    assert telling.not_undone(found) == [
        ("r2", "", "may throw data away: drop_column a.c"),
        ("r1", "acme", "after its downgrade(): extra column a.b"),
        ("r2", "acme", "no way back: it cannot"),
        ("", "globex", "up and back, a: 3 rows before, 2 after, not the same"),
    ]


def test_verdicts() -> None:
    """One line says it: nothing to do, failed, not back as it was, or the same each time."""
    failed = clone("acme", ok=False, error={"message": "no", "revision": "r1", "statement": None, "hint": None})
    wrong = clone("acme", revision("r1", measured(), back="different"), ok=False)
    assert telling.verdict(document()).startswith("nothing to rehearse")
    assert telling.verdict(document(failed, clone("b"))) == "rehearsed to r2 on 2 clones: 1 failed"
    assert telling.verdict(document(wrong)) == "rehearsed to r2 on 1 clone: all went up, 1 not back as it was"
    assert telling.verdict(document(clone("a"))) == "rehearsed to r2 on 1 clone: up, down and up, each time the same"


def test_the_estimate_says_what_it_does_not_know() -> None:
    """Seconds with their range; then whom it is a guess for, what bakes, and who has more to run than was rehearsed."""
    lines = telling.estimate(document(clone("a")))
    assert lines == ["a run over 300 tenants takes about 12.3 s (8.0 s to 20.0 s); acme takes longest, 3.0 s"]
    unsure = {"unknown_tenants": 4, "not_rehearsed": ["r7"], "bake_s": 600, "beyond": {"tenant": "big", "times": 41.3}}
    _, guess, bakes, unknown = telling.estimate(document(clone("a"), **unsure))
    assert "big is 41 times as large as any clone" in guess
    assert "10 min" in bakes
    assert unknown.endswith("4 tenants that have revisions to run which no clone ran: r7")
    assert telling.estimate(document(clone("a"), s=None)) == []


def test_compared_with_the_run() -> None:
    """A run's line says what had been said, what it took, and whether that was within it."""
    found = {"rehearsal": "id", "s": 10.0, "low_s": 6.0, "high_s": 16.0, "tenants": 3}
    found |= {"unforeseen": 0, "not_replayed": 0}
    assert telling.compared({**found, "measured_s": 12.0}).endswith("it took 12.0 s, 1.2 times that: as expected")
    assert telling.compared({**found, "measured_s": 30.0}).endswith("outside of what was expected")
    # The spread holds it, and says little: nobody expected that.
    wide = {**found, "s": 0.14, "low_s": 0.01, "high_s": 0.54}
    for seconds in (0.41, 0.05):
        told = telling.compared({**wide, "measured_s": seconds})
        assert told.endswith("times that: within the spread that it gave, and not near what it said")
    assert telling.compared({**found, "measured_s": 30.0, "not_replayed": 2}).endswith(
        "2 went through Alembic, and were to be replayed"
    )


def test_the_report_means_nothing_to_markdown() -> None:
    """Names and messages that look like Markdown stand in the report as they are."""
    told = report(document(clone("a|b", revision("r1", measured(lock("x`y", "ShareLock", 1, WRITES))))))
    assert "a|b" not in told
    assert "x`y" not in told
    assert "## Keeps the application waiting" in told
