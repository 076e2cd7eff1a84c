"""A PostgreSQL schema is put back: what hangs on it from outside, the schema public, what fails after the commit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from orchestrator.databases.connect import connect
from orchestrator.databases.dumping import Restored
from orchestrator.databases.postgresql.session import lock_key
from orchestrator.errors import BackupError
from orchestrator.fleet.secrets import Template
from orchestrator.fleet.tenant import Isolation, Limits, Server, Tenant
from tests.client_programs import Programs
from tests.places import IMPATIENT, LIMITS, ROWS, Place
from tests.projects import until, with_role
from tests.servers import PostgresServer, execute, fetch


def place_at(url: str, tmp_path: Path, schema: str = "a") -> Place:
    """A tenant in a schema of the database at ``url``, not made yet."""
    database = connect(Server("main", Template(url, tmp_path)))
    return Place(database, Tenant("a", "main", Isolation.SCHEMA, schema), tmp_path / "dump")


@pytest.fixture
async def place(database: str, tmp_path: Path) -> AsyncIterator[Place]:
    """A tenant with rows in the schema ``a``."""
    made = place_at(database, tmp_path)
    await made.fill()
    execute(database, "CREATE FUNCTION a.same(x text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT x'")
    yield made
    await made.database.close()


def beside(url: str) -> list[str]:
    """Schemas that a restore has left."""
    return [row[0] for row in fetch(url, "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'orchestrator%'")]


#: By kind: how something outside of ``a`` comes to depend on it, and a word that names it.
OUTSIDERS = {
    "view": ("CREATE VIEW public.seen AS TABLE a.notes", "public.seen"),
    "view of one column": ("CREATE VIEW public.seen AS SELECT a.same('x')", "public.seen"),
    "materialized view": ("CREATE MATERIALIZED VIEW public.seen AS TABLE a.notes", "public.seen"),
    "foreign key": ("CREATE TABLE public.marks (note int REFERENCES a.notes)", "marks_note_fkey on public.marks"),
    "body": ("CREATE FUNCTION public.f() RETURNS bigint BEGIN ATOMIC SELECT count(*) FROM a.notes; END", "public.f()"),
    "argument": ("CREATE FUNCTION public.f(a.notes) RETURNS int LANGUAGE sql AS 'SELECT 1'", "public.f(a.notes)"),
    "default": ("CREATE TABLE public.t (x text DEFAULT a.same('x'))", "public.t"),
    "sequence": ("CREATE SEQUENCE a.s; CREATE TABLE public.t (x int DEFAULT nextval('a.s'))", "public.t"),
    "generated": ("CREATE TABLE public.t (x text, y text GENERATED ALWAYS AS (a.same(x)) STORED)", "public.t"),
    "check": ("CREATE TABLE public.t (x text CONSTRAINT short CHECK (a.same(x) = x))", "short on public.t"),
    "index": ("CREATE TABLE public.t (x text); CREATE INDEX ix ON public.t (a.same(x))", "public.ix"),
    "trigger": (
        "CREATE FUNCTION a.tf() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TABLE public.t ();"
        "CREATE TRIGGER tr BEFORE INSERT ON public.t FOR EACH ROW EXECUTE FUNCTION a.tf()",
        "tr on public.t",
    ),
    "policy": ("CREATE TABLE public.t (x text); CREATE POLICY po ON public.t USING (a.same(x) = x)", "po on public.t"),
    "rule": (
        "CREATE TABLE public.t (x text); CREATE RULE ru AS ON DELETE TO public.t DO ALSO DELETE FROM a.notes",
        "ru on public.t",
    ),
    "event trigger": (
        "CREATE FUNCTION a.ef() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
        "CREATE EVENT TRIGGER et ON ddl_command_end EXECUTE FUNCTION a.ef()",
        "event trigger et",
    ),
    "publication": ("CREATE PUBLICATION pu FOR TABLE a.notes", "in publication pu"),
    "publication of schemas": ("CREATE PUBLICATION pu FOR TABLES IN SCHEMA a", "in publication pu"),
    "inheritance": ("CREATE TABLE public.child () INHERITS (a.notes)", "public.child"),
    "partition": (
        "CREATE TABLE a.parts (x int) PARTITION BY LIST (x);"
        "CREATE TABLE public.part PARTITION OF a.parts FOR VALUES IN (1)",
        "public.part",
    ),
    "column of a type": ("CREATE TYPE a.mood AS ENUM ('x'); CREATE TABLE public.t (x a.mood)", "public.t"),
    "column of an array": ("CREATE TYPE a.mood AS ENUM ('x'); CREATE TABLE public.t (x a.mood[])", "public.t"),
    "column of a row": ("CREATE TABLE public.t (x a.notes)", "public.t"),
    "domain": ("CREATE DOMAIN a.d AS text; CREATE DOMAIN public.e AS a.d", "public.e"),
    "range": ("CREATE TYPE a.c AS (x int); CREATE TYPE public.c AS (y a.c)", "public.c"),
    "operator": (
        "CREATE FUNCTION a.eq(int, text) RETURNS bool LANGUAGE sql AS 'SELECT true';"
        "CREATE OPERATOR public.=== (LEFTARG = int, RIGHTARG = text, FUNCTION = a.eq)",
        "public.===",
    ),
    "cast": (
        "CREATE TYPE a.c AS (x int); CREATE FUNCTION a.c(int) RETURNS a.c LANGUAGE sql AS 'SELECT row($1)::a.c';"
        "CREATE CAST (int AS a.c) WITH FUNCTION a.c(int)",
        "cast (integer AS a.c)",
    ),
    "text search": (
        "CREATE TEXT SEARCH DICTIONARY a.dict (TEMPLATE = simple); CREATE TEXT SEARCH CONFIGURATION public.tc (COPY ="
        " simple); ALTER TEXT SEARCH CONFIGURATION public.tc ALTER MAPPING FOR word WITH a.dict",
        "public.tc",
    ),
    "collation": (
        'CREATE COLLATION a.co FROM "C"; CREATE TABLE public.t (x text COLLATE a.co)',
        "public.t",
    ),
    "extension": ("CREATE EXTENSION citext SCHEMA a", "citext"),
    "part of an extension": ("CREATE EXTENSION citext; ALTER EXTENSION citext ADD FUNCTION a.same(text)", "citext"),
}


@pytest.mark.parametrize("kind", OUTSIDERS)
async def test_what_hangs_on_it_from_outside(place: Place, pg: PostgresServer, database: str, kind: str) -> None:
    """Whatever it is: it is named before anything is touched, and it is still there afterwards."""
    statements, named = OUTSIDERS[kind]
    await place.save()
    if kind == "publication of schemas" and pg.server_version < 150000:
        statements = OUTSIDERS["publication"][0]
    execute(database, statements)
    await place.run("DELETE FROM notes")
    with pytest.raises(BackupError, match="outside of schema 'a' refers to it") as refused:
        await place.put_back()
    assert named in refused.value.message
    assert await place.rows() == []
    assert beside(database) == []


#: What a tenant may have of its own, and may refer to elsewhere, without anything outside depending on it.
OWN = """
CREATE EXTENSION citext SCHEMA public;
CREATE TABLE public.plans (id int PRIMARY KEY);
CREATE TYPE a.mood AS ENUM ('x', 'y');
CREATE DOMAIN a.short AS text CHECK (length(VALUE) < 9);
CREATE TABLE a.many (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n serial, mood a.mood[], short a.short, plan int REFERENCES plans,
    note int REFERENCES a.notes ON DELETE CASCADE, self int REFERENCES a.many, mail public.citext,
    big text, twice text GENERATED ALWAYS AS (a.same(big)) STORED, CHECK (n > 0), UNIQUE (n, plan),
    EXCLUDE USING btree (n WITH =));
