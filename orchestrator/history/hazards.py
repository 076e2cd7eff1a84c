"""What a revision file does that an operator should know before it runs, found by reading its syntax tree.

The kinds are the one list of rules: ``plan`` tells some of them, ``lint`` looks for all (see :mod:`.rules`).
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from enum import StrEnum
from itertools import takewhile
from pathlib import Path

from orchestrator.history.data_loss import Loss, in_source
from orchestrator.history.source import called, functions_of


class HazardKind(StrEnum):
    """What was found."""

    #: ``global`` in the file: it may keep state between tenants, so it runs one tenant at a time.
    GLOBAL_STATE = "global_state"
    #: A step outside any transaction: a failure there leaves the tenant ``partial``.
    AUTOCOMMIT = "autocommit"
    #: There is no ``downgrade`` function.
    NO_DOWNGRADE = "no_downgrade"
    #: ``downgrade`` does nothing: Alembic would move the version and leave the tables.
    EMPTY_DOWNGRADE = "empty_downgrade"
    #: ``downgrade`` raises: the revision cannot be taken back.
    IRREVERSIBLE = "irreversible"
    #: ``upgrade`` throws rows or columns away.
    UPGRADE_LOSES_DATA = "upgrade_loses_data"
    #: ``downgrade`` throws rows or columns away.
    DOWNGRADE_LOSES_DATA = "downgrade_loses_data"
    #: No message says what the revision is for.
    NO_MESSAGE = "no_message"
    #: Rows are read in the revision that changes tables.
    READS_WITH_DDL = "reads_with_ddl"
    #: A step outside transactions beside others, or one that has to be outside and is not.
    UNGUARDED_AUTOCOMMIT = "unguarded_autocommit"
    #: An index is built CONCURRENTLY, IF NOT EXISTS: one that is there and INVALID counts as built.
    CONCURRENT_IF_NOT_EXISTS = "concurrent_if_not_exists"
    #: ``public.`` is named outright: every tenant's schema means the same table by it.
    PUBLIC_NAME = "public_name"
    #: ``upgrade`` makes an ENUM type that ``downgrade`` leaves.
    ENUM_LEAK = "enum_leak"
    #: The directory has several heads that no labels tell apart.
    SEVERAL_HEADS = "several_heads"
    #: The file is not what tenants were migrated with.
    EDITED = "edited"
    #: An ignoring comment without a reason, or for no rule.
    BAD_IGNORE = "bad_ignore"
    #: What the revision runs cannot be known without a database.
    NOT_LINTED = "not_linted"
    #: All that squawk finds.
    SQUAWK = "squawk"


#: Where what Alembic writes into a docstring begins.
_OWN_LINES = re.compile(r"^\s*Revision ID:", re.MULTILINE)

#: What matters before going forward, and before going back.
ON_UPGRADE = frozenset(
    {
        HazardKind.GLOBAL_STATE,
        HazardKind.AUTOCOMMIT,
        HazardKind.NO_DOWNGRADE,
        HazardKind.IRREVERSIBLE,
        HazardKind.UPGRADE_LOSES_DATA,
        HazardKind.NO_MESSAGE,
    }
)
ON_DOWNGRADE = frozenset(
    {
        HazardKind.GLOBAL_STATE,
        HazardKind.AUTOCOMMIT,
        HazardKind.NO_DOWNGRADE,
        HazardKind.EMPTY_DOWNGRADE,
        HazardKind.IRREVERSIBLE,
        HazardKind.DOWNGRADE_LOSES_DATA,
    }
)

#: Hazards that forbid going back through a revision.
NO_WAY_BACK = frozenset({HazardKind.NO_DOWNGRADE, HazardKind.IRREVERSIBLE})


@dataclass(frozen=True, slots=True)
class Hazard:
    """One finding in one revision."""

    revision: str
    kind: HazardKind
    #: What was found, for people: ``drop_column users.phone``.
    detail: str
    #: 1-based line in the revision file.
    line: int
    #: The table whose rows or values are lost; ``None`` for another kind, and where the file does not say it.
    table: str | None = None


def find_hazards(revision: str, file: Path) -> tuple[Hazard, ...]:
    """Read one revision file and list what is hazardous in it.

    Args:
        revision: the identifier to report.
        file: the Python source of the revision.
    """
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = functions_of(tree)
    found: list[Hazard] = []

    def add(kind: HazardKind, detail: str, node: ast.AST | None = None) -> None:
        found.append(Hazard(revision, kind, detail, getattr(node, "lineno", 1)))

    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            add(HazardKind.GLOBAL_STATE, f"global {', '.join(node.names)}", node)
        elif isinstance(node, ast.Attribute) and node.attr == "autocommit_block":
            add(HazardKind.AUTOCOMMIT, "autocommit_block", node)
    if not _message(tree):
        add(HazardKind.NO_MESSAGE, "no docstring says what it is for")
    for name, kind in (
        ("upgrade", HazardKind.UPGRADE_LOSES_DATA),
        ("downgrade", HazardKind.DOWNGRADE_LOSES_DATA),
    ):
        for loss in in_source(tree, name):
            if loss.loses:
                found.append(Hazard(revision, kind, loss.detail, loss.line, loss.table))
    way_back = _way_back(tree, functions)
    if way_back is not None:
        add(way_back, "downgrade", functions.get("downgrade"))
    return tuple(found)


def has_global(file: Path) -> bool:
    """Whether a revision file has a ``global`` statement.

    Asked of every revision on every way; one that does not even have the word need not be parsed.
    """
    source = file.read_text(encoding="utf-8")
    return "global" in source and any(isinstance(node, ast.Global) for node in ast.walk(ast.parse(source)))


def find_losses(file: Path, direction: str) -> tuple[Loss, ...]:
    """What a revision's ``upgrade`` or ``downgrade`` throws away, by its source; also types changed without loss."""
    return tuple(in_source(ast.parse(file.read_text(encoding="utf-8")), direction))


