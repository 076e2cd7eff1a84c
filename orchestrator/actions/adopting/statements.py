"""What the statements of an env.py are for, which decides whether they stay."""

from __future__ import annotations

import ast
from collections.abc import Collection, Sequence
from enum import Enum, auto

from orchestrator.actions.adopting.environment import OldEnvironment
from orchestrator.actions.adopting.syntax import called, calls, is_quiet, simple_statements

#: Calls that set up logging, which plain Alembic's env.py does for itself and the orchestrator does for everyone.
_LOGGING = frozenset({"fileConfig", "dictConfig", "basicConfig", "getLogger"})
#: Calls that change Alembic's settings, for the address of the database.
_SETTINGS = frozenset({"set_main_option", "set_section_option"})
_URL = "sqlalchemy.url"


class Kind(Enum):
    """What a module-level statement is for."""

    DOCSTRING = auto()
    #: Runs the migrations: for_each_tenant does that now.
    RUNNER = auto()
    #: Sets up logging.
    LOGGING = auto()
    #: Says where the one database is.
    ADDRESS = auto()
    #: Only gives names a value: stays where one of them is needed.
    DEFINITION = auto()
    #: Does something: stays.
    EFFECT = auto()


def kind_of(statement: ast.stmt, old: OldEnvironment) -> Kind:
    """What a statement of ``old`` is for."""
    if statement is old.tree.body[0] and is_text(statement):
        return Kind.DOCSTRING
    if statement in old.runners:
        return Kind.RUNNER
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return Kind.DEFINITION
    used = {called(call) for call in calls(statement)}
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return Kind.EFFECT if _registers(statement) and not _is_read(statement, old) else Kind.DEFINITION
    if used & _LOGGING and not old.names[old.tree.body.index(statement)].bound:
        return Kind.LOGGING
    if used & _SETTINGS:
        return Kind.ADDRESS
    if all(_only_binds(each) for each in simple_statements([statement])):
        silent = _is_read(statement, old) or not (used or _imports_loudly(statement))
        return Kind.DEFINITION if silent else Kind.EFFECT
    return Kind.ADDRESS if names_address(statement) else Kind.EFFECT


def needed_names(old: OldEnvironment, kinds: Sequence[Kind], wanted: Collection[str]) -> frozenset[str]:
    """The names that must stay bound: those wanted, those that staying statements read, and what these depend on."""
    needed = set(wanted)
    for names, kind in zip(old.names, kinds, strict=True):
        if kind is Kind.EFFECT:
            needed |= names.read
    while True:
        before = len(needed)
        for names, kind in zip(old.names, kinds, strict=True):
            if kind is Kind.DEFINITION and names.bound & needed:
                needed |= names.read
        if len(needed) == before:
            return frozenset(needed)


def is_usual(statement: ast.stmt, old: OldEnvironment) -> bool:
    """A definition that Alembic's templates have, and nobody misses: ``config = context.config``, a logger."""
    if not isinstance(statement, ast.Assign):
        return False
    configs = {f"{context}.config" for context in old.contexts}
    return ast.unparse(statement.value) in configs or any(called(call) in _LOGGING for call in calls(statement))


def names_address(node: ast.AST) -> bool:
    """Whether the setting with the database's address is mentioned in ``node``."""
    return any(isinstance(each, ast.Constant) and each.value == _URL for each in ast.walk(node))


def is_text(statement: ast.stmt) -> bool:
    """A string on its own: a docstring."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _only_binds(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Import | ast.ImportFrom | ast.Pass):
        return True
    if isinstance(statement, ast.Assign):
        return all(isinstance(target, ast.Name | ast.Tuple | ast.List) for target in statement.targets)
    return isinstance(statement, ast.AnnAssign | ast.AugAssign) and isinstance(statement.target, ast.Name)


def _registers(statement: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    """Defining it does something: decorators register functions, and Alembic and SQLAlchemy register subclasses."""
    return bool(statement.decorator_list or (isinstance(statement, ast.ClassDef) and statement.bases))


def _is_read(statement: ast.stmt, old: OldEnvironment) -> bool:
    """Whether any other statement asks for a name that this one makes."""
    index = old.tree.body.index(statement)
    bound = old.names[index].bound
    return any(bound & names.read for number, names in enumerate(old.names) if number != index)


def _imports_loudly(statement: ast.stmt) -> bool:
    return any(
        isinstance(each, ast.Import | ast.ImportFrom) and not is_quiet(each) for each in simple_statements([statement])
    )
