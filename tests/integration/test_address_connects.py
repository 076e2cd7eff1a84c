"""Translated addresses connect to a real server, and what their parameters ask for is in force there."""

from __future__ import annotations

from urllib.parse import urlsplit

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from orchestrator.databases.address import Address, parse
from tests.servers import PostgresServer


async def settings(address: Address, *names: str) -> list[list[str]]:
    """Settings as the server has them: once through SQLAlchemy, once through asyncpg alone."""
    query = "SELECT " + ", ".join(f"current_setting('{name}')" for name in names)
    engine = create_async_engine(address.url, connect_args=address.connect_args)
    async with engine.connect() as connection:
        through_sqlalchemy = list((await connection.execute(text(query))).one())
    await engine.dispose()
    raw = await asyncpg.connect(**address.asyncpg_arguments())
    alone = list(await raw.fetchrow(query))
    await raw.close()
    return [through_sqlalchemy, alone]


@pytest.mark.parametrize(
    "scheme", ["postgres", "postgresql", "postgresql+psycopg2", "postgresql+psycopg", "postgresql+asyncpg"]
)
@pytest.mark.parametrize("sslmode", ["", "sslmode=disable", "sslmode=allow", "sslmode=prefer", "ssl=prefer"])
async def test_schemes_and_modes(pg: PostgresServer, scheme: str, sslmode: str) -> None:
    """Every scheme and every mode that needs no certificate."""
    address = parse(f"{scheme}://{pg.url.partition('://')[2]}?{sslmode}".rstrip("?"))
    assert await settings(address, "client_encoding") == [["UTF8"], ["UTF8"]]


async def test_parameters_are_in_force(pg: PostgresServer) -> None:
    """What the parameters say is what the server has."""
    query = (
        "application_name=from%20libpq&connect_timeout=10&target_session_attrs=any&keepalives=1"
        "&options=-c%20statement_timeout%3D12345%20--lock-timeout%3D2s%20-csearch_path%3Da,%5C%20b"
    )
    names = ["application_name", "statement_timeout", "lock_timeout", "search_path"]
    expected = ["from libpq", "12345ms", "2s", "a, b"]
    assert await settings(parse(f"{pg.url}?{query}"), *names) == [expected, expected]


async def test_session_attributes(pg: PostgresServer) -> None:
    """target_session_attrs is asked of the server: a primary will not pass for a standby."""
    assert await settings(parse(f"{pg.url}?target_session_attrs=primary"), "transaction_read_only") == [
        ["off"],
        ["off"],
    ]
    with pytest.raises(asyncpg.TargetServerAttributeNotMatched):
        await asyncpg.connect(**parse(f"{pg.url}?target_session_attrs=standby").asyncpg_arguments())


async def test_host_and_port_as_parameters(pg: PostgresServer) -> None:
    """Where to go may stand in the parameters alone, several hosts are tried in turn."""
    parts = urlsplit(pg.url)
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    one = parse(f"postgresql://{user}{parts.path}?host={parts.hostname}&port={parts.port}")
    # Port 1 on this machine refuses at once.
    two = parse(f"postgresql://{user}127.0.0.1:1,{parts.hostname}:{parts.port}{parts.path}")
    for address in (one, two):
        assert await settings(address, "client_encoding") == [["UTF8"], ["UTF8"]]


async def test_with_database(pg: PostgresServer, database: str) -> None:
    """Another database of the same server."""
    name = urlsplit(database).path.lstrip("/")
    raw = await asyncpg.connect(**parse(pg.url).with_database(name).asyncpg_arguments())
    assert await raw.fetchval("SELECT current_database()") == name
    await raw.close()
