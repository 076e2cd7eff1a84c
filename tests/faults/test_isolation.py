"""Migrating one tenant changes that tenant alone, whatever lies beside it and wherever the role's own path leads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from orchestrator.actions.execution import Execution
from tests.projects import Project, make_project, schemas, statuses, with_role
from tests.replays import paths
from tests.servers import PostgresServer, execute, fetch
from tests.twins import held_in

#: A history of what goes astray where the path is wrong: names that public has as well, ENUMs, autocommit blocks, data.
REVISIONS = {
    "r1": """
        def upgrade():
            op.create_table(
                "people",
                sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
                sa.Column("mood", sa.Enum("good", "bad", name="mood")),
            )
            owner = sa.Column("owner", sa.Integer, sa.ForeignKey("people.id"))
            op.create_table("pets", owner, sa.Column("name", sa.Text))
            op.execute("INSERT INTO people (mood) VALUES ('good'), ('bad')")
            op.execute("INSERT INTO pets SELECT id, 'Rex' FROM people")

        def downgrade():
            op.drop_table("pets")
            op.drop_table("people")
            op.execute("DROP TYPE mood")
    """,
    "r2": """
        def upgrade():
            op.execute("UPDATE people SET mood = 'bad'")
            op.execute("DELETE FROM pets WHERE owner = (SELECT min(id) FROM people)")
            op.execute("CREATE FUNCTION howl() RETURNS text LANGUAGE sql AS $$SELECT max(name) FROM pets$$")
            op.execute("CREATE VIEW sad AS SELECT * FROM people WHERE mood = 'bad'")
            op.execute("ALTER TABLE IF EXISTS pets ADD COLUMN IF NOT EXISTS age int")
            op.execute("DROP TABLE IF EXISTS leftover")

        def downgrade():
            op.execute("ALTER TABLE pets DROP COLUMN age")
            op.execute("DROP VIEW sad")
            op.execute("DROP FUNCTION howl()")
    """,
    "r3": """
        def upgrade():
            op.add_column("people", sa.Column("name", sa.Text))
            with op.get_context().autocommit_block():
                op.execute("ALTER TYPE mood ADD VALUE 'tired'")
                op.create_index("ix_people_name", "people", ["name"], postgresql_concurrently=True)
            op.execute("INSERT INTO people (mood, name) VALUES ('tired', 'Ann')")

        def downgrade():
            with op.get_context().autocommit_block():
                op.drop_index("ix_people_name", postgresql_concurrently=True)
            op.execute("DELETE FROM people WHERE mood = 'tired'")
            op.drop_column("people", "name")
    """,
    "r4": """
        def upgrade():
            op.create_index("ix_pets_name", "pets", ["name"])
            op.execute("TRUNCATE pets")
            op.execute("INSERT INTO pets SELECT id, howl(), 1 FROM sad")

        def downgrade():
            op.drop_index("ix_pets_name")
    """,
}
#: Neighbours that are never meant, some way into the history; the same application has public, too, at head.
BESIDE = {"bystander": "r2", "Other": "r4", "public": "r3"}
#: Those that are migrated: enough for the last ones to be replayed.
TENANTS = ["a", "b", "c", "d", "e"]
#: Paths that an administrator has set for everybody who connects.
PATHS = ["public", "bystander", '"$user", public', '"Other", bystander, public, extensions']
#: The same, and where it is set.
SET_ON = [
    ("ROLE {role}", ""),
    *((whom, path) for path in PATHS for whom in ("ROLE {role}", "DATABASE {database}")),
    ("ROLE {role} IN DATABASE {database}", "bystander, public"),
]


def make_fleet(path: Path, url: str, role_url: str) -> Project:
    """A project of tenants and neighbours, and extensions in public and beside it."""
    everybody = [*TENANTS, *BESIDE]
    project = make_project(path, REVISIONS, schemas(role_url, *everybody))
    execute(url, "CREATE EXTENSION pg_trgm; CREATE SCHEMA extensions")
    execute(url, "CREATE EXTENSION citext SCHEMA extensions")
    return project


def everything(url: str) -> Mapping[str, Any]:
    """What every schema of the database holds: definitions and rows."""
    names = [row[0] for row in fetch(url, "SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information_)'")]
    return held_in(url, names)


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    """Schemas that are not as they were."""
    return {name for name in {*before, *after} if before.get(name) != after.get(name)}


@pytest.fixture
def role(pg: PostgresServer) -> Any:
    """A database, and the address of it for a role of the test's own; it goes first, with what the role has."""
    url = pg.create_database()
    name = f"migrator_{urlsplit(url).path.lstrip('/')}"
    execute(url, f"CREATE ROLE {name} LOGIN SUPERUSER PASSWORD 'unused'")
    yield url, with_role(url, name, "unused"), name
    pg.drop_database(url)
    execute(pg.url, f"DROP ROLE {name}")


@pytest.mark.parametrize(("set_on", "search_path"), SET_ON)
async def test_only_the_tenant(tmp_path: Path, role: tuple[str, str, str], set_on: str, search_path: str) -> None:
    """One tenant alone through Alembic, then the others replayed, then back: no other schema changes at any time."""
    url, role_url, name = role
    project = make_fleet(tmp_path, url, role_url)
    for neighbour, revision in BESIDE.items():
        result = await project.upgrade(revision, tenants=[neighbour])
        assert statuses(result) == {neighbour: "succeeded"}, result.as_json()["causes"]
    execute(url, "CREATE TABLE leftover (id int)" + "".join(f"; CREATE SCHEMA {tenant}" for tenant in TENANTS))
    if search_path:
        whom = set_on.format(role=name, database=f'"{urlsplit(url).path.lstrip("/")}"')
        execute(url, f"ALTER {whom} SET search_path = {search_path}")
    start = everything(url)

    result = await project.upgrade(tenants=["a"])
    alone = everything(url)
    assert (statuses(result), paths(result)) == ({"a": "succeeded"}, {"a": "alembic"})
    assert changed(start, alone) == {"a"}

    result = await project.upgrade(tenants=TENANTS[1:], execution=Execution(jobs=1))
    together = everything(url)
    assert statuses(result) == dict.fromkeys(TENANTS[1:], "succeeded")
    assert paths(result)["e"] == "mixed"
    assert changed(alone, together) == set(TENANTS[1:])
    assert {tenant: together[tenant] for tenant in TENANTS} == dict.fromkeys(TENANTS, together["a"])

    for tenant in TENANTS:
        before = everything(url)
        await project.downgrade("base", tenants=[tenant])
        assert changed(before, everything(url)) == {tenant}
