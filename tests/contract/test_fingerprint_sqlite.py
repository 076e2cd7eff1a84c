"""A tenant's fingerprint on SQLite: what changes it, and what does not."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.databases.sqlite.adapter import SQLite
from orchestrator.fleet.secrets import Template
from orchestrator.fleet.tenant import Isolation, Server, Tenant

BASE = """
    CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, PRIMARY KEY (version_num));
    CREATE TABLE t (
        id INTEGER PRIMARY KEY AUTOINCREMENT, -- its number
        name TEXT DEFAULT 'It''s, (new)' COLLATE NOCASE,
        amount NUMERIC(10, 2) CHECK (amount >= 0),
        twice NUMERIC GENERATED ALWAYS AS (amount * 2) STORED,
        CONSTRAINT one_name UNIQUE (name)
    );
    CREATE INDEX by_name ON t (name) WHERE amount > 1;
    CREATE VIEW v AS SELECT id FROM t;
    CREATE TRIGGER g AFTER UPDATE ON t BEGIN DELETE FROM t WHERE name = 'Old'; END;
"""
TABLE = """
    DROP VIEW v; DROP TABLE t;
    CREATE TABLE t ({});
    CREATE INDEX by_name ON t (name) WHERE amount > 1;
    CREATE VIEW v AS SELECT id FROM t;
    CREATE TRIGGER g AFTER UPDATE ON t BEGIN DELETE FROM t WHERE name = 'Old'; END;
"""
COLUMNS = {
    "id": "id INTEGER PRIMARY KEY AUTOINCREMENT",
    "name": "name TEXT DEFAULT 'It''s, (new)' COLLATE NOCASE",
    "amount": "amount NUMERIC(10, 2) CHECK (amount >= 0)",
    "twice": "twice NUMERIC GENERATED ALWAYS AS (amount * 2) STORED",
    "one_name": "CONSTRAINT one_name UNIQUE (name)",
}


def table(after: str = "", **changes: str) -> str:
    """SQL that makes the table again with other columns, or with options ``after`` it."""
    return TABLE.format(", ".join(part for part in (COLUMNS | changes).values() if part)).replace(
        ");\n    CREATE INDEX", f") {after};\n    CREATE INDEX"
    )


async def digest(file: Path, *scripts: str) -> str:
    """The digest of a file in which ``scripts`` ran."""
    with closing(sqlite3.connect(file)) as connection:
        for script in scripts:
            connection.executescript(script)
    tenant = Tenant("a", "main", Isolation.FILE, file=str(file))
    adapter = SQLite(Server("main", Template("sqlite:///x", file.parent)))
    return (await adapter.fingerprints([tenant], "alembic_version"))["a"]


@pytest.mark.parametrize(
    "change",
    [
        "CREATE TABLE more (id)",
        "DROP TABLE alembic_version",
        "ALTER TABLE t ADD more INT",
        "ALTER TABLE t RENAME amount TO price",
        "DROP INDEX by_name",
        "DROP INDEX by_name; CREATE INDEX by_name ON t (name)",
        "DROP INDEX by_name; CREATE UNIQUE INDEX by_name ON t (name) WHERE amount > 1",
        "DROP VIEW v; CREATE VIEW v AS SELECT name FROM t",
        "DROP TRIGGER g; CREATE TRIGGER g AFTER UPDATE ON t BEGIN DELETE FROM t WHERE name = 'old'; END",
        table(id="id INTEGER PRIMARY KEY"),
        table(name="name TEXT DEFAULT 'It''s, (New)' COLLATE NOCASE"),
        table(name="name TEXT DEFAULT 'It''s, (new)'"),
        table(name="name TEXT NOT NULL DEFAULT 'It''s, (new)' COLLATE NOCASE"),
        table(amount="amount NUMERIC(10, 2) CHECK (amount > 0)"),
        table(amount="amount NUMERIC(10, 3) CHECK (amount >= 0)"),
        table(twice="twice NUMERIC GENERATED ALWAYS AS (amount * 2) VIRTUAL"),
        table(one_name=""),
        table(one_name="UNIQUE (name)"),
        table(one_name="CONSTRAINT one_name UNIQUE (name), FOREIGN KEY (amount) REFERENCES t (id)"),
        table("STRICT", amount="amount REAL CHECK (amount >= 0)", twice="twice REAL AS (amount * 2) STORED"),
    ],
)
async def test_what_counts(tmp_path: Path, change: str) -> None:
    """A difference in any definition is another digest."""
    assert await digest(tmp_path / "one.db", BASE) != await digest(tmp_path / "other.db", BASE, change)


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO t (name) VALUES ('x'); INSERT INTO alembic_version VALUES ('1'); ANALYZE",
        "ALTER TABLE t ADD more INT; ALTER TABLE t DROP more",
        "ALTER TABLE t RENAME TO u; ALTER TABLE u RENAME TO t",
        'DROP INDEX by_name; create  index by_name on "t"(name) /* as before */ where amount>1',
        "DROP INDEX by_name; CREATE INDEX by_name ON t (name) where [amount]>1",
        table(),
        TABLE.format(", ".join(reversed([*COLUMNS.values()][:-1])) + ", " + COLUMNS["one_name"]),
    ],
)
async def test_what_does_not_count(tmp_path: Path, change: str) -> None:
    """Rows, comments, spacing, quotes, the order of columns and how a definition came about are not the shape."""
    assert await digest(tmp_path / "one.db", BASE) == await digest(tmp_path / "other.db", BASE, change)


async def test_column_added_later(tmp_path: Path) -> None:
    """ALTER TABLE writes a column behind the constraints; that is the same table."""
    early = "CREATE TABLE t (a INT, b INT, PRIMARY KEY (a))"
    late = "CREATE TABLE t (a INT, PRIMARY KEY (a)); ALTER TABLE t ADD b INT"

    assert await digest(tmp_path / "one.db", early) == await digest(tmp_path / "other.db", late)


async def test_unreadable_files_are_left_out(tmp_path: Path) -> None:
    """A file that is missing or no database has no fingerprint, and none is made."""
    (tmp_path / "broken.db").write_bytes(b"no database" * 100)
    await digest(tmp_path / "good.db", BASE)
    tenants = [
        Tenant(name, "main", Isolation.FILE, file=str(tmp_path / f"{name}.db"))
        for name in ("broken", "missing", "good")
    ]

    found = await SQLite(Server("main", Template("sqlite:///x", tmp_path))).fingerprints(tenants, "alembic_version")

    assert list(found) == ["good"]
    assert not (tmp_path / "missing.db").exists()
