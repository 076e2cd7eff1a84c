"""What a revision takes from outside its own file, found in its syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from orchestrator.history.pure_names import attribute_fault, attributes, builtin_fault, import_fault, use_fault
from orchestrator.history.scopes import Names

#: Syntax that is refused for itself.
_REFUSED: dict[type[ast.AST], str] = {
    ast.ExceptHandler: "catches errors, which tenants need not share",
    ast.Nonlocal: "keeps state between calls",
    ast.Await: "waits for something else",
    ast.AsyncFor: "waits for something else",
    ast.AsyncWith: "waits for something else",
    ast.AsyncFunctionDef: "waits for something else",
}
#: What names a table's columns: what follows is a name of theirs.
_COLUMNS = frozenset({"c", "columns", "excluded"})
#: What may be called for the name of the dialect.
_DIALECT_HOLDERS = frozenset({"alembic.op.get_bind", "alembic.op.get_context"})


def foreign(node: ast.AST, parents: Sequence[ast.AST], names: Names) -> Iterator[str]:
    """Say what ``node`` takes from outside the file.

    Args:
        node: any node of the tree.
        parents: those it lies in, outermost first.
        names: what names mean where it stands.
    """
    if type(node) in _REFUSED:
        yield _REFUSED[type(node)]
    match node:
        case ast.Import(names=aliases):
            yield from filter(None, (import_fault(alias.name) for alias in aliases))
        case ast.ImportFrom(module=module, names=aliases, level=level):
            yield from _imported("." * level + (module or ""), [alias.name for alias in aliases])
        case ast.FunctionDef(name="__exit__"):
            yield _REFUSED[ast.ExceptHandler]
        case ast.Name(id=name, ctx=ast.Load()):
            yield from _named(node, name, parents, names)
        case ast.Attribute(value=holder, attr=attr):
            bounds = names.paths(node)
            if bounds:
                yield from _used(node, bounds, parents)
            elif not (isinstance(holder, ast.Attribute) and holder.attr in _COLUMNS):
                yield from filter(None, [attribute_fault(attr)])
        case ast.Call(func=func):
            yield from _called(node, names.paths(func))
            yield from filter(None, [attribute_fault(_plain_getattr(node, names))])
        case ast.keyword(arg="autoload" | "autoload_with" as argument):
            yield from filter(None, [attribute_fault(argument)])


def _imported(module: str, taken: list[str]) -> Iterator[str]:
    if module.startswith("."):
        yield f"imports {module}, which is not this file"
    elif "*" in taken:
        yield f"imports all of {module}"
    else:
        yield from filter(None, (import_fault(f"{module}.{name}") for name in taken))


def _named(node: ast.AST, name: str, parents: Sequence[ast.AST], names: Names) -> Iterator[str]:
    paths = names.paths(node)
    if paths:
        yield from _used(node, paths, parents)
    elif names.is_builtin(name) or not names.bounds(name):
        call = parents[-1]
        if not (isinstance(call, ast.Call) and call.func is node and _plain_getattr(call, names)):
            yield from filter(None, [builtin_fault(name)])


def _used(node: ast.AST, paths: tuple[str, ...], parents: Sequence[ast.AST]) -> Iterator[str]:
    """Judge an imported name at the end of what is taken from it: in ``sa.func.now``, at ``now``."""
    parent = parents[-1]
    if isinstance(parent, ast.Attribute) or (set(paths) <= _DIALECT_HOLDERS and _asks_dialect(node, parents)):
        return
    for path in paths:
        yield from filter(None, [use_fault(path), *(attribute_fault(one) for one in attributes(path))])
        if path.startswith("alembic.op.") and not (isinstance(parent, ast.Call) and parent.func is node):
            yield f"uses {path.removeprefix('alembic.')} as a value"


def _asks_dialect(node: ast.AST, parents: Sequence[ast.AST]) -> bool:
    """Whether it serves to ask for ``dialect.name`` alone, which all tenants of a recording share."""
    match parents[-3:]:
        case [ast.Attribute(attr="name"), ast.Attribute(attr="dialect"), ast.Call(func=func)]:
            return func is node
        case [_, ast.Assign(targets=[ast.Name(id=name)]), ast.Call(func=func)] if func is node:
            # In the body of a class the name would be an attribute, for anybody to take.
            scopes = [parent for parent in parents if isinstance(parent, ast.FunctionDef | ast.ClassDef)]
            return bool(scopes) and isinstance(scopes[-1], ast.FunctionDef) and _only_asks_dialect(scopes[-1], name)
    return False


def _only_asks_dialect(function: ast.FunctionDef, name: str) -> bool:
    uses = asked = 0
    for node in ast.walk(function):
        match node:
            case ast.Name(id=used, ctx=ast.Load()) if used == name:
                uses += 1
            case ast.Attribute(
                attr="name", ctx=ast.Load(), value=ast.Attribute(attr="dialect", value=ast.Name(id=used))
            ) if used == name:
                asked += 1
    return 0 < uses == asked


def _called(node: ast.Call, paths: tuple[str, ...]) -> Iterator[str]:
    given = {keyword.arg: keyword.value for keyword in node.keywords}
    if "alembic.op.batch_alter_table" in paths:
        recreate = given.get("recreate", ast.Constant("auto"))
        hidden = None in given or len(node.args) > 2 or any(isinstance(one, ast.Starred) for one in node.args)
        if hidden or not (isinstance(recreate, ast.Constant) and recreate.value in {"auto", "never"}):
            yield "op.batch_alter_table may read the table that it makes again"
    if "alembic.op.execute" in paths and given.keys() & {None, "execution_options"}:
        yield "op.execute with options of the connection"


def _plain_getattr(node: ast.Call, names: Names) -> str:
    """The attribute that ``getattr`` or ``hasattr`` names in so many words; empty where it is computed."""
    match node:
        case ast.Call(
            func=ast.Name(id="getattr" | "hasattr" as name), args=[_, ast.Constant(value=str(attribute)), *_]
        ):
            return attribute if names.is_builtin(name) else ""
    return ""
