"""A bound value written into a script means what asyncpg would have sent: a real server compares the two."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from orchestrator.migration.values import NotWritable, as_sql

TEXTS = [
    "",
    "o'brien",
    "back\\slash \\n \\' '",
    "E'\\047'",
    "$1 $2::INTEGER $$ $orchestrator$",
    "-- no comment",
    "/* none */ ; DROP TABLE pairs;",
    "line\nfeed\r\n\ttab",
    "日本 ж 🐘 \u0301",
    "%s %% :name {brace}",
    " padded ",
    "NULL",
    "x" * 100_000,
]
MOMENTS = [
    datetime(2024, 2, 29, 23, 59, 59, 999999),
    datetime(1, 1, 1, 0, 0, 0, 1),
    datetime(50, 6, 7),
    datetime(1582, 10, 10, 12),
    datetime(1999, 12, 31, 23, 59, 60 - 1, 1),
    datetime(9999, 12, 31),
]
ZONES = [
    UTC,
    timezone(timedelta(hours=14)),
    timezone(-timedelta(hours=11, minutes=30)),
    timezone(timedelta(hours=1, minutes=2, seconds=3)),
    ZoneInfo("Europe/Berlin"),
]
#: An hour that Berlin has twice: only ``fold`` tells the second.
FOLDED = [datetime(2024, 10, 27, 2, 30, fold=fold, tzinfo=ZoneInfo("Europe/Berlin")) for fold in (0, 1)]
NUMBERS = [0.1, -0.0, 1e308, 5e-324, 1 / 3, 123456789.123456789, 2.0**53 + 2, -1e-7, 1e16, math.pi, 1 + 2**-24]
DECIMALS = [
    Decimal(text)
    for text in (
        *("0", "-0", "0.00", "-0.00", "1.10", "1E+5", "-1.5E-7", "0E-9", "1E+30", "123456789012345678901234567890.5"),
        "1" * 500,
    )
]

#: What is written, by SQLAlchemy's type.
WRITTEN: list[tuple[Any, Sequence[Any]]] = [
    (sa.String(), TEXTS),
    (sa.String(100_000), TEXTS),
    (sa.Text(), TEXTS),
    (sa.Unicode(), TEXTS[:3]),
    (sa.SmallInteger(), [0, -(2**15), 2**15 - 1]),
    (sa.Integer(), [0, 7, -(2**31), 2**31 - 1]),
    (sa.BigInteger(), [0, -(2**63), 2**63 - 1]),
    (sa.Numeric(), DECIMALS),
    (sa.Numeric(12, 2), [Decimal("1.005"), Decimal("-1.015"), Decimal("1E+3")]),
    (sa.Float(), NUMBERS),
    (sa.Double(), NUMBERS),
    (sa.REAL(), [number for number in NUMBERS if 1e-40 < abs(number) < 1e38]),
    (sa.Boolean(), [True, False]),
    (sa.Date(), [date(2024, 2, 29), date(1, 1, 2), date(50, 6, 7), date(9999, 12, 30)]),
    (sa.Time(), [time(0), time(23, 59, 59, 999999), time(1, 2, 3, 4, fold=1)]),
    (sa.DateTime(), MOMENTS),
    (
        sa.DateTime(timezone=True),
        [moment.replace(tzinfo=zone) for moment in MOMENTS[2:5] for zone in ZONES],
    ),
    (sa.Uuid(), [UUID(int=0), UUID(int=2**128 - 1), UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")]),
    (sa.LargeBinary(), [b"", b"\0\\'$1\xff", bytes(range(256))]),
    (sa.JSON(), [{"a": [1, 1.5, None, "it's \\ \n ☃"]}, [], "text", 1, True]),
    (postgresql.JSONB(), [{"b": 1, "a": {"$1": "\\u0041"}}, [1, 1]]),
]
#: What is not, although the driver takes it: its text would mean something else, or might.
REFUSED: list[tuple[Any, Sequence[Any]]] = [
    # asyncpg takes the last and the first that Python knows for PostgreSQL's infinities.
    (sa.Date(), [date.max, date.min]),
    (sa.DateTime(), [datetime.max, datetime.min]),
    (
        sa.DateTime(timezone=True),
        [datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC), datetime(2024, 1, 1)],
    ),
    # A number is rounded once on its way to the driver, and twice on its way through decimal digits.
    (sa.Float(24), [1 + 2**-24]),
    (sa.Float(), [math.inf, -math.inf, math.nan, Decimal(1), 1]),
    (sa.Numeric(), [Decimal("NaN"), 1]),
    (sa.Interval(), [timedelta(days=1)]),
    (sa.Time(timezone=True), [time(1, tzinfo=UTC)]),
    (postgresql.ARRAY(sa.Integer), [[1, 2]]),
    (postgresql.ARRAY(sa.Text), [["a"]]),
    (sa.Enum("good", name="mood", native_enum=False), ["good"]),
    (postgresql.INET(), ["10.0.0.1"]),
    (postgresql.ENUM("good", "bad", name="mood"), ["good"]),
]
#: A session that reads and prints in other ways.
STRANGE = "SET DateStyle = 'SQL, DMY'; SET TimeZone = 'Asia/Tokyo'; SET standard_conforming_strings = off"


@pytest.fixture
async def engine(database: str) -> AsyncIterator[AsyncEngine]:
    """SQLAlchemy over asyncpg, as migrations use it."""
    engine = create_async_engine(database.replace("postgresql://", "postgresql+asyncpg://"))
    yield engine
    await engine.dispose()


def _ids(pairs: list[tuple[Any, Sequence[Any]]]) -> list[str]:
    return [repr(kind) for kind, _ in pairs]


async def sent(engine: AsyncEngine, table: sa.Table, values: Sequence[Any]) -> list[tuple[str, Sequence[Any]]]:
    """Insert ``values`` through SQLAlchemy and asyncpg; what the driver was given for each."""
    found: list[tuple[str, Sequence[Any]]] = []

    def executed(_c: Any, _cursor: Any, statement: str, parameters: Any, _x: Any, many: bool) -> None:
        assert not many
        if statement.startswith("INSERT"):
            found.append((statement, parameters))

    async with engine.begin() as connection:
        await connection.run_sync(table.create)
        sa.event.listen(connection.sync_connection, "after_cursor_execute", executed)
        for number, value in enumerate(values):
            await connection.execute(table.insert().inline(), {"number": number, "value": value})
    return found


def pairs(kind: Any) -> sa.Table:
    """A table for values of one type."""
    return sa.Table("pairs", sa.MetaData(), sa.Column("number", sa.Integer), sa.Column("value", kind))


@pytest.mark.parametrize(("kind", "values"), WRITTEN, ids=_ids(WRITTEN))
async def test_what_is_written_is_what_is_bound(
    database: str, engine: AsyncEngine, kind: Any, values: Sequence[Any]
) -> None:
    """Each value of a type, and NULL, is stored alike by script and driver, whatever the settings."""
    given = await sent(engine, pairs(kind), [*values, None])
    connection = await asyncpg.connect(database)
    try:
        for settings in ("RESET ALL", STRANGE):
            await connection.execute(settings)
            for statement, parameters in given:
                await connection.execute(f"BEGIN;\n{as_sql(statement, parameters)};\nCOMMIT")
        alike = await connection.fetch(
            "SELECT number, count(*) AS rows, count(DISTINCT coalesce(value::text, 'NULL')) AS texts,"
            " count(DISTINCT value IS NULL) AS nulls, min(value::text) || ' ' || max(value::text) AS told"
            " FROM pairs GROUP BY number ORDER BY number"
        )
        left = await connection.fetch("SELECT name FROM pg_prepared_statements WHERE from_sql")
    finally:
        await connection.close()

    assert len(alike) == len(values) + 1
    assert [row["told"] for row in alike if (row["rows"], row["texts"], row["nulls"]) != (3, 1, 1)] == []
    assert left == []


@pytest.mark.parametrize(("kind", "values"), REFUSED, ids=_ids(REFUSED))
async def test_what_may_mean_something_else_is_not_written(
    engine: AsyncEngine, kind: Any, values: Sequence[Any]
) -> None:
    """Values whose text the server might read differently are refused, whatever the driver makes of them."""
    for value in values:
        async with engine.begin() as connection:
            await connection.run_sync(pairs(kind).metadata.drop_all)
        try:
            given = await sent(engine, pairs(kind), [value])
        except sa.exc.SQLAlchemyError:
            continue  # the driver does not take it: it is in no recording
        finally:
            async with engine.begin() as connection:
                await connection.exec_driver_sql("DROP TABLE IF EXISTS pairs")
        for statement, parameters in given:
            with pytest.raises(NotWritable):
                as_sql(statement, parameters)


async def test_values_of_a_statement_that_ends_in_a_comment(database: str, engine: AsyncEngine) -> None:
    """A comment at the end of a statement with values does not swallow what runs it."""
    async with engine.begin() as connection:
        await connection.exec_driver_sql("CREATE TABLE notes (body text)")
    raw = await asyncpg.connect(database)
    try:
        await raw.execute(as_sql("INSERT INTO notes VALUES ($1::VARCHAR) -- as agreed", ["one"]))
        await raw.execute(as_sql("INSERT INTO notes VALUES ($1::VARCHAR);", ["two"]))
        assert [row[0] for row in await raw.fetch("SELECT body FROM notes ORDER BY 1")] == ["one", "two"]
    finally:
        await raw.close()
