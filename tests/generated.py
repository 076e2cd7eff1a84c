"""Small histories and fleets that Hypothesis makes up: everything a revision may do, on tenants that are not alike.

Every tenant holds a table ``site`` that no revision has made, with rows of its own, so that what depends on rows comes
out differently. A revision's name ends in its kind. Columns called ``random_...`` hold what differs by nature.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from textwrap import indent
from typing import Any

from hypothesis import strategies as st

#: What an operator made in every tenant before there was a history.
SITE = "CREATE TABLE site (id serial PRIMARY KEY, name text, number int, note text)"
#: Revisions of these kinds come out alike for all tenants.
STATIC = "static"
#: Those whose statements Python makes from what it finds: never to be replayed.
DYNAMIC = frozenset({"reading", "random", "tenant", "autocommit"})

_MODULE = """\
import datetime
import decimal
{imports}from uuid import UUID

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = {name!r}
down_revision = {down!r}


def upgrade():
{upgrade}


def downgrade():
    pass
"""
#: What would make every revision impure.
_IMPURE = "import random\nfrom uuid import uuid4\n"
_AWKWARD = [
    "o'brien",
    'say "hi"',
    "back\\slash \\n",
    "",
    "日本 🐘",
    "line\nfeed",
    "$1 $$ $x$",
    "-- no",
    "50% %s",
    "; x /*",
]
_TEXT = st.sampled_from(_AWKWARD) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8
)
_ZONES = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(hours=11))])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | _TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_TEXT, inner, max_size=2),
    max_leaves=3,
)
#: A type in a revision's source, and the values that go into it.
_TYPES: dict[str, st.SearchStrategy[Any]] = {
    "sa.Text()": _TEXT,
    "sa.String(40)": _TEXT,
    "sa.Unicode()": _TEXT,
    "sa.SmallInteger()": st.integers(-(2**15), 2**15 - 1),
    "sa.Integer()": st.integers(-(2**31), 2**31 - 1),
    "sa.BigInteger()": st.integers(-(2**63), 2**63 - 1),
    "sa.Boolean()": st.booleans(),
    "sa.Numeric(12, 4)": st.decimals(-(10**6), 10**6, places=4),
    "sa.Numeric()": st.decimals(allow_nan=False, allow_infinity=False, places=3) | st.just(Decimal("1E+5")),
    "sa.Float()": st.floats(allow_nan=False) | st.sampled_from([-0.0, 5e-324]),
    "sa.Double()": st.floats(allow_nan=False, allow_infinity=False),
    "sa.Date()": st.dates(date(1, 1, 1)),
    "sa.Time()": st.times(time()),
    "sa.DateTime()": st.datetimes(datetime(1, 1, 1)),
    "sa.DateTime(timezone=True)": st.datetimes(datetime(2, 1, 1), datetime(9000, 1, 1), timezones=_ZONES),
    "sa.Interval()": st.timedeltas(timedelta(-9), timedelta(9)),
    "sa.Uuid()": st.uuids(),
    "sa.LargeBinary()": st.binary(max_size=6),
    "sa.JSON()": _JSON,
    "postgresql.JSONB()": _JSON,
    "postgresql.ARRAY(sa.Integer())": st.lists(st.integers(-9, 9), max_size=3),
}
#: Default values that the server writes, by type.
_DEFAULTS = {
    "sa.Integer()": '"7"',
    "sa.Text()": '"it\'s"',
    "sa.DateTime(timezone=True)": "sa.text(\"'2020-01-01 00:00'\")",
    "sa.JSON()": "sa.text(\"'{}'::json\")",
    "sa.Boolean()": "sa.false()",
}
Draw = Callable[[st.SearchStrategy[Any]], Any]


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision file."""

    #: Ends in its kind.
    name: str
    kind: str
    #: Text of the file.
    source: str


@dataclass(frozen=True, slots=True)
class Member:
    """One tenant of a generated fleet."""

    id: str
    #: In a database of its own, not in a schema.
    alone: bool
    #: Revisions that it is brought to before anything is compared.
    start: str | None
    #: What the operator does to it before that, and after.
    rows: tuple[str, ...]
    drift: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Generated:
    """A history and a fleet."""

    revisions: tuple[Revision, ...]
    members: tuple[Member, ...]
    #: What env.py says.
    transaction_per_migration: bool


