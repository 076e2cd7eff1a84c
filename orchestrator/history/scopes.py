"""Which names a piece of Python binds, and to what: enough to tell a fresh object from one that others hold too."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True, slots=True)
class Bound:
    """One way in which a name gets a value."""

    #: What it is imported from, dotted; empty where it is not imported.
    path: str = ""
    #: The expression assigned to it, where it is a plain assignment.
    value: ast.expr | None = None
    #: ``*args`` or ``**kwargs``: made anew by every call.
    collected: bool = False


@dataclass(frozen=True, slots=True)
class Scope:
    """The names that one module, class, function or comprehension binds."""

    node: ast.AST
    names: Mapping[str, tuple[Bound, ...]] = field(default_factory=dict)

    @property
    def is_function(self) -> bool:
        """Whether its names are a function's locals: where one is not bound yet, Python does not look further out."""
        return isinstance(self.node, (*FUNCTIONS, *COMPREHENSIONS))


def scope(node: ast.AST) -> Scope:
    """Read the names that ``node``, the root of a scope, binds in itself, in whichever branch."""
    names: dict[str, list[Bound]] = {}
    for name, bound in (*_parameters(node), *(found for part in _parts(node) for found in _bindings(part))):
        names.setdefault(name, []).append(bound)
    return Scope(node, {name: tuple(bounds) for name, bounds in names.items()})


def _parameters(node: ast.AST) -> Iterator[tuple[str, Bound]]:
    """Names that are given from outside the body: arguments, and what a comprehension goes through."""
    if isinstance(node, COMPREHENSIONS):
        for generator in node.generators:
            yield from _assigned(generator.target, None)
    if isinstance(node, FUNCTIONS):
        arguments = node.args
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            yield argument.arg, Bound()
        for collecting in (arguments.vararg, arguments.kwarg):
            if collecting is not None:
                yield collecting.arg, Bound(collected=True)


def _parts(node: ast.AST) -> Iterator[ast.AST]:
    """What belongs to the scope itself, outermost first."""
    if isinstance(node, ast.Lambda):
        yield from _within(node.body)
    else:
        for statement in getattr(node, "body", ()):
            yield from _within(statement)


