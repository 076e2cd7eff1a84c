"""What of a tenant's way is a run's own."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from orchestrator.history.graph import Graph
from orchestrator.journal.records import Actor, AttemptRecord, RunRecord
from orchestrator.rollout.share import Change, Share, added, by_tenant, led, may_have_moved
from orchestrator.statuses import RunStatus, TenantStatus

LINE = {"r1": (), "r2": ("r1",), "r3": ("r2",), "r4": ("r3",)}
GRAPH = Graph(LINE, LINE)
START = datetime(2026, 3, 1, tzinfo=UTC)


def attempt(status: str, before: str | None, after: str | None) -> AttemptRecord:
    """An attempt on a tenant that was at ``before``."""
    heads = (None if each is None else tuple(each.split()) for each in (before, after))
    return AttemptRecord("run", "a", "all", TenantStatus(status), *heads)


def change(before: str, after: str | None, *, command: str = "upgrade", status: str = "succeeded") -> Change:
    """What a run to r3 did to a tenant."""
    actor = Actor("ann", "host", 1, None, None)
    run = RunRecord("run", command, ("r3",), "r3", RunStatus.SUCCEEDED, START, START, actor)
    return run, attempt(status, before, after)


@pytest.mark.parametrize(
    ("status", "before", "after", "expected"),
    [
        ("succeeded", "r1", "r2", True),
        ("failed", "r1", "r2", True),
        ("failed", "r1", "r1", False),
        ("failed", "r1", None, False),
        ("locked", "r1", None, False),
        ("blocked", "r1", None, False),
        ("partial", "r1", None, True),
        ("unknown", "r1", None, True),
        ("unknown", "r1", "r1", True),
        ("running", "r1", None, True),
        ("pending", "r1", None, True),
        ("interrupted", "r1", None, True),
        ("unknown", None, None, False),
    ],
)
def test_may_have_moved(status: str, before: str | None, after: str | None, expected: bool) -> None:
    """A run has moved whom it left elsewhere, and may have moved whose end it did not see once it had begun."""
    assert may_have_moved(attempt(status, before, after)) is expected


def test_moved_by_others_between_two_tries() -> None:
    """A try that changed nothing does not claim what others did before the next one."""
    share = Share().found(("r1",)).ended(("r1",), ("r1",), unseen=False)

    share = share.found(("r2",)).ended(("r2",), ("r3",), unseen=False)

    assert share == Share(("r2",), ("r3",), True)


def test_a_lost_commit() -> None:
    """What the next try finds after a lost answer is the run's own, as far as it is on its way."""
    lost = Share().found(("r1",)).ended(("r1",), ("r1",), unseen=True)

    assert lost.found(("r1",)) == Share(("r1",), ("r1",), False)
    assert lost.found(("r2",)) == Share(("r1",), ("r2",), True)
    assert not lost.is_mixed(GRAPH, ("r2",), ("r3",))
    assert lost.is_mixed(GRAPH, ("r4",), ("r3",))


def test_not_reached() -> None:
    """A try that did not come to the tenant leaves it where the one before did."""
    share = Share().found(("r1",)).ended(("r1",), ("r2",), unseen=False)

    assert share.ended(None, None, unseen=False) == share


@pytest.mark.parametrize(
    ("found", "expected"), [("r1", False), ("r2", False), ("r3", True), ("strange", True), ("r2 strange", True)]
)
def test_mixed(found: str, expected: bool) -> None:
    """Whoever has more than the run left it with was moved by somebody else; who has less was taken back."""
    assert Share(("r1",), ("r2",), True).is_mixed(GRAPH, tuple(found.split()), ("r4",)) is expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([], ""),
        ([change("r1", "r3")], "r2 r3"),
        ([change("r1", "r3"), change("r3", "r2", command="rollback")], "r2"),
        ([change("r3", "r1", command="downgrade")], ""),
        ([change("r3", "r1", command="rollback"), change("r1", "r2")], "r2"),
        ([change("r1", None, status="running")], "r2 r3"),
        ([change("gone", "r2")], "r1 r2"),
    ],
)
def test_added(changes: list[Change], expected: str) -> None:
    """What later runs gave a tenant and did not take back, those included whose end nobody saw."""
    assert added(GRAPH, changes) == set(expected.split())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([], False),
        ([change("r1", "r3")], True),
        ([change("r1", "r2"), change("r2", "r3")], True),
        ([change("r2", "r3")], False),
        ([change("r1", "r2")], False),
        ([change("r1", "r3", status="running")], False),
    ],
)
def test_led(changes: list[Change], expected: bool) -> None:
    """Whether later runs account for all of a tenant's way from r1 to r3."""
    assert led(changes, ("r1",), ("r3",)) is expected


def test_by_tenant() -> None:
    """Attempts that never came to anything are nobody's later change."""
    moved = change("r1", "r3")

    assert by_tenant([change("r1", None, status="locked"), moved]) == {"a": [moved]}