def written(number: int, kind: str, down: tuple[str, ...], body: str) -> Revision:
    """A revision whose ``upgrade()`` is ``body``."""
    name = f"r{number}_{kind}"
    source = _MODULE.format(
        imports=_IMPURE if kind == "random" else "",
        name=name,
        down=down[0] if len(down) == 1 else down or None,
        upgrade=indent(body, "    "),
    )
    return Revision(name, kind, source)


@dataclass(slots=True)
class _State:
    """What a revision finds at its place in the history."""

    #: Columns and their types, by table.
    tables: dict[str, dict[str, str]] = field(default_factory=dict)
    #: Operations that undo something.
    removals: list[str] = field(default_factory=list)
    #: Enum types.
    enums: list[str] = field(default_factory=list)
    #: One for all branches: names must not meet.
    names: list[int] = field(default_factory=lambda: [0])

    def name(self, prefix: str) -> str:
        self.names[0] += 1
        return f"{prefix}_{self.names[0]}"

    def branched(self) -> _State:
        """What another branch begins with: nothing that the first one may remove meanwhile."""
        return _State(names=self.names)

    def merged(self, other: _State) -> _State:
        return _State(
            {**self.tables, **other.tables}, self.removals + other.removals, self.enums + other.enums, self.names
        )


def _one_in(draw: Draw, count: int) -> bool:
    return bool(draw(st.integers(1, count)) == count)


def _source(value: Any) -> str:
    """``value`` as a revision file says it."""
    if isinstance(value, float):
        return f'float("{value!r}")'
    text = repr(value)
    return f"decimal.{text}" if isinstance(value, Decimal) else text


def _quote(text: str) -> str:
    """A string constant in SQL that ``sa.text`` takes as it is."""
    return "'" + text.replace("'", "''").replace(":", ";") + "'"


def _execute(sql: str) -> str:
    return f"op.execute({sql!r})"


def _values(draw: Draw, columns: dict[str, str]) -> dict[str, str]:
    return {name: _source(draw(st.none() | _TYPES[kind])) for name, kind in columns.items()}


def _create_table(draw: Draw, state: _State) -> str:
    name, kinds = state.name("t"), draw(st.lists(st.sampled_from(list(_TYPES)), min_size=1, max_size=4))
    columns = {state.name("c"): kind for kind in kinds}
    parts = ['sa.Column("id", sa.Integer, primary_key=True)']
    parts += [f'sa.Column("{column}", {kind})' for column, kind in columns.items()]
    if draw(st.booleans()):
        enum, column = state.name("e"), state.name("c")
        parts.append(f'sa.Column("{column}", sa.Enum("new", "it\'s", name="{enum}"), server_default="new")')
        state.enums.append(enum)
    if draw(st.booleans()):
        parts.append(f'sa.Column("random_{state.name("c")}", sa.Uuid(), server_default=sa.text("gen_random_uuid()"))')
    if draw(st.booleans()):
        parts.append(f'sa.CheckConstraint("id > 0", name="{state.name("ck")}")')
    state.tables[name] = columns
    return f'op.create_table("{name}", {", ".join(parts)}, comment="it\'s")'


def _insert(draw: Draw, state: _State) -> str:
    table = draw(st.sampled_from(list(state.tables)))
    columns = state.tables[table]
    described = ", ".join(f'sa.column("{name}", {kind})' for name, kind in columns.items())
    rows = [_values(draw, columns) for _ in range(draw(st.integers(1, 3)))]
    written = ["{" + ", ".join(f'"{name}": {value}' for name, value in row.items()) + "}" for row in rows]
    target = f'sa.table("{table}", {described})'
    return draw(
        st.sampled_from(
            [
                f"op.bulk_insert({target}, [{', '.join(written)}])",
                f"op.bulk_insert({target}, [{', '.join(written)}], multiinsert=False)",
                f"op.execute(sa.insert({target}).values({written[0]}))",
                f"op.execute(sa.update({target}).values({written[0]}))",
            ]
        )
    )


