"""Which statements with values are written at all; what the text means is for a server to say (tests/contract)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from orchestrator.migration.values import NotWritable, as_sql


class Text(str):
    """A text that the driver may take for something else."""


def test_a_statement_without_values_is_left_alone() -> None:
    """Nothing is prepared for it, and what looks like a placeholder in it stays."""
    statement = "CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT $1'"

    assert as_sql(statement, []) == statement


def test_values_stand_in_the_order_of_the_numbers() -> None:
    """$2 before $1 in the text, or $1 twice, changes nothing."""
    written = as_sql("UPDATE t SET a = $2::VARCHAR WHERE b = $1::INTEGER OR c = $1::INTEGER", [7, "x"])

    assert "EXECUTE orchestrator_statement('7', 'x');" in written


@pytest.mark.parametrize(
    ("statement", "values"),
    [
        ("ALTER TABLE t ALTER a SET DEFAULT $1::INTEGER", [1]),
        ("CREATE TABLE t AS SELECT $1::INTEGER", [1]),
        ("DO $1::VARCHAR", ["x"]),
        ("/* why */ INSERT INTO t VALUES ($1::INTEGER)", [1]),
        ("INSERT INTO t VALUES ($1)", [1]),
        ("INSERT INTO t VALUES ($1)", [None]),
        ('INSERT INTO t VALUES ($1::"Mood")', ["good"]),
        ('INSERT INTO t VALUES ($1::"Mood")', [None]),
        ("INSERT INTO t VALUES ($1::mood)", ["good"]),
        ("INSERT INTO t VALUES ($1::INTEGER[])", [[1]]),
        ("INSERT INTO t VALUES ($1::INTEGER[])", [None]),
        ("INSERT INTO t VALUES ($1::INTEGER, $1::BIGINT)", [1]),
        ("INSERT INTO t VALUES ('costs $1', $1::VARCHAR)", ["x"]),
        ("INSERT INTO t VALUES ($1::INTEGER)", [1, 2]),
        ("INSERT INTO t VALUES ($1::INTEGER, $3::INTEGER)", [1, 2]),
        ("INSERT INTO t VALUES ($1::INTEGER)", [True]),
        ("INSERT INTO t VALUES ($1::BOOLEAN)", [1]),
        ("INSERT INTO t VALUES ($1::VARCHAR)", [Text("x")]),
        ("INSERT INTO t VALUES ($1::VARCHAR)", ["nul\0"]),
        ("INSERT INTO t VALUES ($1::BYTEA)", [memoryview(b"x")]),
        ("INSERT INTO t VALUES ($1::FLOAT(24))", [0.1]),
    ],
)
def test_what_cannot_be_followed_is_refused(statement: str, values: Sequence[Any]) -> None:
    """No cast, an unknown or ambiguous one, a value of another class, or a statement that cannot be prepared."""
    with pytest.raises(NotWritable):
        as_sql(statement, values)


def test_a_refusal_does_not_tell_the_value() -> None:
    """The reason is kept in the journal; values may be secrets."""
    with pytest.raises(NotWritable) as refused:
        as_sql("INSERT INTO t VALUES ($1::mood)", ["hunter2"])

    assert str(refused.value) == "binds a str as mood"
