"""Python source of Alembic operations, and names in SQL."""

from __future__ import annotations

import json
import re

from sqlalchemy.dialects.postgresql.base import RESERVED_WORDS

_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*")
#: What ``sa.text`` would take for a parameter.
_PARAMETER = re.compile(r"(?<![:\w\\]):(?=\w+(?!:))")
_WORD = r'(?:"(?:[^"]|"")*"|[\w$]+)'
_INDEX = re.compile(
    rf"CREATE (?P<unique>UNIQUE )?INDEX {_WORD} ON (?:ONLY )?{_WORD}(?: USING (?P<method>\w+))? ?"
    rf"\((?P<columns>{_WORD}(?:, {_WORD})*)\)(?: WHERE (?P<where>.+))?",
    re.DOTALL | re.IGNORECASE,
)
#: Types as ``format_type`` prints them, or SQLite keeps them, and their names in SQLAlchemy.
_TYPES = {
    "integer": "sa.Integer()",
    "bigint": "sa.BigInteger()",
    "smallint": "sa.SmallInteger()",
    "text": "sa.Text()",
    "boolean": "sa.Boolean()",
    "date": "sa.Date()",
    "timestamp without time zone": "sa.DateTime()",
    "timestamp with time zone": "sa.DateTime(timezone=True)",
    "datetime": "sa.DateTime()",
    "time without time zone": "sa.Time()",
    "interval": "sa.Interval()",
    "double precision": "sa.Double()",
    "real": "sa.REAL()",
    "float": "sa.Float()",
    "numeric": "sa.Numeric()",
    "uuid": "sa.Uuid()",
    "bytea": "sa.LargeBinary()",
    "blob": "sa.LargeBinary()",
    "json": "sa.JSON()",
    "character varying": "sa.String()",
    "varchar": "sa.String()",
}
_SIZED = {
    "character varying": "sa.String",
    "varchar": "sa.String",
    "character": "sa.CHAR",
    "char": "sa.CHAR",
    "numeric": "sa.Numeric",
    "decimal": "sa.Numeric",
}
_WITH_SIZE = re.compile(r"([a-z ]+?) ?\((\d+(?:, ?\d+)?)\)")


def py(text: str) -> str:
    """A Python string literal in double quotes."""
    return json.dumps(text, ensure_ascii=False)


def execute(sql: str) -> str:
    """``op.execute`` of a statement; SQLAlchemy finds no parameters in it."""
    return f"op.execute({py(_PARAMETER.sub(lambda _: chr(92) + ':', sql))})"


def text(sql: str) -> str:
    """``sa.text`` of an expression."""
    return f"sa.text({py(_PARAMETER.sub(lambda _: chr(92) + ':', sql))})"


def quoted(name: str) -> str:
    """A name in SQL, in quotes where it needs them."""
    if _PLAIN_NAME.fullmatch(name) and name not in RESERVED_WORDS:
        return name
    return '"' + name.replace('"', '""') + '"'


def names(listed: str) -> str:
    """A Python list of the names in a comma separated list of SQL's, which has nothing but names in it."""
    found = re.findall(rf"{_WORD}", listed)
    bare = [each[1:-1].replace('""', '"') if each.startswith('"') else each for each in found]
    return f"[{', '.join(py(each) for each in bare)}]"


def by_hand(why: str) -> str:
    """In the place of an operation that there is not."""
    return f"# by hand: {why}"


def sa_type(sql: str) -> str | None:
    """SQLAlchemy's type; ``None`` for one that is not among the usual ones."""
    if sql == "jsonb":
        return "postgresql.JSONB()"
    if sql.endswith("[]") and (inner := sa_type(sql[:-2])):
        return f"postgresql.ARRAY({inner})"
    sized = _WITH_SIZE.fullmatch(sql)
    if sized and sized[1] in _SIZED:
        size = ", ".join(part.strip() for part in sized[2].split(","))
        return f"{_SIZED[sized[1]]}({size})"
    return _TYPES.get(sql)


def create_index(name: str, table: str, definition: str) -> str:
    """``op.create_index``, or its SQL where there is more to it than columns, method and condition."""
    found = _INDEX.fullmatch(definition)
    if found is None:
        return execute(definition)
    more = ", unique=True" if found["unique"] else ""
    if found["method"] and found["method"] != "btree":
        more += f", postgresql_using={py(found['method'])}"
    if found["where"]:
        dialect = "postgresql" if found["method"] else "sqlite"
        more += f", {dialect}_where={text(found['where'])}"
    return f"op.create_index({py(name)}, {py(table)}, {names(found['columns'])}{more})"