def _add_column(draw: Draw, state: _State) -> str:
    table, kind = draw(st.sampled_from(list(state.tables))), draw(st.sampled_from(list(_TYPES)))
    name = state.name("c")
    default = f", nullable=False, server_default={_DEFAULTS[kind]}" if kind in _DEFAULTS and draw(st.booleans()) else ""
    if not default:
        state.tables[table][name] = kind
    return f'op.add_column("{table}", sa.Column("{name}", {kind}{default}))'


def _change_column(draw: Draw, state: _State) -> str:
    table = draw(st.sampled_from(list(state.tables)))
    columns = state.tables[table]
    if len(columns) < 2:
        return _add_column(draw, state)
    column = draw(st.sampled_from(list(columns)))
    kind = columns.pop(column)
    if draw(st.booleans()):
        return f'op.drop_column("{table}", "{column}")'
    columns[new := state.name("c")] = kind
    rename = f'op.alter_column("{table}", "{column}", new_column_name="{new}")'
    if kind == "sa.Integer()":
        columns[new] = "sa.BigInteger()"
        return f'{rename}\nop.alter_column("{table}", "{new}", type_=sa.BigInteger(), comment="wide")'
    return rename


def _constrain(draw: Draw, state: _State) -> str:
    table, other = (draw(st.sampled_from(list(state.tables))) for _ in range(2))
    index, unique, key, column = (state.name(prefix) for prefix in ("ix", "uq", "fk", "ref"))
    where = draw(st.sampled_from(["", ', postgresql_where=sa.text("id > 5")', ", unique=True"]))
    made, removal = draw(
        st.sampled_from(
            [
                (f'op.create_index("{index}", "{table}", ["id"]{where})', f'op.drop_index("{index}", "{table}")'),
                (
                    f'op.create_unique_constraint("{unique}", "{table}", ["id"])',
                    f'op.drop_constraint("{unique}", "{table}", type_="unique")',
                ),
                (
                    f'op.add_column("{table}", sa.Column("{column}", sa.Integer))\n'
                    f'op.create_foreign_key("{key}", "{table}", "{other}", ["{column}"], ["id"], ondelete="CASCADE")',
                    f'op.drop_constraint("{key}", "{table}", type_="foreignkey")',
                ),
            ]
        )
    )
    state.removals.append(removal)
    return made


def _remove(draw: Draw, state: _State) -> str:
    if not state.removals:
        return _constrain(draw, state)
    return state.removals.pop(draw(st.integers(0, len(state.removals) - 1)))


def _raw_sql(draw: Draw, state: _State) -> str:
    name, text = state.name("f"), _quote(draw(_TEXT))
    column = state.name("c")
    statements = [
        f"INSERT INTO site (name, number)\nVALUES ({text}, 5) -- the end",
        f"  -- first\n/* a; b */ UPDATE site SET note = {text} WHERE number = 5;",
        f"INSERT INTO site (name, number) SELECT current_schema() || {text}, count(*) + 9 FROM site",
        "UPDATE site SET note = E'a\\\\b\\'c' WHERE id = 1;  ",
        f"DO $$ BEGIN UPDATE site SET name = {text}; -- in\nEND $$",
        f"DO $x$ BEGIN EXECUTE format('ALTER TABLE %I.site ADD {column} int', current_schema()); END $x$;",
        f"CREATE FUNCTION {name}() RETURNS text LANGUAGE sql AS $$ SELECT {text}; /* ; */ $$",
        f"CREATE FUNCTION {name}(a int) RETURNS int AS $body$\nBEGIN RETURN a; -- '\nEND\n$body$ LANGUAGE plpgsql --x",
        f"CREATE VIEW {name} AS SELECT id, name FROM site",
        f"CREATE TABLE {name} AS SELECT gen_random_uuid() AS random_a, clock_timestamp() AS random_b FROM site",
        "SET LOCAL lock_timeout = '5s'",
        "DELETE FROM site WHERE number > 5",
        f"WITH new AS (INSERT INTO site (name) VALUES ({text}) RETURNING id) UPDATE site SET note = 'with'",
        "SELECT set_config('application.level', '1', true)",
        f"COMMENT ON TABLE site IS {text}",
        f"CREATE TEMPORARY TABLE {name} ON COMMIT DROP AS SELECT * FROM site",
    ]
    plain = [_execute(sql) for sql in statements]
    bound = [
        f"op.execute(sa.text('UPDATE site SET note = :a WHERE number = :b -- end').bindparams(a={text!r}, b=5))",
        f"op.execute(sa.text('INSERT INTO site (name, number) VALUES (:a, NULL)').bindparams(a={text!r}))",
    ]
    return str(draw(st.sampled_from(plain + bound)))


