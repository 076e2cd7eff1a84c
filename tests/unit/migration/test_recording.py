"""What a recording sees for itself: the second line of defence, behind what revision files and env.py tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, event

from orchestrator.databases.postgresql.script import Step
from orchestrator.migration.recording import Recording, compared

Work = Callable[[Connection, MigrationContext], object]


@pytest.fixture
def connection() -> Iterator[Connection]:
    """A database in memory: what is recorded comes from SQLAlchemy's events, not from the server."""
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE t (a int)")
        connection.commit()
        yield connection
    engine.dispose()


def record(connection: Connection, *works: Work, **arguments: Any) -> Recording:
    """Record revisions r1, r2, ... each in a transaction of its own, as Alembic runs them."""
    recording = Recording()
    recording.listen(connection)
    context = MigrationContext.configure(connection)
    recording.configured(context, {})

    def run(**_: Any) -> None:
        heads: tuple[str, ...] = ()
        for number, work in enumerate(works, start=1):
            with connection.begin():
                recording.revision_begins(f"r{number}", heads)
                work(connection, context)
                heads = (f"r{number}",)
                recording.revision_ends(heads)

    environment: Any = SimpleNamespace(run_migrations=run)
    recording.watch_run(environment)
    environment.run_migrations(**arguments)
    return recording


def executes(sql: str) -> Work:
    """What ``op.execute()`` does."""
    return lambda _, context: context.impl.execute(sql)


def reason(recording: Recording) -> str | None:
    """Why the only transaction must not be replayed."""
    (only,) = recording.transactions
    return only.reason


def test_statements_in_their_transactions(connection: Connection) -> None:
    """Each revision's statements are one step, from its heads to the next one's; only the first makes the table."""
    first, second = record(connection, executes("UPDATE t SET a = 1"), executes("DELETE FROM t")).transactions

    assert (first.reason, second.reason) == (None, None)
    assert first.step.version_table is not None
    assert second.step == Step(("r2",), ("r1",), ("r2",), ("DELETE FROM t",))
    assert (first.step.before, first.step.after, first.step.statements) == ((), ("r1",), ("UPDATE t SET a = 1",))


@pytest.mark.parametrize(
    ("work", "said"),
    [
        (lambda connection, _: connection.exec_driver_sql("SELECT a FROM t"), "reads the database: SELECT a FROM t"),
        (lambda connection, _: connection.begin_nested().commit(), "uses a savepoint"),
        (executes("SAVEPOINT x"), "needs a session of its own"),
        (executes("  /* x */ -- y\n PRAGMA user_version = 1"), "needs a session of its own"),
        (lambda _, context: context.impl.execute(sa.text("UPDATE t SET a = :a").bindparams(a=1)), "binds"),
    ],
    ids=["reading", "savepoint", "SAVEPOINT", "comments", "values"],
)
def test_what_spoils_a_transaction(connection: Connection, work: Work, said: str) -> None:
    """What is not to be replayed is told of the one revision that does it, whatever its file looked like."""
    spoilt, sound = record(connection, work, executes("DELETE FROM t")).transactions

    assert said in (spoilt.reason or "")
    assert sound.reason is None


def test_a_result_that_nobody_gets(connection: Connection) -> None:
    """``op.execute()`` gives no rows to anybody; what is asked after it does again."""

    def both(connection: Connection, context: MigrationContext) -> None:
        context.impl.execute("SELECT 1")
        connection.exec_driver_sql("SELECT 2")

    alone, followed = record(connection, executes("SELECT 1"), both).transactions

    assert (alone.reason, followed.reason) == (None, "reads the database: SELECT 2")


def test_a_commit_within_a_revision(connection: Connection) -> None:
    """A revision that commits by itself is not replayed."""
    recording = Recording()
    recording.listen(connection)
    recording.configured(MigrationContext.configure(connection), {})
    recording.revision_begins("r1", ())
    connection.exec_driver_sql("UPDATE t SET a = 1")
    connection.commit()
    connection.exec_driver_sql("UPDATE t SET a = 2")
    recording.revision_ends(("r1",))
    connection.commit()

    assert reason(recording) == "commits by itself, or runs outside a transaction"


def test_another_isolation_level(connection: Connection) -> None:
    """A transaction that is isolated otherwise than by default is not replayed."""
    recording = Recording()
    recording.listen(connection)
    recording.configured(MigrationContext.configure(connection), {})
    connection.execution_options(isolation_level="READ UNCOMMITTED")
    recording.revision_begins("r1", ())
    connection.exec_driver_sql("UPDATE t SET a = 1")
    recording.revision_ends(("r1",))
    connection.commit()

    assert reason(recording) == "changes the isolation level"


def test_what_was_rolled_back(connection: Connection) -> None:
    """A recording of which a part was undone is of no use."""
    recording = Recording()
    recording.listen(connection)
    recording.configured(MigrationContext.configure(connection), {})
    recording.revision_begins("r1", ())
    connection.exec_driver_sql("UPDATE t SET a = 1")
    connection.rollback()

    assert recording.reason == "a transaction was rolled back"


@pytest.mark.parametrize("configured", [False, True], ids=["before configure", "after it"])
def test_sql_of_the_environments_own(connection: Connection, configured: bool) -> None:
    """What is sent outside Alembic's part of the work is env.py's, before or after it configures."""
    recording = Recording()
    recording.listen(connection)
    if configured:
        recording.configured(MigrationContext.configure(connection), {})
    connection.exec_driver_sql("SELECT 1")

    assert recording.reason == "env.py runs SQL of its own: SELECT 1"


def test_arguments_to_the_run(connection: Connection) -> None:
    """What env.py hands to the revisions may be the tenant's."""
    assert (
        record(connection, executes("DELETE FROM t"), name="a").reason == "env.py passes arguments to run_migrations()"
    )


def test_configured_twice(connection: Connection) -> None:
    """Which of the two was meant cannot be told."""
    recording = record(connection, executes("DELETE FROM t"))
    recording.configured(MigrationContext.configure(connection), {})

    assert recording.reason == "env.py configures Alembic twice"


def test_listeners_on_every_pool(connection: Connection) -> None:
    """Somebody who listens to every connection of the process may send what nobody records."""

    def heard(*_: Any) -> None: ...

    event.listen(sa.pool.Pool, "checkout", heard)
    try:
        assert "listens" in (record(connection, executes("DELETE FROM t")).reason or "")
    finally:
        event.remove(sa.pool.Pool, "checkout", heard)
    assert record(connection, executes("DELETE FROM t")).reason is None


def test_two_that_differ(connection: Connection) -> None:
    """Other statements, fewer of them, or another way altogether: each is told, and nothing of it is replayed."""
    one, other = (
        record(connection, executes(sql), executes("DELETE FROM t"))
        for sql in ("UPDATE t SET a = 1", "UPDATE t SET a = 2")
    )
    fewer = record(connection, lambda *_: None, executes("DELETE FROM t"))
    shorter = record(connection, executes("UPDATE t SET a = 1"))

    assert [each.reason for each in compared(one.transactions, other.transactions)] == [
        "differs from tenant to tenant: UPDATE t SET a = 1",
        None,
    ]
    assert compared(one.transactions, fewer.transactions)[0].reason == "differs from tenant to tenant"
    assert compared(one.transactions, shorter.transactions) == []
