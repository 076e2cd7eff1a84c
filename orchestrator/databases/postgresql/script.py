"""Migrations of one PostgreSQL tenant as one script: what was recorded on others of its kind, with guards around it.

The whole script is one message of the simple query protocol, hence one round trip. Each transaction of it commits by
itself, as Alembic's did. A guard that does not hold raises: what runs is rolled back, and what follows is not run
(https://www.postgresql.org/docs/current/protocol-flow.html, "Multiple Statements in a Simple Query").
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

#: What a guard's error says, before the word for what did not hold.
REFUSED = "orchestrator refuses: "

#: What DISCARD ALL does (https://www.postgresql.org/docs/current/sql-discard.html), which is refused in a script of
#: several statements. Not asked for by what was replayed: a trigger can take a lock or set a role as well.
_CLEAN = (
    "CLOSE ALL",
    "SET SESSION AUTHORIZATION DEFAULT",
    "RESET ALL",
    "DEALLOCATE ALL",
    "UNLISTEN *",
    "SELECT pg_advisory_unlock_all()",
    "DISCARD TEMP",
    "DISCARD SEQUENCES",
)


@dataclass(frozen=True, slots=True)
class Step:
    """One transaction of a tenant's migration."""

    #: Revisions that it runs, in order.
    revisions: tuple[str, ...]
    #: Heads at its beginning and at its end, sorted.
    before: tuple[str, ...]
    after: tuple[str, ...]
    #: What is sent between the two, apart from changes of the version table.
    statements: tuple[str, ...]
    #: How to make the version table where there is none, without a schema in it; only for a step from base.
    version_table: str | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a schema holds, as SQL that makes it anew in a schema of the same name."""

    #: The name of the schema, which the SQL says everywhere.
    schema: str
    #: Statements, without one that makes the schema.
    sql: str
    #: Heads in its version table, sorted.
    heads: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """One tenant, as a script means it."""

    #: The database that the connection is thought to be to; its server's word decides.
    database: str
    #: Its schema; ``None`` for a database of its own.
    schema: str | None
    #: Key of its advisory lock.
    key: int
    #: Name of its version table.
    version_table: str
    #: Settings of the session, ``search_path`` among them where the connection alone does not say it.
    settings: Mapping[str, str]


def identifier(name: str) -> str:
    """``name`` as an identifier in SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """``text`` as a string constant, whatever ``standard_conforming_strings`` says."""
    escaped = text.replace("'", "''")
    return f"'{escaped}'" if "\\" not in text else " E'" + escaped.replace("\\", "\\\\") + "'"


def script(place: Place, steps: Sequence[Step]) -> str:
    """What brings the tenant at ``place`` through ``steps``, and raises where it cannot be sure to.

    It needs a session without settings of its own, and leaves one, unless it raises: then the session is to be closed.

    Args:
        place: which tenant.
        steps: one after the other, each beginning where the one before it ended; at least one.
    """
    return ";\n".join(_statements(place, steps))


def fill(place: Place, made: Step | Snapshot) -> str:
    """What fills the empty schema at ``place``, and raises where it cannot be sure to; its transaction stays open.

    Nobody sees anything of it before whoever asks has looked at it and commits; cut off, it leaves the schema empty.
    """
    return ";\n".join(_filling(place, made))


def filled(place: Place, heads: Collection[str]) -> str:
    """What commits it, and raises where that has not taken place."""
    return f"COMMIT;\n{_guard(uncommitted=_heads_are(_qualified(place), heads))}"


def enter(settings: Mapping[str, str]) -> str:
    """One statement that makes ``settings`` for the session."""
    calls = (f"set_config({literal(name)}, {literal(value)}, false)" for name, value in settings.items())
    return f"SELECT {', '.join(calls)}"


def heads_guard(schema: str | None, version_table: str, heads: Collection[str]) -> str:
    """A query that raises unless a version table says ``heads``.

    Args:
        schema: its schema; ``None`` for where the search path finds it.
        version_table: its name.
        heads: at least one.
    """
    table = identifier(version_table) if schema is None else f"{identifier(schema)}.{identifier(version_table)}"
    return _guard(heads=_heads_are(table, heads))


def _statements(place: Place, steps: Sequence[Step]) -> Iterator[str]:
    table = _qualified(place)
    yield enter(place.settings)
    # A statement of its own: what is read in one statement is as it was before that statement began.
    database = f"current_database() IS NOT DISTINCT FROM {literal(place.database)}"
    yield _guard(database=database, locked=f"pg_try_advisory_lock({place.key})", **_in_scope(place))
    for step in steps:
        yield "BEGIN"
        if step.version_table is not None:
            yield step.version_table
        yield _guard(moved=_heads_are(table, step.before))
        # A comment at the end of a statement would swallow what separates it from the next.
        yield from (f"{statement}\n" for statement in step.statements)
        yield from _change_heads(table, step.before, step.after)
        yield _guard(heads=_heads_are(table, step.after), **_in_scope(place))
        yield "COMMIT"
    # Done is what is found after the commit.
    yield _guard(uncommitted=_heads_are(table, steps[-1].after), unlocked=f"pg_advisory_unlock({place.key})")
    yield from _CLEAN