_FIRST = [_create_table, _raw_sql]
_OPERATIONS = [*_FIRST, _insert, _insert, _add_column, _change_column, _constrain, _remove, _raw_sql]
_BIND = "bind = op.get_bind()\n"
#: What only Python knows, and with it what it makes of it; ``{name}`` is a new name.
SPECIAL = {
    "reading": [
        _BIND + 'n = bind.scalar(sa.text("SELECT count(*) FROM site"))\n'
        "op.execute(f\"UPDATE site SET note = '{{n}} rows'\")",
        _BIND + 'for (number,) in bind.execute(sa.text("SELECT DISTINCT number FROM site WHERE number > 1")).all():\n'
        '    op.add_column("site", sa.Column(f"{name}_{{number}}", sa.Text))',
        _BIND + 'if "extra" not in [each["name"] for each in sa.inspect(bind).get_columns("site")]:\n'
        '    op.add_column("site", sa.Column("extra", sa.Integer, server_default="1"))',
        _BIND + "if bind.execute(sa.text(\"UPDATE site SET note = 'many' WHERE number > 1\")).rowcount > 1:\n"
        '    op.execute("CREATE TABLE {name} (id int)")',
    ],
    "random": [
        'op.create_table("{name}", sa.Column("random_a", sa.Uuid()))\n'
        'op.bulk_insert(sa.table("{name}", sa.column("random_a", sa.Uuid())), [{{"random_a": uuid4()}}])',
        'op.add_column("site", sa.Column("random_{name}", sa.Text, server_default=str(uuid4())))',
        'op.execute(f"CREATE TABLE {name} AS SELECT {{random.getrandbits(48)}} AS random_a")',
        'op.execute(sa.text("CREATE TABLE {name} (random_a timestamptz)"))\n'
        "now = datetime.datetime.now(datetime.timezone.utc)\n"
        'op.bulk_insert(sa.table("{name}", sa.column("random_a", sa.DateTime(timezone=True))), [{{"random_a": now}}])',
    ],
    "tenant": [
        'schema = op.get_bind().scalar(sa.text("SELECT current_schema()"))\n'
        "op.execute(f'COMMENT ON COLUMN \"{{schema}}\".site.note IS $$of {{schema}}$$')",
        "op.execute(f\"UPDATE site SET note = '{{op.get_context().version_table_schema}}'\")",
    ],
    "autocommit": [
        "with op.get_context().autocommit_block():\n"
        '    op.create_index("{name}", "site", ["number"], postgresql_concurrently=True)',
        "op.execute(\"CREATE TYPE {name} AS ENUM ('a')\")\n"
        "with op.get_context().autocommit_block():\n"
        "    op.execute(\"ALTER TYPE {name} ADD VALUE 'b'\")\n"
        "op.execute(\"ALTER TABLE site ADD {name} {name} DEFAULT 'b'\")",
        'with op.get_context().autocommit_block():\n    op.execute("UPDATE site SET number = 12 / number")',
    ],
    "failing": [
        'op.execute("UPDATE site SET number = 12 / number")',
        'op.create_unique_constraint("{name}", "site", ["number"])',
        'op.alter_column("site", "name", nullable=False)',
        "op.execute(\"DO $$ BEGIN IF (SELECT count(*) FROM site) > 2 THEN RAISE 'too many'; END IF; END $$\")",
        'op.create_check_constraint("{name}", "site", "number <> 2")',
        'op.execute("CREATE TABLE taken (id int)")\nop.execute("DROP TABLE taken")',
    ],
    "session": [
        "op.execute(\"SET TIME ZONE 'Asia/Tokyo'\")",
        "op.execute(\"SELECT set_config('TimeZone', 'Asia/Tokyo', false)\")",
        'op.execute("SET standard_conforming_strings = off")',
        _BIND + "bind.execute(sa.text(\"SELECT set_config('DateStyle', 'SQL, DMY', false)\"))",
        "op.execute(\"DO $$ BEGIN PERFORM set_config('TimeZone', 'Asia/Tokyo', false); END $$\")",
    ],
}
#: What shows that the session is no longer as it was.
_AFTER_SESSION = [
    "ALTER TABLE site ADD {name} timestamptz DEFAULT '2020-01-01 00:00'",
    "UPDATE site SET note = cast('2020-01-01 00:00' AS timestamptz)::text",
    "UPDATE site SET note = 'a\\\\b'",
]


