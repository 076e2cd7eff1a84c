"""A transcript as one transaction."""

from __future__ import annotations

from orchestrator.databases.postgresql.script import Step
from orchestrator.migration.recording import Recorded
from orchestrator.migration.replay import Transcript
from orchestrator.migration.whole import whole

ONE = Step(("r1",), (), ("r1",), ("CREATE TABLE a ()",), "CREATE TABLE alembic_version ()")


def two(*statements: str, reason: str | None = None) -> Transcript:
    """Two transactions; the second one's statements and why it must not be replayed."""
    return Transcript((Recorded(ONE), Recorded(Step(("r2",), ("r1",), ("r2",), statements), reason)), {})


def test_all_becomes_one_step() -> None:
    """From where the first begins to where the last ends, in order, with the version table made once."""
    made = Step(("r1", "r2"), (), ("r2",), ("CREATE TABLE a ()", "CREATE TABLE b ()"), ONE.version_table)
    assert whole(two("CREATE TABLE b ()")) == made


def test_what_must_not_be_replayed_closes_it() -> None:
    """With the reason of the revision; and where two tenants had nothing in common."""
    assert whole(two(reason="reads the database")) == "r2: reads the database"
    assert "different ways" in str(whole(Transcript((), {})))


def test_what_holds_to_the_end() -> None:
    """A setting for one transaction is one for all that follow; in the last one it is as it was."""
    local = Recorded(Step(("r1",), (), ("r1",), ("set  local lock_timeout = '1s'",)))
    last = Recorded(Step(("r2",), ("r1",), ("r2",), ("SET CONSTRAINTS ALL DEFERRED",)))
    assert "r1: holds to the end" in str(whole(Transcript((local, last), {})))
    assert isinstance(whole(Transcript((Recorded(ONE), last), {})), Step)
    assert isinstance(whole(Transcript((local,), {})), Step)