CREATE INDEX ON a.many (a.same(big)) WHERE n > 1;
CREATE STATISTICS a.st ON n, plan FROM a.many;
CREATE TABLE a.parts (x int, y int REFERENCES a.many, PRIMARY KEY (x)) PARTITION BY LIST (x);
CREATE TABLE a.part PARTITION OF a.parts FOR VALUES IN (1);
CREATE TABLE a.mother (id int PRIMARY KEY); CREATE TABLE a.child (more a.mother) INHERITS (a.mother);
CREATE VIEW a.seen AS SELECT m.*, p.id AS theirs FROM a.many m JOIN public.plans p ON p.id = plan;
CREATE MATERIALIZED VIEW a.kept AS SELECT count(*) FROM a.seen;
CREATE RULE ru AS ON DELETE TO a.parts DO ALSO DELETE FROM a.many;
CREATE FUNCTION a.tf() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER tr BEFORE INSERT ON a.parts FOR EACH ROW EXECUTE FUNCTION a.tf();
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON a.many DEFERRABLE FOR EACH ROW EXECUTE FUNCTION a.tf();
ALTER TABLE a.many ENABLE ROW LEVEL SECURITY; CREATE POLICY po ON a.many USING (a.same(big) = big);
CREATE FUNCTION a.counted() RETURNS bigint BEGIN ATOMIC SELECT count(*) FROM a.many; END;
CREATE FUNCTION a.less(a.mood, a.mood) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT $1::text < $2::text';
CREATE FUNCTION a.cmp(a.mood, a.mood) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 0';
CREATE OPERATOR a.<<< (LEFTARG = a.mood, RIGHTARG = a.mood, FUNCTION = a.less);
CREATE OPERATOR FAMILY a.fam USING btree;
CREATE OPERATOR CLASS a.cls FOR TYPE a.mood USING btree FAMILY a.fam AS
    OPERATOR 1 a.<<<, FUNCTION 1 a.cmp(a.mood, a.mood);
