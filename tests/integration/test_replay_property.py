"""Replay changes how fast a fleet is migrated, and nothing else: generated fleets, beside plain Alembic's work."""

from __future__ import annotations

import asyncio
import json
import os
import re
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from hypothesis import HealthCheck, event, given, note, settings

from orchestrator.databases.postgresql import PostgreSQL
from tests.catalog import Catalog, catalogs, difference
from tests.fleets import database_of
from tests.generated import DYNAMIC, SITE, STATIC, Generated, Member, fleets
from tests.projects import ALL, Project, make_project
from tests.servers import PostgresServer, execute, fetch

#: More of them: GENERATED_FLEETS=300 make test PYTEST_ARGS="-k replay_property".
_EXAMPLES = int(os.environ.get("GENERATED_FLEETS", "15"))
_ENV = """
from alembic import context
from orchestrator import for_each_tenant


def migrate(connection, tenant):
    context.configure(
        connection=connection, version_table_schema=tenant.schema, transaction_per_migration={per_migration}
    )
    with context.begin_transaction():
        context.run_migrations()


for_each_tenant(migrate)
"""
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
_SETTINGS = settings(
    max_examples=_EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


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


@dataclass(frozen=True, slots=True)
class Databases:
    """Databases that one fleet after the other uses: to make one takes longer than to migrate it."""

    pg: PostgresServer
    idle: list[str]

    @contextmanager
    def taken(self, count: int) -> Iterator[list[str]]:
        """So many empty ones."""
        taken = [self.idle.pop() if self.idle else self.pg.create_database() for _ in range(count)]
        try:
            yield taken
        finally:
            for url in taken:
                self._empty(url)
            self.idle.extend(taken)

    def _empty(self, url: str) -> None:
        schemas = fetch(url, "SELECT nspname FROM pg_namespace WHERE nspname ~ '^(public|Tenant.*)$'")
        execute(url, "; ".join(f'DROP SCHEMA "{name}" CASCADE' for (name,) in schemas) + "; CREATE SCHEMA public")


Replays = list[tuple[str, tuple[str, ...]]]


@pytest.fixture(scope="module")
def databases(pg: PostgresServer) -> Iterator[Databases]:
    """Dropped at the end."""
    made = Databases(pg, [])
    yield made
    for url in made.idle:
        pg.drop_database(url)


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> Replays:
    """Tenants and revisions that were replayed, or were to be."""
    seen: Replays = []
    replay = PostgreSQL.replay

    async def watched(self: PostgreSQL, tenant: Any, steps: Any, *arguments: Any) -> None:
        seen.append((tenant.id, tuple(revision for step in steps for revision in step.revisions)))
        await replay(self, tenant, steps, *arguments)

    monkeypatch.setattr(PostgreSQL, "replay", watched)
    return seen


def test_a_replayed_fleet_is_as_plain_alembic_makes_it(databases: Databases, replays: Replays) -> None:
    """Same catalogs, rows and heads; who fails, fails at the same revision; what Python finds out is not replayed."""

    @_SETTINGS
    @given(generated=fleets())
    def compare(generated: Generated) -> None:
        _compare(databases, replays, generated)

    compare()


def test_what_a_file_alone_decides_is_replayed(databases: Databases, replays: Replays) -> None:
    """The comparison is not one of Alembic with itself: of three alike, the third is hardly ever left to Alembic."""
    expected: Counter[bool] = Counter()

    @settings(_SETTINGS, max_examples=max(_EXAMPLES // 3, 5))
    @given(generated=fleets([STATIC]))
    def compare(generated: Generated) -> None:
        starts = Counter(member.start for member in generated.members if not member.drift)
        _compare(databases, replays, generated)
        if max(starts.values(), default=0) > 3:
            expected[bool(replays)] += 1

    compare()
    assert expected[True] > 2 * expected[False], expected


def _compare(databases: Databases, replays: Replays, generated: Generated) -> None:
    replays.clear()
    with tempfile.TemporaryDirectory() as directory, _twins(databases, generated, Path(directory)) as twins:
        project = _project(Path(directory), generated, twins)
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            result = runner.run(project.upgrade("heads", execution=ALL, provision=False)).as_json()
        found = {each["tenant"]: each for each in result["tenants"]}
        failures = {each.id: _migrate_plainly(Path(directory), each, twins.urls(each)[1]) for each in generated.members}
        for tenant, failure in failures.items():
            _tell(found[tenant], failure)
            _assert_same_end(found[tenant], failure)
        random = _assert_same(generated, twins)
    assert sum(map(len, random)) == len(set().union(*random)), "two tenants were given the same random values"
    dynamic = {revision.name for revision in generated.revisions if revision.kind in DYNAMIC}
    assert not [(tenant, names) for tenant, names in replays if dynamic.intersection(names)]


def _assert_same(generated: Generated, twins: Twins) -> list[set[str]]:
    """Compare all that the tenants hold; returns what differs by nature, for each."""
    together = [member.id for member in generated.members if not member.alone]
    ours, plain = (_held(url, together) for url in (twins.ours, twins.plain))
    for tenant, urls in twins.own.items():
        ours[tenant], plain[tenant] = (_held(url, ["public"])["public"] for url in urls)
    for tenant, held in ours.items():
        assert held.heads == plain[tenant].heads, tenant
        assert not (different := difference(plain[tenant].catalog, held.catalog)), "\n".join([tenant, *different])
        assert held.rows == plain[tenant].rows, tenant
    return [held.random for held in ours.values()]


def _tell(found: Mapping[str, Any], failure: Failure | None) -> None:
    """For whoever reads Hypothesis's report or its statistics."""
    event(f"{found['status']} by {found['path']}")
    note(f"{found['tenant']}: {found['status']} by {found['path']} {found['error']}; plainly: {failure}")


def _assert_same_end(found: Mapping[str, Any], failure: Failure | None) -> None:
    if failure is None:
        assert found["status"] in ("succeeded", "already_current"), found
    else:
        assert found["status"] in ("failed", "partial"), found
        assert found["error"]["revision"] == failure.revision, found


@contextmanager
def _twins(databases: Databases, generated: Generated, directory: Path) -> Iterator[Twins]:
    """A fleet as it is before the run: each tenant with rows of its own, some way into the history."""
    alone = [member.id for member in generated.members if member.alone]
    with databases.taken(2 * len(alone) + 2) as taken:
        pairs = list(zip(taken[::2], taken[1::2], strict=True))
        twins = Twins(*pairs[0], dict(zip(alone, pairs[1:], strict=True)))
        _write_plain(directory, generated)
        for member in generated.members:
            for url in twins.urls(member):
                _prepare(directory, member, url)
        yield twins


def _prepare(directory: Path, member: Member, url: str) -> None:
    _run(url, member, SITE, *member.rows)
    if member.start is not None:
        _migrate_plainly(directory, member, url, member.start)
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
    _write_revisions(generated, directory / "plain")
    for revision in generated.revisions:
        note(f"{revision.name}:{revision.source.partition('def upgrade')[2].partition('def downgrade')[0]}")


def _write_revisions(generated: Generated, directory: Path) -> None:
    versions = directory / "versions"
    versions.mkdir(exist_ok=True)
    for revision in generated.revisions:
        (versions / f"{revision.name}.py").write_text(revision.source, encoding="utf-8")


def _project(directory: Path, generated: Generated, twins: Twins) -> Project:
    tenants = [
        {"id": member.id, "isolation": "database", "database": database_of(twins.own[member.id][0])}
        if member.alone
        else {"id": member.id}
        for member in generated.members
    ]
    document = {"servers": {"main": {"url": twins.ours, "max_concurrency": 8}}, "tenants": tenants}
    env = _ENV.format(per_migration=generated.transaction_per_migration)
    project = make_project(directory / "project", {}, json.dumps(document), env)
    _write_revisions(generated, project.path / "alembic")
    return project


def _migrate_plainly(directory: Path, member: Member, url: str, target: str = "heads") -> Failure | None:
    """Let Alembic alone migrate one tenant."""
    config = Config(attributes={"url": url, "schema": None if member.alone else member.id})
    config.set_main_option("script_location", str(directory / "plain"))
    with ThreadPoolExecutor(max_workers=1) as executor:  # its env.py calls asyncio.run()
        error = executor.submit(command.upgrade, config, target).exception()
    if error is None:
        return None
    files = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    return Failure(error, next((file.stem for file in files if file.parent.name == "versions"), None))


def _held(url: str, schemas: list[str]) -> dict[str, Held]:
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
