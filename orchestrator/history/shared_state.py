"""What a revision keeps from one tenant to the next, and what has no order of its own, found in its syntax tree.

Alembic loads a revision file once in a process: its module-level objects serve every tenant.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from orchestrator.history.pure_names import words
from orchestrator.history.scopes import COMPREHENSIONS, Bound, Names

#: Methods that change the object they belong to, whatever they are given.
_MUTATORS = words(
    """
    append extend pop remove clear setdefault add discard sort reverse popitem appendleft extendleft popleft rotate
    subtract move_to_end append_column append_constraint send throw
    """
)
#: Calls that make an object of their own, by where they come from, by builtin, and by method.
_MAKING_PATHS = tuple(
    f"{module}." for module in words("alembic.op collections datetime decimal itertools json sqlalchemy textwrap uuid")
)
_MAKING_BUILTINS = words(
    """
    abs ascii bin bool bytearray bytes chr complex dict divmod enumerate filter float format frozenset hex int iter
    len list map oct ord pow range repr reversed round set sorted str tuple zip
    """
)
_MAKING_METHODS = words("copy encode format join lower lstrip replace rsplit rstrip split splitlines strip title upper")
_MAKING_SYNTAX = (
    *(ast.Constant, ast.JoinedStr, ast.BinOp, ast.Compare, ast.UnaryOp),
    *(ast.List, ast.Dict, ast.Set, ast.Tuple, *COMPREHENSIONS),
)
#: Builtins whose result is used up by the first who reads it, and those that read it at once.
_ITERATORS = words("iter map filter zip enumerate reversed")
_CONSUMERS = words("all any dict frozenset list max min set sorted sum tuple")
#: What may be done with a set: nothing that sees its order.
_ORDERLESS_CALLS = words("all any bool frozenset isinstance len max min set sorted")
_ORDERLESS_METHODS = words("add discard issubset issuperset isdisjoint remove update")


def changes(node: ast.AST, parents: Sequence[ast.AST], names: Names) -> Iterator[str]:
    """Say what ``node`` changes that a later tenant may meet again.

    Only an object that the same function has made may be changed: what is given to it, looked up, or gone through may
    be the module's under another name.

    Args:
        node: any node of the tree.
        parents: those it lies in, outermost first.
        names: what names mean where it stands.
    """
    changed: ast.expr | None = None
    match node:
        case ast.Subscript(value=changed, ctx=ast.Store() | ast.Del()):
            pass
        case ast.Attribute(value=changed, ctx=ast.Store() | ast.Del()):
            if _initialises(changed, parents):
                return
        case ast.Attribute(value=holder, attr=attr) if attr in _MUTATORS or _fills(node, parents):
            changed = None if names.paths(node) or _is_column(holder) else holder
        case ast.AugAssign(target=ast.Name() as target, value=value):
            number = isinstance(value, ast.Constant) and isinstance(value.value, int | float)
            changed = None if number else target
        case ast.Call(func=ast.Name(id="next"), args=[ast.expr() as iterator, *_]) if names.is_builtin("next"):
            changed = None if _is_fresh(iterator, names) else iterator
        case ast.Name(id=name, ctx=ast.Load()) if names.in_function and _is_registry(name, names):
            yield f"uses {name}, which tenants share"
    if changed is not None and not _is_own(changed, names):
        yield f"changes {ast.unparse(changed)}, which tenants may share"


def fleeting(node: ast.AST, parents: Sequence[ast.AST], names: Names, generators: frozenset[str]) -> Iterator[str]:
    """Say whether ``node`` makes, at import, an iterator that only the first tenant would find full.

    Args:
        node: any node of the tree.
        parents: those it lies in, outermost first.
        names: what names mean where it stands.
        generators: the functions of the file that yield.
    """
    if names.in_function:
        return
    makes = isinstance(node, ast.GeneratorExp)
    match node:
        case ast.Call(func=ast.Name(id=name)) if name in generators or (name in _ITERATORS and names.is_builtin(name)):
            makes = True
        case ast.Call(func=func):
            makes = any(path.startswith("itertools.") or path == "re.finditer" for path in names.paths(func))
    if makes and not _is_consumed(node, parents[-1], names):
        yield "keeps an iterator that the first tenant uses up"


def unordered(node: ast.AST, parents: Sequence[ast.AST], names: Names) -> Iterator[str]:
    """Say whether ``node`` is a set whose order, which follows from the process, may be seen."""
    is_set = _makes_set(node, names)
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        is_set = any(bound.value is not None and _makes_set(bound.value, names) for bound in names.bounds(node.id))
    if not is_set:
        return
    match parents[-1]:
        case ast.Compare(left=left) if left is not node:
            return
        case ast.Assign(targets=[ast.Name()]) | ast.AnnAssign(target=ast.Name()) | ast.If() | ast.UnaryOp():
            return
        case ast.Attribute(attr=attr) if attr in _ORDERLESS_METHODS:
            return
        case ast.Call(func=ast.Name(id=name)) if name in _ORDERLESS_CALLS and names.is_builtin(name):
            return
    yield "uses a set, whose order differs from process to process"


def _makes_set(node: ast.AST, names: Names) -> bool:
    match node:
        case ast.Set() | ast.SetComp():
            return True
        case ast.Call(func=ast.Name(id="set" | "frozenset" as name)):
            return names.is_builtin(name)
    return False


def _fills(node: ast.Attribute, parents: Sequence[ast.AST]) -> bool:
    """Whether ``.update`` or ``.insert`` is a container's: a table's takes nothing."""
    match node.attr, parents[-1]:
        case "update", ast.Call(func=func, args=args, keywords=keywords) if func is node:
            return bool(args or keywords)
        case "insert", ast.Call(func=func, args=args, keywords=keywords) if func is node:
            return len(args) + len(keywords) > 1 or any(isinstance(arg, ast.Starred) for arg in args)
        case "update" | "insert", _:
            return True
    return False


def _is_column(holder: ast.expr) -> bool:
    return isinstance(holder, ast.Attribute) and holder.attr in {"c", "columns", "excluded"}


def _initialises(changed: ast.expr, parents: Sequence[ast.AST]) -> bool:
    """Whether it is ``self`` in a class's ``__init__``: nobody else has that object yet."""
    functions = [parent for parent in parents if isinstance(parent, ast.FunctionDef | ast.Lambda | ast.ClassDef)]
    match functions[-2:]:
        case [ast.ClassDef(), ast.FunctionDef(name="__init__", args=ast.arguments(args=[first, *_]))]:
            return isinstance(changed, ast.Name) and changed.id == first.arg
    return False


