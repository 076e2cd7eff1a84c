"""Replay changes how fast a fleet is migrated, and nothing else: generated fleets, beside plain Alembic's work."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from orchestrator.databases.postgresql.adapter import PostgreSQL
from tests.catalog import difference
from tests.fleets import database_of
from tests.generated import DYNAMIC, SPECIAL, STATIC, Generated, Member, fleets, written
from tests.projects import ALL, Project, make_project
from tests.servers import PostgresServer
from tests.twins import Failure, Twins, held_in, made_twins, migrate_plainly, say, write_revisions

#: Fleets for each kind of revision. More of them: GENERATED_FLEETS=50 make test PYTEST_ARGS="-k replay_property".
_EXAMPLES = int(os.environ.get("GENERATED_FLEETS", "3"))
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
_SETTINGS = settings(
    max_examples=_EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


Replays = list[tuple[str, tuple[str, ...]]]


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


@pytest.mark.parametrize("kind", SPECIAL)
def test_a_replayed_fleet_is_as_plain_alembic_makes_it(pg: PostgresServer, replays: Replays, kind: str) -> None:
    """Same catalogs, rows and heads; who fails, fails at the same revision; what Python finds out is not replayed."""

    @_SETTINGS
    @given(generated=fleets([STATIC, kind]))
    def compare(generated: Generated) -> None:
        _compare(pg, replays, generated)

    compare()


def test_what_a_file_alone_decides_is_replayed(pg: PostgresServer, replays: Replays) -> None:
    """The comparison is not one of Alembic with itself: of three alike, the third is hardly ever left to Alembic."""
    expected: Counter[bool] = Counter()

    @settings(_SETTINGS, max_examples=2 * _EXAMPLES)
    @given(generated=fleets([STATIC]))
    def compare(generated: Generated) -> None:
        starts = Counter(member.start for member in generated.members if not member.drift)
        _compare(pg, replays, generated)
        if max(starts.values(), default=0) > 3:
            expected[bool(replays)] += 1

    compare()
    assert expected[True] > 2 * expected[False], expected


@pytest.mark.parametrize(
    "change",
    [
        "SET TIME ZONE 'Asia/Tokyo'",
        "/* east */ SET SESSION TIME ZONE 'Asia/Tokyo'",
        "SELECT set_config('TimeZone', 'Asia/Tokyo', false)",
        "DO $$ BEGIN PERFORM set_config('TimeZone', 'Asia/Tokyo', false); END $$",
        "CREATE TEMPORARY TABLE note (note) AS SELECT 'of ' || current_schema()",
    ],
)
def test_what_follows_a_change_of_the_session_is_not_replayed(
    pg: PostgresServer, replays: Replays, change: str
) -> None:
    """One session runs all revisions in plain Alembic; a part that is replayed would not know what came before it."""
    late = "'2020-01-01 00:00'::timestamptz::text" if "TABLE" not in change else "(SELECT note FROM note)"
    bodies = [
        "op.execute(\"INSERT INTO site (name) VALUES ('first')\")",
        f"op.execute({change!r})",
        'op.get_bind().scalar(sa.text("SELECT 1"))',
        f'op.execute(sa.text("UPDATE site SET note = {late}".replace(":", "\\\\:")))',
    ]
    _compare(pg, replays, _by_hand(bodies))
    assert {names for _, names in replays} == {("r1_static",)}


def test_what_depends_on_rows_alone_is_replayed(pg: PostgresServer, replays: Replays) -> None:
    """The server decides it for each tenant, whoever sends the statement."""
    bodies = [
        'op.execute("UPDATE site SET number = 12 / number")',
        'op.execute("INSERT INTO site (name) SELECT note FROM site")',
    ]
    rows = [("INSERT INTO site (number) VALUES (3)",)] * 3 + [("INSERT INTO site (number) VALUES (0)",)] + [()] * 2
    _compare(pg, replays, _by_hand(bodies, rows))
    assert len(replays) >= 3


def _by_hand(bodies: list[str], rows: Sequence[tuple[str, ...]] = ((),) * 4) -> Generated:
    """A straight history of revisions that look static, and a tenant for each of ``rows``."""
    names = [(), *((f"r{number}_static",) for number in range(1, len(bodies)))]
    revisions = [written(number, STATIC, names[number - 1], body) for number, body in enumerate(bodies, start=1)]
    members = [Member(f"Tenant-{number}", False, None, its, ()) for number, its in enumerate(rows)]
    return Generated(tuple(revisions), tuple(members), transaction_per_migration=True)


def _compare(pg: PostgresServer, replays: Replays, generated: Generated) -> None:
    replays.clear()
    with tempfile.TemporaryDirectory() as directory, made_twins(pg, generated, Path(directory)) as twins:
        project = _project(Path(directory), generated, twins)
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            result = runner.run(project.upgrade("heads", execution=ALL, provision=False)).as_json()
        found = {each["tenant"]: each for each in result["tenants"]}
        failures = {each.id: migrate_plainly(Path(directory), each, twins.urls(each)[1]) for each in generated.members}
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
    ours, plain = (held_in(url, together) for url in (twins.ours, twins.plain))
    for tenant, urls in twins.own.items():
        ours[tenant], plain[tenant] = (held_in(url, ["public"])["public"] for url in urls)
    for tenant, held in ours.items():
        assert held.heads == plain[tenant].heads, tenant
        assert not (different := difference(plain[tenant].catalog, held.catalog)), "\n".join([tenant, *different])
        assert held.rows == plain[tenant].rows, tenant
    return [held.random for held in ours.values()]


def _tell(found: Mapping[str, Any], failure: Failure | None) -> None:
    say(f"{found['tenant']}: {found['status']} by {found['path']} {found['error']}; plainly: {failure}")


def _assert_same_end(found: Mapping[str, Any], failure: Failure | None) -> None:
    if failure is None:
        assert found["status"] in ("succeeded", "already_current"), found
    else:
        assert found["status"] in ("failed", "partial"), found
        assert found["error"]["revision"] == failure.revision, found


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
    write_revisions(generated, project.path / "alembic")
    return project
