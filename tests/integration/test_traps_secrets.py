"""Traps of telling too much: passwords in addresses, row values in errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from tests.projects import ACCOUNTS, ALL, make_project, one, schemas, statuses, until, with_role
from tests.servers import PostgresServer, execute, fetch

PASSWORD, ENCODED = "p@ss%word", "p%40ss%25word"


@pytest.fixture
async def guarded(second_pg: PostgresServer) -> AsyncIterator[str]:
    """Address, without a password, of a database where the role ``guarded`` must give its password."""
    hba = Path(fetch(second_pg.url, "SHOW hba_file")[0][0])
    trusting = hba.read_text()
    url = second_pg.create_database()
    execute(second_pg.url, f"CREATE ROLE guarded LOGIN SUPERUSER PASSWORD '{PASSWORD}'")
    hba.write_text("host all guarded 127.0.0.1/32 scram-sha-256\n" + trusting)
    execute(second_pg.url, "SELECT pg_reload_conf()")

    async def refused() -> bool:
        try:
            await (await asyncpg.connect(with_role(url, "guarded", "wrong"))).close()
        except asyncpg.InvalidPasswordError:
            return True
        return False

    await until(refused, bool)
    yield url
    hba.write_text(trusting)
    second_pg.drop_database(url)
    execute(second_pg.url, "DROP ROLE guarded; SELECT pg_reload_conf()")


async def test_password_with_percent_signs(tmp_path: Path, guarded: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A password written %40 in the address opens the door and is shown nowhere, nor by a migration that fails."""
    body = f"""
        if op.get_bind().exec_driver_sql("SELECT current_schema()").scalar() == "b":
            raise RuntimeError("cannot log in as postgresql://guarded:{ENCODED}@db1/app")
        {ACCOUNTS}
    """
    project = make_project(tmp_path, {"r1": body}, schemas(with_role(guarded, "guarded", ENCODED), "a", "b"))

    result = await project.upgrade(execution=ALL)

    assert statuses(result) == {"a": "succeeded", "b": "failed"}
    told = str(result.as_json()) + project.text() + "".join(capfd.readouterr())
    assert "cannot log in as postgresql://guarded:***@db1/app" in told
    assert PASSWORD not in told
    assert ENCODED not in told


async def test_wrong_password_is_not_told(tmp_path: Path, guarded: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A refused password makes the tenant fail with the role and the place, and without the password."""
    wrong = "wr%40ng%25secret"
    project = make_project(tmp_path, {"r1": ACCOUNTS}, schemas(with_role(guarded, "guarded", wrong), "a"))

    result = await project.upgrade()

    assert statuses(result) == {"a": "failed"}
    error = one(result, "a")["error"]
    assert error["type"] == "unreachable"
    assert "guarded" in error["message"]
    assert "password" in error["hint"]
    told = str(result.as_json()) + project.text() + "".join(capfd.readouterr())
    assert wrong not in told
    assert "wr@ng%secret" not in told


async def test_row_values_are_not_told(tmp_path: Path, database: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A violated constraint's DETAIL, over several lines too, and bound values appear neither in result nor journal."""
    body = """
        op.execute("CREATE TABLE people (email text UNIQUE, note text NOT NULL)")
        rows = [{"email": "ann@example.org\\nsecond-line", "note": "x"}] * 2
        op.get_bind().execute(sa.text("INSERT INTO people VALUES (:email, :note)"), rows)
    """
    project = make_project(tmp_path, {"r1": body}, schemas(database, "a"))

    result = await project.upgrade()

    error = one(result, "a")["error"]
    assert (error["sqlstate"], error["revision"]) == ("23505", "r1")
    assert "people_email_key" in error["message"]
    told = str(result.as_json()) + project.text() + "".join(capfd.readouterr())
    assert "ann@example.org" not in told
    assert "second-line" not in told


@pytest.mark.parametrize(
    "statement",
    [
        'sa.text("SELECT cast(:secret as int)"), {"secret": "hunter-2"}',
        'sa.text("SELECT :secret, :missing"), {"secret": "hunter-2"}',
    ],
    ids=["refused by the driver", "refused by SQLAlchemy"],
)
async def test_bound_values_are_not_told(tmp_path: Path, database: str, statement: str) -> None:
    """A value that driver or SQLAlchemy refuses before the server sees it is not repeated."""
    project = make_project(tmp_path, {"r1": f"op.get_bind().execute({statement})"}, schemas(database, "a"))

    result = await project.upgrade()

    assert statuses(result) == {"a": "failed"}
    assert one(result, "a")["error"]["statement"].startswith("SELECT")
    assert "hunter-2" not in str(result.as_json()) + project.text()