def _revision(draw: Draw, state: _State, number: int, down: tuple[str, ...], kinds: list[str]) -> Revision:
    kind = draw(st.sampled_from(kinds))
    lines = []
    for _ in range(draw(st.integers(1, 3))):
        lines.append(draw(st.sampled_from(_OPERATIONS if state.tables else _FIRST))(draw, state))
    if kind != STATIC:
        special = draw(st.sampled_from(SPECIAL[kind])).format(name=state.name("s"))
        lines.insert(draw(st.integers(0, len(lines))), special)
    if "session" in kinds and draw(st.booleans()):
        lines.append(_execute(draw(st.sampled_from(_AFTER_SESSION)).format(name=state.name("s"))))
    return written(number, kind, down, "\n".join(lines))


@st.composite
def histories(draw: Draw, kinds: list[str]) -> tuple[Revision, ...]:
    """A line of revisions, with a branch here and there that is merged again, or left open."""
    state = _State()
    revisions: list[Revision] = []

    def grow(state: _State, *down: str) -> str:
        revisions.append(_revision(draw, state, len(revisions) + 1, down, kinds))
        return revisions[-1].name

    head = grow(state)
    for _ in range(draw(st.integers(0, 3))):
        head = grow(state, head)
    if _one_in(draw, 4):
        side_state = state.branched()
        side, head = grow(side_state, head), grow(state, head)
        if draw(st.booleans()):
            grow(state.merged(side_state), head, side)
    return tuple(revisions)


@st.composite
def fleets(draw: Draw, kinds: list[str]) -> Generated:
    """A history and tenants that begin here and there in it.

    Args:
        kinds: of revisions, each as often as it is to come: ``STATIC``, or keys of ``SPECIAL``.
    """
    revisions = draw(histories(kinds))
    starts = [None, *(revision.name for revision in revisions[:-1])]
    usual, other = draw(st.sampled_from(starts)), draw(st.sampled_from(starts))
    members = []
    for number in range(draw(st.integers(4, 6))):
        rows = draw(st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 4)), max_size=3))
        drift = draw(st.lists(st.sampled_from(_DRIFT), max_size=1, unique=True)) if _one_in(draw, 4) else []
        members.append(
            Member(
                f"Tenant-{number}",
                alone=_one_in(draw, 8),
                start=other if _one_in(draw, 5) else usual,
                rows=tuple(_site_row(name, value) for name, value in rows),
                drift=tuple(drift),
            )
        )
    return Generated(revisions, tuple(members), not _one_in(draw, 4))


_DRIFT = [
    "CREATE INDEX own ON site (note)",
    "ALTER TABLE site ADD extra int",
    "CREATE TABLE taken (id int)",
    "ALTER TABLE site ALTER number TYPE bigint",
]


def _site_row(name: str | None, number: int) -> str:
    return f"INSERT INTO site (name, number) VALUES ({'NULL' if name is None else _quote(name)}, {number})"