def _within(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all below it in the same scope; of an inner scope only its head, and ``:=``, which reaches out."""
    yield node
    if isinstance(node, (*FUNCTIONS, ast.ClassDef, *COMPREHENSIONS)):
        if isinstance(node, COMPREHENSIONS):
            yield from (inner for inner in ast.walk(node) if isinstance(inner, ast.NamedExpr))
        return
    for child in ast.iter_child_nodes(node):
        yield from _within(child)


def _bindings(node: ast.AST) -> Iterator[tuple[str, Bound]]:
    match node:
        case ast.Import(names=aliases):
            for alias in aliases:
                top = alias.name.partition(".")[0]
                yield alias.asname or top, Bound(alias.name if alias.asname else top)
        case ast.ImportFrom(module=module, names=aliases):
            for alias in aliases:
                yield alias.asname or alias.name, Bound(f"{module}.{alias.name}")
        case ast.Assign(targets=targets, value=value):
            for target in targets:
                yield from _assigned(target, value)
        case ast.AnnAssign(target=target, value=ast.expr() as value) | ast.NamedExpr(target=target, value=value):
            yield from _assigned(target, value)
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name, Bound()
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            yield name, Bound()
        case ast.MatchMapping(rest=str(name)):
            yield name, Bound()
        case ast.For(target=target) | ast.AsyncFor(target=target):
            yield from _assigned(target, None)
        case ast.withitem(optional_vars=ast.expr() as target):
            yield from _assigned(target, None)


def _assigned(target: ast.expr, value: ast.expr | None) -> Iterator[tuple[str, Bound]]:
    if isinstance(target, ast.Name):
        yield target.id, Bound(value=value)
    elif isinstance(target, ast.Starred):
        yield from _assigned(target.value, None)
    elif isinstance(target, ast.Tuple | ast.List):
        values: list[ast.expr | None] = [None] * len(target.elts)
        if isinstance(value, ast.Tuple) and len(value.elts) == len(values):
            values = [None if isinstance(one, ast.Starred) else one for one in value.elts]
        for one, its in zip(target.elts, values, strict=True):
            yield from _assigned(one, its)


class Names:
    """What names mean at one place of the tree: the scopes around it, outermost first."""

    def __init__(self, *scopes: Scope) -> None:
        self._scopes = scopes

    def within(self, node: ast.AST) -> Names:
        """The same, one scope further in."""
        return Names(*self._scopes, scope(node))

    @property
    def in_function(self) -> bool:
        """Whether this place runs for every tenant, not once at import."""
        return any(isinstance(one.node, FUNCTIONS) for one in self._scopes)

    def lies_in(self, nodes: Collection[ast.AST]) -> bool:
        """Whether this place is inside one of ``nodes``, each of which begins a scope."""
        return any(one.node in nodes for one in self._scopes)

    def bounds(self, name: str) -> tuple[Bound, ...]:
        """Everything that the nearest scope that binds ``name`` binds it to; nothing for a builtin."""
        for number, one in enumerate(reversed(self._scopes)):
            # The functions of a class do not see the names of its body.
            if name in one.names and (number == 0 or not isinstance(one.node, ast.ClassDef)):
                return one.names[name]
        return ()

    def own(self, name: str) -> tuple[Bound, ...]:
        """What the innermost function itself binds ``name`` to; nothing where it is another scope's."""
        for one in reversed(self._scopes):
            if isinstance(one.node, FUNCTIONS):
                return one.names.get(name, ())
            if name in one.names:
                return ()
        return ()

    def of_module(self, name: str) -> tuple[Bound, ...]:
        """What the module binds ``name`` to, where no inner scope does."""
        inner = any(name in one.names for one in self._scopes[1:])
        return () if inner else self._scopes[0].names.get(name, ())

    def is_builtin(self, name: str) -> bool:
        """Whether ``name`` is Python's own, or may be: a module may bind it only sometimes."""
        return hasattr(builtins, name) and not any(name in one.names for one in self._scopes if one.is_function)

    def paths(self, node: ast.AST) -> tuple[str, ...]:
        """The dotted imports that an expression such as ``sa.func.now`` may stand for; nothing for other objects."""
        match node:
            case ast.Name(id=name):
                return tuple(bound.path for bound in self.bounds(name) if bound.path)
            case ast.Attribute(value=value, attr=attr):
                return tuple(f"{path}.{attr}" for path in self.paths(value))
        return ()


#: What is called at every node: the node, those it lies in, outermost first, and what names mean there.
Visit = Callable[[ast.AST, Sequence[ast.AST], Names], None]


def walk(tree: ast.Module, visit: Visit) -> None:
    """Go through a file, and know at every node what it lies in and what names mean there."""
    parents: list[ast.AST] = [tree]

    def go(node: ast.AST, names: Names) -> None:
        visit(node, parents, names)
        parents.append(node)
        if isinstance(node, COMPREHENSIONS):
            parents.append(node.generators[0])
            go(node.generators[0].iter, names)
            parents.pop()
        inside = _body(node)
        for child in ast.iter_child_nodes(node):
            if child not in inside:  # decorators, default values and bases belong to the scope around
                go(child, names)
        if inside:
            within = names.within(node)
            for child in inside:
                go(child, within)
        parents.pop()

    whole = Names(scope(tree))
    for statement in tree.body:
        go(statement, whole)


def _body(node: ast.AST) -> list[ast.AST]:
    """What lies in the scope that ``node`` begins; nothing where it begins none."""
    match node:
        case ast.FunctionDef(body=body) | ast.AsyncFunctionDef(body=body) | ast.ClassDef(body=body):
            return list(body)
        case ast.Lambda(body=expression):
            return [expression]
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            return list(ast.iter_child_nodes(node))
    return []
