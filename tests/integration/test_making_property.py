"""However a new tenant comes to its target, it holds what plain Alembic makes: generated histories."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from orchestrator.actions.onboarding.making import NotMade, Way, make, prepare
from orchestrator.actions.project import opened_project
from orchestrator.errors import DatabaseError
from orchestrator.fleet.tenant import Isolation, Limits
from tests.catalog import difference
from tests.fleets import database_of
from tests.generated import SITE, SPECIAL, STATIC, Generated, Member, fleets, written
from tests.projects import ENV, Project, make_project, schemas
from tests.servers import PostgresServer, execute, fetch
from tests.twins import Held, held_in, made_twins, migrate_plainly, say, write_revisions

#: Histories for each kind of revision. More of them: GENERATED_FLEETS=50 make test PYTEST_ARGS="-k making_property".
_EXAMPLES = int(os.environ.get("GENERATED_FLEETS", "2"))
_SETTINGS = settings(
    max_examples=_EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
_COPY = "making_generated"
#: The fast ways that were taken over all histories.
Taken = Counter[Way]


@pytest.mark.parametrize("kind", [STATIC, *SPECIAL])
def test_each_way_makes_what_alembic_makes(pg: PostgresServer, kind: str) -> None:
    """Catalogs, rows and heads are plain Alembic's in a schema and in a database, and who fails, fails there, too."""
    taken: Taken = Counter()

    @_SETTINGS
    @given(generated=fleets([STATIC, kind]))
    def compare(generated: Generated) -> None:
        # From nothing: the table that an operator has made in every tenant is made by a first revision.
        first = written(0, STATIC, (), f"op.execute({SITE!r})")
        revisions = [
            replace(each, source=each.source.replace("down_revision = None", f"down_revision = {first.name!r}"))
            for each in generated.revisions
        ]
        taken.update(_compare(pg, replace(generated, revisions=(first, *revisions), members=())))

    compare()
    if kind == STATIC:
        assert taken[Way.REPLAY] >= _EXAMPLES // 2, taken


def _compare(pg: PostgresServer, generated: Generated) -> list[Way]:
    with tempfile.TemporaryDirectory() as directory, made_twins(pg, generated, Path(directory)) as twins:
        there, alone = (Member(name, its, None, (), ()) for name, its in (("Tenant-0", False), ("alone", True)))
        execute(twins.plain, f'CREATE SCHEMA "{there.id}"')
        failures = [migrate_plainly(Path(directory), each, twins.plain) for each in (there, alone)]
        (Path(directory) / "project").mkdir()
        env = ENV.replace("migration=True", f"migration={generated.transaction_per_migration}")
        project = make_project(Path(directory) / "project", {}, schemas(twins.ours, "Tenant-0"), env)
        write_revisions(generated, project.path / "alembic")
        try:
            with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
                ways = runner.run(_made(project))
            assert (ways == []) == any(failures)
            if ways:
                _assert_same(held_in(twins.plain, [there.id])[there.id], held_in(twins.ours, ["Tenant-0"]))
                copy = twins.ours.removesuffix(database_of(twins.ours)) + _COPY
                _assert_same(held_in(twins.plain, ["public"])["public"], held_in(copy, ["public"]))
        finally:
            for (name,) in fetch(
                twins.ours, f"SELECT datname FROM pg_database WHERE datname ~ '^orchestrator_template|^{_COPY}'"
            ):
                execute(twins.ours, f'ALTER DATABASE "{name}" IS_TEMPLATE false')
                execute(twins.ours, f'DROP DATABASE "{name}"')
    return ways


async def _made(project: Project) -> list[Way]:
    """Make a schema and a database by the fastest ways; nothing where the history cannot be run."""
    async with opened_project(project.fleet) as opened:
        ours = opened.fleet.tenants[0]
        ways = []
        for each in (ours, replace(ours, isolation=Isolation.DATABASE, schema=None, database=_COPY)):
            try:
                say(f"{(await prepare(opened, each, 'heads')).closed}")
            except DatabaseError as error:
                say(str(error))
            try:
                made = await make(opened, each, "heads", application="test", limits=Limits())
            except NotMade as error:
                say(str(error))
                return []
            say(json.dumps([made.way, dict(made.not_taken)]))
            ways.append(made.way)
    return ways


def _assert_same(plain: Held, found: dict[str, Held]) -> None:
    (ours,) = found.values()
    assert ours.heads == plain.heads
    assert not (different := difference(plain.catalog, ours.catalog)), "\n".join(different)
    assert ours.rows == plain.rows
    assert not ours.random & plain.random, "two tenants were given the same random values"
