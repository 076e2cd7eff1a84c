"""What throws stored rows or values away: read from a revision's source, and from the SQL that Alembic renders."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TypeGuard

from orchestrator.history.column_types import narrows, shown
from orchestrator.history.source import TAKES_SQL, called, constants, functions_of, keyword, reached, text_of

#: ``op`` calls that throw stored rows or values away.
_LOSSY_CALLS = frozenset({"drop_table", "drop_column", "drop_schema"})
#: Calls that make a table object, whose first argument is the table's name.
_TABLES = frozenset({"table", "Table", "create_table"})
#: Characters of a statement that is told.
_SHORT = 80

_NAME = r"(?:\"[^\"]+\"|[\w$]+)(?:\.(?:\"[^\"]+\"|[\w$]+))*"
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
#: SQL in a string that PL/pgSQL executes.
_EXECUTED = re.compile(r"\bEXECUTE\s+(?:format\s*\(\s*)?'((?:[^']|'')*)'", re.IGNORECASE)
_STRING = re.compile(r"'(?:[^']|'')*'")
#: Where a statement begins: after another one, in the body of a block, and in and after ``WITH name AS (...)``.
_BEGINS = re.compile(
    r";|\$\w*\$|\b(?:BEGIN|THEN|ELSE|LOOP)\b"
    r"|\bAS\s*(?:(?:NOT\s+)?MATERIALIZED\s*)?\(\s*(?=DELETE\s)|(?<=\))\s*(?=DELETE\s+FROM\b)",
    re.IGNORECASE,
)
_ROWS = re.compile(
    rf"(?P<verb>DROP\s+TABLE|DROP\s+SCHEMA|TRUNCATE|DELETE\s+FROM)\b(?:\s+TABLE\b)?(?:\s+IF\s+EXISTS\b)?(?:\s+ONLY\b)?"
    rf"\s+(?P<names>{_NAME}(?:\s*,\s*{_NAME})*)?",
    re.IGNORECASE,
)
_MERGE = re.compile(rf"\bMERGE\s+INTO\s+(?:ONLY\s+)?(?P<table>{_NAME})[^;]*?\bTHEN\s+DELETE\b", re.IGNORECASE)
#: What a function or procedure does when it is called, which making it does not.
_ROUTINE = re.compile(
    rf"(?P<head>\bCREATE\s+(?:OR\s+REPLACE\s+)?(?:FUNCTION|PROCEDURE)\s+(?P<name>{_NAME})[^;]*?)"
    r"(?P<body>(?P<tag>\$(?:[a-z_]\w*)?\$).*?(?P=tag)|\bBEGIN\s+ATOMIC\b.*?\bEND\s*(?:;|$))",
    re.IGNORECASE | re.DOTALL,
)
_ALTER = re.compile(rf"ALTER\s+TABLE\s+(?:IF\s+EXISTS\s+)?(?:ONLY\s+)?(?P<table>{_NAME})\s(?P<actions>.*)", re.I | re.S)
_DROP_COLUMN = re.compile(
    rf"\bDROP\s+(?:COLUMN\s+)?(?:IF\s+EXISTS\s+)?(?!(?:CONSTRAINT|DEFAULT|NOT|EXPRESSION|IDENTITY)\b)(?P<column>{_NAME})",
    re.IGNORECASE,
)
_TYPE = re.compile(rf"\bALTER\s+(?:COLUMN\s+)?(?!COLUMN\b)(?P<column>{_NAME})\s+(?:SET\s+DATA\s+)?TYPE\b", re.I)
#: An expression that has the value itself.
_CAST = re.compile(rf"\s*{_NAME}\s*::\s*[\w ]+", re.IGNORECASE)
#: What follows where that is a text of any length, which has the text of whatever was there.
_ANY_TEXT = re.compile(
    rf"\s*(?:TEXT|VARCHAR|CHARACTER\s+VARYING)(?!\s*[(\[])(?:\s+USING\s+{_NAME}\s*::\s*TEXT)?\s*(?:,|;|$)",
    re.IGNORECASE,
)
#: SQLite's way to change a table: another one is made, and takes the first one's name.
_RENAMED = re.compile(rf"ALTER\s+TABLE\s+{_NAME}\s+RENAME\s+TO\s+(?P<name>{_NAME})", re.IGNORECASE)
#: What Alembic writes into a script before a revision's own SQL.
_RUNNING = re.compile(r"^-- Running (?:upgrade|downgrade) (?P<start>.*?) ->(?P<end>.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Loss:
    """One statement or call."""

    #: ``drop table``, ``drop column``, ``type``, ``delete from``, ``truncate``, ``drop schema``.
    verb: str
    #: Of the table; ``None`` where the source does not say it.
    table: str | None
    #: ``None`` where all of the table is meant.
    column: str | None
    #: For people.
    detail: str
    #: 1-based line in the revision file; 0 where it was found in rendered SQL.
    line: int = 0
    #: ``False`` for a change of type that loses nothing.
    loses: bool = True

    def is_like(self, other: Loss) -> bool:
        """Whether both say the same; a batch operation may not say its table."""
        tables = {self.table, other.table}
        same_table = len(tables) == 1 or None in tables
        return (self.verb, self.column) == (other.verb, other.column) and same_table


def in_source(tree: ast.Module, function: str) -> list[Loss]:
    """What ``function`` of a revision file throws away, and the functions of the file that it calls.

    Args:
        tree: the file.
        function: ``upgrade`` or ``downgrade``.
    """
    functions = functions_of(tree)
    texts, tables = constants(tree), _table_objects(tree)
    bodies = list(reached(functions, function))
    calls = [call for node in bodies for call in ast.walk(node) if isinstance(call, ast.Call)]
    given = (text_of(call.args[0], texts) for call in calls if called(call) in TAKES_SQL and call.args)
    script = ";\n".join(filter(None, given))
    batches = {call: table for node in bodies for call, table in _batches(node).items()}
    return [loss for call in calls for loss in _in_call(call, texts, tables, batches, script)]


def in_sql(text: str, script: str | None = None) -> list[Loss]:
    """What SQL throws away, several statements and the bodies of blocks included.

    Args:
        text: of the SQL.
        script: what it is a part of: a function's body counts where that is called in it, too.
    """
    plain = _COMMENT.sub(" ", text)
    plain = _without_bodies(plain, plain if script is None else _COMMENT.sub(" ", script))
    plain = _EXECUTED.sub(lambda found: f";{found[1]};", plain)
    plain = _STRING.sub("''", plain)
    renamed = {_bare(found["name"]) for found in _RENAMED.finditer(plain)}
    statements = (" ".join(part.split()) for part in _BEGINS.split(plain))
    losses = chain(_merges(plain), chain.from_iterable(_in_statement(statement) for statement in statements))
    return [loss for loss in losses if not (loss.verb == "drop table" and loss.table in renamed)]


def _without_bodies(text: str, script: str) -> str:
    """Leave out what functions do that are made here and not called."""

    def kept(routine: re.Match[str]) -> str:
        name = re.escape(_bare(routine["name"]).rpartition(".")[2])
        calls = re.findall(rf"\b(?:SELECT|PERFORM|CALL|FROM)\s[^;]*?\b{name}\"?\s*\(", script, re.IGNORECASE)
        return routine[0] if calls else f"{routine['head']} ''"

    return _ROUTINE.sub(kept, text)


def _merges(text: str) -> Iterator[Loss]:
    for merge in _MERGE.finditer(text):
        yield Loss("delete from", _bare(merge["table"]), None, " ".join(merge[0].split())[:_SHORT])


def in_script(script: str, version_table: str) -> dict[str, list[Loss]]:
    """What a script that Alembic has rendered for going back throws away, by revision.

    Args:
        script: as Alembic renders it offline.
        version_table: the name of its own table, whose rows come and go.
    """
    parts = list(_RUNNING.finditer(script))
    ends = [*(part.start() for part in parts[1:]), len(script)]
    found: dict[str, list[Loss]] = {}
    for part, end in zip(parts, ends, strict=True):
        losses = [loss for loss in in_sql(script[part.end() : end]) if not _names(loss, version_table)]
        if losses:
            found.setdefault(part["start"].strip(), []).extend(losses)
    return found


def _names(loss: Loss, table: str) -> bool:
    return loss.table is not None and loss.table.rpartition(".")[2] == table


def _in_call(
    call: ast.Call, texts: Mapping[str, str], tables: Mapping[str, str], batches: Mapping[ast.Call, str], script: str
) -> Iterator[Loss]:
    name = called(call)
    strings = [each.value for each in call.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    if call in batches:
        strings.insert(0, batches[call])
    if name in _LOSSY_CALLS and isinstance(call.func, ast.Attribute):
        detail = f"{name} {'.'.join(strings)}".strip()
        column = strings[-1] if name == "drop_column" and strings else None
        whole = name != "drop_column" or len(strings) > 1
        yield Loss(name.replace("_", " "), strings[0] if strings and whole else None, column, detail, call.lineno)
    elif name == "alter_column" and (new := keyword(call, "type_")) is not None:
        old = keyword(call, "existing_type")
        table = strings[0] if len(strings) > 1 else None
        which = f"alter_column {'.'.join(strings)}:"
        detail = (
            f"{which} {shown(old)} to {shown(new)}"
            if old is not None
            else (f"{which} to {shown(new)}, which may not hold what is there (without existing_type nobody can tell)")
        )
        using = keyword(call, "postgresql_using")
        loses = narrows(old, new) or (
            old is None and using is not None and not _CAST.fullmatch(text_of(using, texts) or "")
        )
        yield Loss("type", table, strings[-1] if strings else None, detail, call.lineno, loses)
    elif name in TAKES_SQL and call.args and (text := text_of(call.args[0], texts)) is not None:
        detail = " ".join(text.split())[:_SHORT]
        losses = in_sql(text, script)
        for loss in losses:
            yield Loss(loss.verb, loss.table, loss.column, detail if len(losses) == 1 else loss.detail, call.lineno)
    elif name == "delete":
        meant = call.args[0] if call.args else getattr(call.func, "value", None)
        known = tables.get(meant.id) if isinstance(meant, ast.Name) else None
        if call.args or known is not None or not isinstance(meant, ast.Name):
            yield Loss("delete from", known, None, " ".join(ast.unparse(call).split())[:_SHORT], call.lineno)


def _in_statement(statement: str) -> Iterator[Loss]:
    detail = statement[:_SHORT]
    if rows := _ROWS.match(statement):
        verb = " ".join(rows["verb"].lower().split())
        for name in re.findall(_NAME, rows["names"] or "") or [None]:
            yield Loss(verb, None if name is None else _bare(name), None, detail)
    elif alter := _ALTER.match(statement):
        table = _bare(alter["table"])
        for column in _DROP_COLUMN.finditer(alter["actions"]):
            yield Loss("drop column", table, _bare(column["column"]), detail)
        for column in _TYPE.finditer(alter["actions"]):
            if not _ANY_TEXT.match(alter["actions"], column.end()):
                yield Loss("type", table, _bare(column["column"]), detail)


def _bare(name: str) -> str:
    """A name in SQL as it is without quotes; one that says its schema keeps it."""
    return ".".join(part[1:-1] if part.startswith('"') else part for part in re.findall(r"\"[^\"]+\"|[\w$]+", name))


def _table_objects(tree: ast.Module) -> dict[str, str]:
    """Names of tables, by the variable that stands for one."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and node.value.args):
            continue
        function, first = node.value.func, node.value.args[0]
        made = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        if made in _TABLES and isinstance(first, ast.Constant) and isinstance(first.value, str):
            found.update((target.id, first.value) for target in node.targets if isinstance(target, ast.Name))
    return found


def _batches(function: ast.FunctionDef) -> dict[ast.Call, str]:
    """Names of tables, by the calls of a batch operation on one; a variable may stand for one after the other."""
    found: dict[ast.Call, str] = {}
    for node in ast.walk(function):
        for item in node.items if isinstance(node, ast.With) else ():
            call, variable = item.context_expr, item.optional_vars
            first = call.args[0] if isinstance(call, ast.Call) and call.args else None
            if isinstance(variable, ast.Name) and isinstance(first, ast.Constant) and isinstance(first.value, str):
                found.update((inner, first.value) for inner in ast.walk(node) if _is_on(inner, variable.id))
    return found


def _is_on(node: ast.AST, variable: str) -> TypeGuard[ast.Call]:
    """Whether it calls a method of what ``variable`` stands for."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name))):
            return name == variable
    return False