#: What pg_dump's scripts begin with and rely on; its timeouts are left out, and ours hold.
_DUMPED = (
    "SET LOCAL standard_conforming_strings = on",
    "SET LOCAL check_function_bodies = off",
    "SET LOCAL xmloption = content",
    "SET LOCAL client_min_messages = warning",
    "SET LOCAL row_security = off",
    "SET LOCAL search_path = ''",
)
#: How long one waits for others who fill schemas from the same snapshot; each takes as long as its statements take.
_TURN = "60s"


def _filling(place: Place, made: Step | Snapshot) -> Iterator[str]:
    assert place.schema is not None
    table, own = _qualified(place), identifier(place.schema)
    yield enter(place.settings)
    database = f"current_database() IS NOT DISTINCT FROM {literal(place.database)}"
    yield _guard(database=database, locked=f"pg_try_advisory_lock({place.key})", **_in_scope(place))
    yield "BEGIN"
    if isinstance(made, Snapshot):
        yield f"SET LOCAL lock_timeout = '{_TURN}'"
        # For a name that two want, the server has a lock of its own; but its queue ends in errors.
        yield f"SELECT pg_advisory_xact_lock(hashtextextended({literal(made.schema)}, 0))"
        yield f"SET LOCAL lock_timeout = {literal(place.settings.get('lock_timeout', '0'))}"
    yield _guard(empty=_is_empty(place.schema))
    if isinstance(made, Step):
        if made.version_table is not None:
            yield made.version_table
        yield from (f"{statement}\n" for statement in made.statements)
        yield from _change_heads(table, made.before, made.after)
    else:
        # The schema keeps its owner, its grants and its comment: it only has another name for a moment.
        yield f"ALTER SCHEMA {own} RENAME TO {identifier(made.schema)}"
        yield from _DUMPED
        yield made.sql
        yield f"ALTER SCHEMA {identifier(made.schema)} RENAME TO {own}"
        yield f"SELECT set_config('search_path', {literal(place.settings['search_path'])}, true)"
    heads = made.after if isinstance(made, Step) else made.heads
    yield _guard(heads=_heads_are(table, heads), **_in_scope(place))


def _is_empty(schema: str) -> str:
    """That there is a schema, and nothing in it: whatever is in one depends on it."""
    there = f"(SELECT oid FROM pg_namespace WHERE nspname = {literal(schema)})"
    return (
        f"{there} IS NOT NULL AND NOT EXISTS (SELECT FROM pg_depend WHERE refclassid = 'pg_namespace'::regclass"
        f" AND refobjid = {there} AND deptype = 'n')"
    )


def _qualified(place: Place) -> str:
    table = identifier(place.version_table)
    return table if place.schema is None else f"{identifier(place.schema)}.{table}"


def _in_scope(place: Place) -> dict[str, str]:
    return {} if place.schema is None else {"scope": f"current_schema() IS NOT DISTINCT FROM {literal(place.schema)}"}


def _heads_are(table: str, heads: Collection[str]) -> str:
    # Nothing but comparisons, which a change of the version table needs anyway: an aggregate would cost every new
    # connection a tenth of its time for looking it up.
    if len(heads) == 1:
        # Half of what the general form costs. Where there are more rows, it raises by itself (21000).
        return f"(SELECT version_num FROM {table}) = {literal(*heads)}"
    there = [f"EXISTS (SELECT FROM {table} WHERE version_num = {literal(head)})" for head in heads]
    others = "".join(f" AND version_num <> {literal(head)}" for head in heads).replace(" AND", " WHERE", 1)
    return " AND ".join([*there, f"NOT EXISTS (SELECT FROM {table}{others})"])


def _guard(**conditions: str) -> str:
    """A query that raises 22P02 with the name of the first condition that does not hold."""
    cases = " ".join(
        f"WHEN NOT coalesce({condition}, false) THEN {literal(REFUSED + name)}"
        for name, condition in conditions.items()
    )
    return f"SELECT CAST(CASE {cases} ELSE '0' END AS integer)"


def _change_heads(table: str, before: Iterable[str], after: Iterable[str]) -> Iterator[str]:
    gone = [literal(head) for head in before if head not in set(after)]
    new = [literal(head) for head in after if head not in set(before)]
    for old, its in zip(gone, new, strict=False):
        yield f"UPDATE {table} SET version_num = {its} WHERE version_num = {old}"
    for old in gone[len(new) :]:
        yield f"DELETE FROM {table} WHERE version_num = {old}"
    for its in new[len(gone) :]:
        yield f"INSERT INTO {table} (version_num) VALUES ({its})"