def _way_back(tree: ast.Module, functions: dict[str, ast.FunctionDef]) -> HazardKind | None:
    if "downgrade" not in functions:
        return None if "downgrade" in _bound_names(tree) else HazardKind.NO_DOWNGRADE
    body = _statements(functions["downgrade"])
    if not body:
        # A merge does nothing in either direction.
        forward = "upgrade" in functions and _statements(functions["upgrade"])
        return HazardKind.EMPTY_DOWNGRADE if forward else None
    ends = next((node for node in functions["downgrade"].body if isinstance(node, ast.Raise | ast.Return)), None)
    return HazardKind.IRREVERSIBLE if isinstance(ends, ast.Raise) else None


def _message(tree: ast.Module) -> str:
    """What a file says of itself before Alembic's own lines; nothing where that is what Alembic writes without -m."""
    said = _OWN_LINES.split(ast.get_docstring(tree) or "", maxsplit=1)[0].strip()
    return "" if said.lower() == "empty message" else said


def _bound_names(tree: ast.Module) -> set[str]:
    """Names that the file gives to something it did not define by ``def``."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


def _statements(function: ast.FunctionDef) -> list[ast.stmt]:
    """What a function does, up to where it returns: its body without what does nothing."""
    ended = takewhile(lambda node: not isinstance(node, ast.Return), function.body)
    return [node for node in ended if not _is_idle(node)]


def _is_idle(node: ast.stmt) -> bool:
    """Whether a statement surely sends nothing: a docstring, ``pass``, ``print()``, empty SQL, ``if False``."""
    match node:
        case ast.Pass() | ast.Expr(value=ast.Constant()):
            return True
        case ast.Expr(value=ast.Call(func=ast.Name(id="print"))):
            return True
        case ast.Expr(value=ast.Call(args=[ast.Constant(value=str(text))]) as call) if called(call) == "execute":
            return not text.strip(" \t\r\n;")
        case ast.If(test=ast.Constant(value=value), body=body, orelse=others):
            return all(map(_is_idle, body if value else others))
    return False
