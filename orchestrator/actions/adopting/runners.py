"""The code of an old env.py that ran its migrations: what in it is only Alembic's usual frame, and what is more."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator

from orchestrator.actions.adopting.environment import LeftOut, OldEnvironment
from orchestrator.actions.adopting.statements import is_text, names_address
from orchestrator.actions.adopting.syntax import Text, called, calls, simple_statements

_ENGINES = frozenset({"engine_from_config", "async_engine_from_config", "create_engine", "create_async_engine"})
#: What Alembic's templates pass when they make an engine, or what changes nothing that is migrated.
_USUAL = frozenset({"prefix", "poolclass", "url", "future", "echo"})
_FRAME = frozenset({"dispose", "close", "get_section", "info", "debug"})
_REASON = "part of how the migrations were run; for_each_tenant does that now"


def left_in_runner(
    runner: ast.stmt, old: OldEnvironment, text: Text, lifted: Collection[ast.stmt], connection: str
) -> Iterator[LeftOut]:
    """What is lost with a statement that ran migrations, but for what every env.py has."""
    inside_lifted = {each for statement in lifted for each in ast.walk(statement)}
    plain = _names_of_addresses(runner, connection)
    for node in ast.walk(runner):
        if isinstance(node, ast.For | ast.AsyncFor | ast.While) and old.runs_migrations(node):
            yield LeftOut(node.lineno, text.line(node.lineno), "whom to migrate is said in tenants.yaml")
    for statement in simple_statements([runner]):
        if statement not in inside_lifted and not _is_frame(statement, old, plain):
            yield LeftOut(statement.lineno, text.line(statement.lineno), _REASON)


def bindings_in(runner: ast.stmt) -> dict[str, list[ast.AST]]:
    """Every name that is made inside a statement, with what makes it."""
    found: dict[str, list[ast.AST]] = {}
    for node in ast.walk(runner):
        for name in _made_by(node):
            found.setdefault(name, []).append(node)
    if isinstance(runner, ast.FunctionDef | ast.AsyncFunctionDef):
        del found[runner.name]
    return found


def opens_connections(node: ast.AST) -> bool:
    """Whether an engine is made in ``node``."""
    return any(called(call) in _ENGINES for call in calls(node))


def _made_by(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
        if not isinstance(node, ast.ClassDef):
            arguments = node.args
            yield from (each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs))
    elif isinstance(node, ast.stmt):
        # Only the statement's own targets: those of statements inside it are met on their own.
        own = [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.stmt | ast.ExceptHandler)]
        for child in own:
            for each in ast.walk(child):
                if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store):
                    yield each.id
    elif isinstance(node, ast.ExceptHandler) and node.name:
        yield node.name


def _names_of_addresses(runner: ast.stmt, connection: str) -> frozenset[str]:
    """Names that only lead to the connection: read by ``url=``, or opened in a ``with`` that makes the connection."""
    sources: list[ast.AST] = [
        option.value for call in calls(runner) for option in call.keywords if option.arg in {"url", "connection"}
    ]
    for node in ast.walk(runner):
        if isinstance(node, ast.With | ast.AsyncWith):
            sources.extend(item.context_expr for item in node.items)
    names = {each.id for source in sources for each in ast.walk(source) if isinstance(each, ast.Name)}
    return frozenset(names | {connection})


def _is_frame(statement: ast.stmt, old: OldEnvironment, addresses: frozenset[str]) -> bool:
    if isinstance(statement, ast.Pass | ast.Global) or is_text(statement):
        return True
    if old.runs_migrations(statement):
        return True
    if opens_connections(statement):
        made = [call for call in calls(statement) if called(call) in _ENGINES]
        return all(option.arg in _USUAL for call in made for option in call.keywords)
    if names_address(statement):
        return True
    names = {each.id for each in ast.walk(statement) if isinstance(each, ast.Name)}
    if names & old.runner_names or {called(call) for call in calls(statement)} & _FRAME:
        return True
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name):
        url_only = isinstance(statement.value, ast.Call | ast.Name | ast.Attribute | ast.Constant)
        return statement.targets[0].id in addresses and url_only and "url" in statement.targets[0].id
    return False
