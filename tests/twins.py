"""A generated fleet twice, in databases that one fleet after the other uses, and what its tenants end with."""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from hypothesis import currently_in_test_context, note

from tests.catalog import Catalog, catalogs
from tests.generated import SITE, Generated, Member
from tests.servers import PostgresServer, execute, fetch

#: The same settings, without the orchestrator.
_PLAIN_ENV = """
import asyncio

from alembic import context
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

attributes = context.config.attributes


def migrate(connection):
    context.configure(
        connection=connection,
        version_table_schema=attributes["schema"],
        transaction_per_migration={per_migration},
    )
    with context.begin_transaction():
        context.run_migrations()


async def main():
    settings = dict(search_path='"' + attributes["schema"] + '"') if attributes["schema"] else dict()
    engine = create_async_engine(
        attributes["url"].replace("postgresql:", "postgresql+asyncpg:"),
        poolclass=NullPool,
        connect_args=dict(server_settings=settings),
    )
    async with engine.connect() as connection:
        await connection.run_sync(migrate)


asyncio.run(main())
"""
#: What uuid4() gives, in a column's default.
_RANDOM = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Held:
    """What one tenant ends with."""

    heads: tuple[str, ...]
    catalog: Catalog
    #: With the table's name; what differs by nature is replaced by its type.
    rows: list[str]
    #: What was replaced.
    random: set[str]


@dataclass(frozen=True, slots=True)
class Failure:
    """How plain Alembic ended on a tenant that it could not migrate."""

    error: BaseException
    #: The revision whose file raised.
    revision: str | None


@dataclass(frozen=True, slots=True)
class Twins:
    """A fleet twice: one for the orchestrator, one for plain Alembic, with the same in both."""

    #: The databases that tenants in schemas share.
    ours: str
    plain: str
    #: Databases of tenants with one of their own: theirs and the twin's.
    own: Mapping[str, tuple[str, str]]

    def urls(self, member: Member) -> tuple[str, str]:
        """Where one tenant is, and where its twin."""
        return self.own.get(member.id, (self.ours, self.plain))


@contextmanager
def made_twins(pg: PostgresServer, generated: Generated, directory: Path) -> Iterator[Twins]:
    """A fleet as it is before the run: each tenant with rows of its own, some way into the history."""
    alone = [member.id for member in generated.members if member.alone]
    taken = [pg.create_database() for _ in range(2 * len(alone) + 2)]
    try:
        pairs = list(zip(taken[::2], taken[1::2], strict=True))
        twins = Twins(*pairs[0], dict(zip(alone, pairs[1:], strict=True)))
        _write_plain(directory, generated)
        for member in generated.members:
            for url in twins.urls(member):
                _prepare(directory, member, url)
        yield twins
    finally:
        for url in taken:
            pg.drop_database(url)


def _prepare(directory: Path, member: Member, url: str) -> None:
    _run(url, member, SITE, *member.rows)
    if member.start is not None:
        migrate_plainly(directory, member, url, member.start)
    for statement in member.drift:
        with suppress(asyncpg.PostgresError):  # the history has made it already
            _run(url, member, statement)


def _run(url: str, member: Member, *statements: str) -> None:
    scope = [] if member.alone else [f'CREATE SCHEMA IF NOT EXISTS "{member.id}"', f'SET search_path = "{member.id}"']
    execute(url, "; ".join([*scope, *statements]))


def _write_plain(directory: Path, generated: Generated) -> None:
    (directory / "plain").mkdir()
    text = _PLAIN_ENV.format(per_migration=generated.transaction_per_migration)
    (directory / "plain" / "env.py").write_text(text, encoding="utf-8")
    write_revisions(generated, directory / "plain")
    for revision in generated.revisions:
        say(f"{revision.name}:{revision.source.partition('def upgrade')[2].partition('def downgrade')[0]}")


def write_revisions(generated: Generated, directory: Path) -> None:
    """Write the revision files."""
    versions = directory / "versions"
    versions.mkdir(exist_ok=True)
    for revision in generated.revisions:
        (versions / f"{revision.name}.py").write_text(revision.source, encoding="utf-8")


def migrate_plainly(directory: Path, member: Member, url: str, target: str = "heads") -> Failure | None:
    """Let Alembic alone migrate one tenant."""
    config = Config(attributes={"url": url, "schema": None if member.alone else member.id})
    config.set_main_option("script_location", str(directory / "plain"))
    with ThreadPoolExecutor(max_workers=1) as executor:  # its env.py calls asyncio.run()
        error = executor.submit(command.upgrade, config, target).exception()
    if error is None:
        return None
    files = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    return Failure(error, next((file.stem for file in files if file.parent.name == "versions"), None))


def held_in(url: str, schemas: list[str]) -> dict[str, Held]:
    """Read all that is in some schemas of one database."""
    shapes = catalogs(url, schemas)
    tables = [
        (schema, name.removeprefix("rows "))
        for schema, shape in shapes.items()
        for name in shape
        if name.startswith("rows ")
    ]
    parts = [
        f"""SELECT '{schema}', '{name}', to_jsonb(t)::text FROM "{schema}"."{name}" t""" for schema, name in tables
    ]
    rows = fetch(url, " UNION ALL ".join(parts)) if parts else []
    return {
        schema: _described(shape, [(table, text) for its, table, text in rows if its == schema])
        for schema, shape in shapes.items()
    }


def _described(shape: Catalog, rows: list[tuple[str, str]]) -> Held:
    random = {found.group() for text in shape.values() for found in _RANDOM.finditer(text)}
    described = []
    heads = []
    for table, text in rows:
        row = json.loads(text, parse_float=str)
        if table == "alembic_version":
            heads.append(row["version_num"])
        for column in [name for name in row if name.startswith("random_")]:
            random.add(str(row[column]))
            row[column] = type(row[column]).__name__
        described.append(f"{table}: {json.dumps(row, sort_keys=True)}")
    same = {name: _RANDOM.sub("random", text) for name, text in shape.items()}
    return Held(tuple(sorted(heads)), same, sorted(described), random)


def say(text: str) -> None:
    """For whoever reads the report on an example that failed."""
    if currently_in_test_context():
        note(text)