CREATE AGGREGATE a.total (int) (SFUNC = int4pl, STYPE = int);
CREATE COLLATION a.co FROM "C";
CREATE TEXT SEARCH DICTIONARY a.dict (TEMPLATE = simple);
CREATE TEXT SEARCH CONFIGURATION a.tc (COPY = simple);
ALTER TEXT SEARCH CONFIGURATION a.tc ALTER MAPPING FOR word WITH a.dict;
CREATE TYPE a.span AS RANGE (SUBTYPE = int);
ALTER DEFAULT PRIVILEGES IN SCHEMA a GRANT SELECT ON TABLES TO pg_monitor;
GRANT SELECT ON a.many TO pg_monitor; COMMENT ON TABLE a.many IS 'many';
"""


async def test_what_is_its_own_does_not_hinder(place: Place, database: str) -> None:
    """All kinds of objects in the schema, and what they are made of elsewhere in the catalogs, are dropped with it."""
    execute(database, OWN)
    await place.save()
    await place.run("DELETE FROM notes")
    for _ in range(2):
        assert await place.put_back() == Restored()
    assert await place.rows() == ROWS
    assert beside(database) == []


async def test_view_that_is_made_meanwhile(place: Place, programs: Programs, database: str) -> None:
    """It keeps what it was made over: the old schema stays aside and is told, until nothing refers to it any more."""
    await place.save()
    await place.run("DELETE FROM notes WHERE id > 0")
    async with programs.held(place.put_back()) as restoring:
        execute(database, "CREATE VIEW public.late AS TABLE a.notes")
    restored: Any = await restoring
    (aside,) = beside(database)
    assert restored.left == f"schema {aside}"
    assert "view public.late" in (restored.why or "") or "on public.late" in (restored.why or "")
    assert await place.rows() == ROWS
    assert len(fetch(database, "SELECT * FROM public.late")) == 1

    await place.run("DELETE FROM notes")
    with pytest.raises(BackupError, match=f"schema {aside} is left of an earlier restore.*public.late"):
        await place.put_back()
    assert await place.rows() == []
    execute(database, "DROP VIEW public.late")
    assert await place.put_back() == Restored()
    assert (await place.rows(), beside(database)) == (ROWS, [])


def belongings(url: str) -> list[Any]:
    """Owner, rights and comment of public."""
    return fetch(
        url,
        "SELECT pg_get_userbyid(nspowner), obj_description(n.oid, 'pg_namespace'), array(SELECT row(grantee::regrole,"
        " privilege_type, is_grantable)::text FROM aclexplode(coalesce(nspacl, acldefault('n', nspowner))) ORDER BY 1)"
        " FROM pg_namespace n WHERE nspname = 'public'",
    )


@pytest.fixture
async def public(database: str, tmp_path: Path) -> AsyncIterator[Place]:
    """A tenant in the schema ``public``."""
    made = place_at(database, tmp_path, "public")
    await made.fill()
    yield made
    await made.database.close()


@pytest.mark.parametrize(
    "changes",
    [
        "SELECT 1",
        "GRANT CREATE ON SCHEMA public TO PUBLIC; COMMENT ON SCHEMA public IS 'it''s \\ ours'",
        "REVOKE ALL ON SCHEMA public FROM PUBLIC; COMMENT ON SCHEMA public IS NULL",
        "ALTER SCHEMA public OWNER TO pg_monitor; GRANT USAGE ON SCHEMA public TO pg_read_all_data WITH GRANT OPTION;"
        "REVOKE CREATE ON SCHEMA public FROM pg_monitor",
    ],
    ids=["as new", "granted", "revoked", "another owner"],
)
async def test_public(public: Place, database: str, changes: str) -> None:
    """Its owner, its rights and its comment are what they were, as those of any other tenant are."""
    execute(database, changes)
    before = belongings(database)
    await public.save()
    await public.run("DELETE FROM notes")
    for _ in range(2):
        assert await public.put_back() == Restored()
        assert belongings(database) == before
    assert (await public.rows(), beside(database)) == (ROWS, [])


async def test_rights_of_public_that_were_taken_since(public: Place, database: str) -> None:
    """The backup says that everybody may create there: what the live one says counts."""
    execute(database, "GRANT CREATE ON SCHEMA public TO PUBLIC; GRANT USAGE ON SCHEMA public TO pg_monitor")
    await public.save()
    execute(database, "REVOKE CREATE ON SCHEMA public FROM PUBLIC; REVOKE USAGE ON SCHEMA public FROM pg_monitor")
    before = belongings(database)
    assert await public.put_back() == Restored()
    assert belongings(database) == before


async def test_public_by_the_owner_of_the_database(pg: PostgresServer, database: str, tmp_path: Path) -> None:
    """Whoever owns the database can put its public back; no superuser is needed."""
    execute(
        database,
        "DO $$ BEGIN CREATE ROLE owner_of_one LOGIN NOSUPERUSER; EXCEPTION WHEN duplicate_object THEN NULL; END $$;"
        f'ALTER DATABASE "{urlsplit(database).path[1:]}" OWNER TO owner_of_one',
    )
    if pg.server_version < 150000:
        execute(database, "ALTER SCHEMA public OWNER TO owner_of_one")
    public = place_at(with_role(database, "owner_of_one", "x"), tmp_path, "public")
    await public.fill()
    before = belongings(database)
    await public.save()
    await public.run("DELETE FROM notes")
    assert await public.put_back() == Restored()
    assert (await public.rows(), belongings(database)) == (ROWS, before)
    await public.database.close()


async def test_public_that_is_gone(public: Place, database: str) -> None:
    """No backup tells what it was like: refused, with what makes it; then it is put back."""
    before = belongings(database)
    await public.save()
    execute(database, "DROP SCHEMA public CASCADE")
    with pytest.raises(BackupError, match="public is not there") as refused:
        await public.put_back()
    assert fetch(database, "SELECT 1 FROM pg_namespace WHERE nspname = 'public'") == []
    execute(database, (refused.value.hint or "").partition("restore then: ")[2])
    assert await public.put_back() == Restored()
    assert [row[2] for row in belongings(database)] == [row[2] for row in before]
    assert await public.rows() == ROWS


async def still_locked(url: str, key: int) -> bool:
    """Whether somebody who has said nothing for a second has an advisory lock, rather than nobody any more."""
    raw = await asyncpg.connect(url)
    look = (
        "SELECT now() - state_change > '1s' AND state = 'idle' FROM pg_locks JOIN pg_stat_activity USING (pid)"
        " WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND datname = current_database()"
        f" AND ((classid::bigint << 32) | objid::bigint) = {key} AND state LIKE 'idle'"
    )
    try:
        return bool(await until(lambda: raw.fetch(look), lambda found: not found or any(row[0] for row in found)))
    finally:
        await raw.close()


async def test_role_that_may_not_be_idle(database: str, tmp_path: Path, programs: Programs) -> None:
    """Whoever waits for psql keeps the tenant's lock, whatever the role is allowed; psql waits for pg_restore, too."""
    execute(database, IMPATIENT)
    place = place_at(with_role(database, "impatient", "x"), tmp_path)
    await place.fill()
    await place.save()
    await place.run("DELETE FROM notes")
    async with programs.held(place.put_back()) as restoring:
        assert await still_locked(database, lock_key(urlsplit(database).path[1:], "a"))
    assert await restoring == Restored()
    assert await place.rows() == ROWS
    await place.database.close()