def _is_own(changed: ast.expr, names: Names) -> bool:
    if not names.in_function:
        return not names.paths(changed)
    if not isinstance(changed, ast.Name):
        return False
    bounds = names.own(changed.id)
    return bool(bounds) and all(_is_made(bound, names) for bound in bounds)


def _is_made(bound: Bound, names: Names) -> bool:
    return bound.collected or (bound.value is not None and _is_fresh(bound.value, names, deep=False))


def _is_fresh(value: ast.expr, names: Names, *, deep: bool = True) -> bool:
    """Whether evaluating ``value`` makes an object that nothing else holds; ``deep`` looks through a name as well."""
    match value:
        case ast.Name() if deep:
            return _is_own(value, names)
        case ast.IfExp(body=one, orelse=other) | ast.BoolOp(values=[one, other]):
            return _is_fresh(one, names, deep=False) and _is_fresh(other, names, deep=False)
        case ast.Call(func=ast.Name(id=name)) if names.is_builtin(name):
            return name in _MAKING_BUILTINS
        case ast.Call(func=func) if names.paths(func):
            return all(path.startswith(_MAKING_PATHS) for path in names.paths(func))
        case ast.Call(func=ast.Attribute(attr=attr)):
            return attr in _MAKING_METHODS
    return isinstance(value, _MAKING_SYNTAX)


def _is_registry(name: str, names: Names) -> bool:
    """Whether it is a MetaData of the module's: each table made with it stays in it."""
    return any(
        isinstance(bound.value, ast.Call) and any(path.endswith(".MetaData") for path in names.paths(bound.value.func))
        for bound in names.of_module(name)
    )


def _is_consumed(node: ast.AST, parent: ast.AST, names: Names) -> bool:
    match parent:
        case ast.Call(func=ast.Name(id=name)):
            return name in _CONSUMERS and names.is_builtin(name)
        case ast.Call(func=ast.Attribute(value=ast.Constant(), attr="join")) | ast.Starred():
            return True
        case ast.For(iter=through) | ast.comprehension(iter=through):
            return through is node
    return False