async def test_backup_by_a_role_that_may_not_be_idle(database: str, tmp_path: Path) -> None:
    """Who holds a tenant's lock while pg_dump works is not ended for saying nothing."""
    execute(database, IMPATIENT)
    place = place_at(with_role(database, "impatient", "x"), tmp_path)
    await place.fill()
    async with place.database.session(place.tenant, "suite", LIMITS) as session:
        assert await session.try_lock()
        assert await still_locked(database, lock_key(urlsplit(database).path[1:], "a"))
    await place.database.close()


async def test_lock_that_is_lost_meanwhile(place: Place, programs: Programs, database: str) -> None:
    """psql has the lock as well, so it goes on; what was replaced is dropped on another connection."""
    await place.save()
    await place.run("DELETE FROM notes")
    key = lock_key(urlsplit(database).path[1:], "a")
    end = (
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype ="
        f" 'advisory' AND ((classid::bigint << 32) | objid::bigint) = {key} AND application_name <> 'suite'"
    )
    async with programs.held(place.put_back()) as restoring:
        assert len(fetch(database, end)) == 1
    assert await restoring == Restored()
    assert (await place.rows(), beside(database)) == (ROWS, [])


async def test_old_schema_that_cannot_be_dropped(place: Place, programs: Programs, database: str) -> None:
    """Somebody still reads it: the tenant is restored, what is left is told with its reason, and goes the next time."""
    await place.save()
    await place.run("DELETE FROM notes WHERE id > 0")
    reader = await asyncpg.connect(database)
    async with programs.held(place.put_back(limits=Limits(lock_timeout=0.2))) as restoring:
        await reader.execute("BEGIN; SELECT * FROM a.notes")
    restored: Any = await restoring
    assert (restored.left, "lock timeout" in restored.why) == (f"schema {beside(database)[0]}", True)
    assert await place.rows() == ROWS
    await reader.close()
    assert await place.put_back() == Restored()
    assert beside(database) == []


async def test_commit_whose_answer_is_lost(place: Place, programs: Programs, database: str) -> None:
    """psql ends with an error after the server has committed: looking tells, and the tenant is restored."""
    programs.script("psql", '#!/bin/sh\n{program} "$@"; echo "connection lost" >&2; exit 2\n')
    await place.save()
    await place.run("DELETE FROM notes")
    assert await place.put_back() == Restored()
    assert (await place.rows(), beside(database)) == (ROWS, [])


async def test_commit_that_never_arrived(place: Place, programs: Programs, database: str) -> None:
    """The same error without a commit: looking tells, and the tenant is what it was."""
    without = "#!/bin/sh\nsed -u '/^COMMIT;$/d' | {program} \"$@\"; echo 'connection lost' >&2; exit 2\n"
    programs.script("psql", without)
    await place.save()
    await place.run("DELETE FROM notes")
    with pytest.raises(BackupError, match="connection lost"):
        await place.put_back()
    assert (await place.rows(), beside(database)) == ([], [])
