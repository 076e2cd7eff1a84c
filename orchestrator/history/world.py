"""Whether what a revision sends goes by the environment, the clock or the command line of whoever renders it. Pure.

What is rendered here and now is then not what another process sends. It does no harm where only a value follows from
it, such as a column's default or what is put into a row: the statements are the same ones.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.history.pure_names import attributes, by_word, words, world_fault
from orchestrator.history.scopes import COMPREHENSIONS, Names, walk
from orchestrator.history.source import called, unreached

#: What is asked, by the beginning of the dotted name by which it is asked.
_ASKED = by_word(
    {
        "the command line": "alembic.context.get_x_argument alembic.context.get_tag_argument sys.argv",
        "the configuration": "alembic.context.config alembic.context.environment alembic.context.script",
        "the environment": "os getpass platform socket sys",
        "the clock": "time",
        "chance": "random secrets uuid.uuid1 uuid.uuid4 uuid.uuid6 uuid.uuid7",
        "what another program says": "subprocess os.system os.popen",
    }
)
#: The same of whatever object has it: the migration context, or what ``context.config`` was given a name for.
_METHODS = by_word(
    {
        "the command line": "get_x_argument get_tag_argument",
        "the configuration": "get_main_option get_section get_section_option get_alembic_option opts",
        "the tenant": "version_table_schema default_schema_name server_version_info",
    }
)
#: What of those modules says nothing of where it runs; files beside the revision are a part of it.
_PLAIN = ("os.path.", "os.fspath", "os.sep", "os.linesep", "sys.path", "sys.stderr", "sys.stdout", "time.sleep")
_LOOKS = words("os.path.exists os.path.isfile os.path.isdir os.path.getmtime os.path.expanduser os.path.expandvars")
#: Calls that take values into a statement, or put them on paper.
_TAKES_VALUES = words(
    """
    values bulk_insert bindparams bindparam literal where between in_ on_conflict_do_update print debug info warning
    error exception critical log
    """
)
#: Arguments that are only kept as a value.
_VALUES = words("default onupdate server_default server_onupdate comment insert_default default_factory")
_EXECUTES = frozenset({"execute", "exec_driver_sql"})
#: Methods that put their argument into what they belong to; whether as one, or all that it has.
_PUTS = {"append": True, "add": True, "insert": True, "setdefault": True, "extend": False, "update": False}
_CONTAINERS = (ast.Dict, ast.List, ast.Tuple, ast.Set, *COMPREHENSIONS)
#: Characters of an expression that is told.
_SHORT = 60


def undetermined(tree: ast.Module, direction: str) -> tuple[str, int] | None:
    """The first thing that a revision goes by and that is not in its file: what it is, and its line.

    Args:
        tree: of its file.
        direction: ``upgrade`` or ``downgrade``; what only the other one reaches does not count.
    """
    return min(_Reader(tree, direction).found(), key=lambda one: one[1], default=None)


class _Reader:
    """Finds what is asked of the world, and follows where it goes."""

    def __init__(self, tree: ast.Module, direction: str) -> None:
        self._unreached = unreached(tree, direction)
        #: Questions: who asks, what it lies in, what it is about.
        self._asked: list[tuple[ast.expr, tuple[ast.AST, ...], str]] = []
        #: Where a name is used.
        self._loads: dict[str, list[tuple[ast.expr, tuple[ast.AST, ...]]]] = {}
        walk(tree, self._visit)

    def found(self) -> Iterator[tuple[str, int]]:
        """What decides over more than values."""
        for node, parents, what in self._asked:
            if self._decides(node, parents):
                shown = " ".join(ast.unparse(node).split())[:_SHORT]
                yield f"goes by {shown} ({what})", node.lineno

    def _visit(self, node: ast.AST, parents: Sequence[ast.AST], names: Names) -> None:
        if names.lies_in(self._unreached) or not isinstance(node, ast.Name | ast.Attribute):
            return
        if not isinstance(node.ctx, ast.Load):
            return
        if isinstance(node, ast.Name):
            self._loads.setdefault(node.id, []).append((node, tuple(parents)))
        if isinstance(parents[-1], ast.Attribute) and names.paths(parents[-1]):
            return  # asked of the whole name
        what = next(filter(None, map(_about, names.paths(node))), None)
        if what is None and isinstance(node, ast.Attribute) and not names.paths(node):
            what = _METHODS.get(node.attr) or world_fault(node.attr)
        if what is not None:
            self._asked.append((node, tuple(parents), what))

    def _decides(self, node: ast.expr, parents: tuple[ast.AST, ...]) -> bool:
        """Whether anything but a value follows from an expression, under whatever names it goes on."""
        seen: set[_Kept] = set()
        todo = [(node, parents, False)]
        while todo:
            kept = _leads_to(*todo.pop())
            if kept is None:
                return True
            for each in kept - seen:
                seen.add(each)
                todo += ((load, within, each.inside) for load, within in self._loads.get(each.name, ()))
        return False


def _about(path: str) -> str | None:
    """What an imported name is about, where it is the world."""
    if path in _LOOKS:
        return "the environment"
    if path.startswith(_PLAIN):
        return None
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        if (what := _ASKED.get(".".join(parts[:length]))) is not None:
            return what
    of_object = (_METHODS.get(name) or world_fault(name) for name in attributes(path))
    return next(filter(None, of_object), None)


@dataclass(frozen=True, slots=True)
class _Kept:
    """A name under which an answer goes on."""

    name: str
    #: It is in a list or the like: how long that is does not follow from it.
    inside: bool = False


def _leads_to(node: ast.AST, parents: tuple[ast.AST, ...], inside: bool) -> set[_Kept] | None:
    """Follow an expression outwards: the names that then stand for it; ``None`` where it decides what is sent."""
    passed = False  # an argument of a call, or what a choice is made by
    for parent in reversed(parents):
        match parent:
            case ast.Call(func=func) if node is not func:
                if _takes_value(parent, node):
                    return set()
                if isinstance(func, ast.Attribute) and func.attr in _PUTS and isinstance(func.value, ast.Name):
                    return {_Kept(func.value.id, inside or _PUTS[func.attr])}
                passed = True
            case ast.keyword(arg=name) if name in _VALUES:
                return set()
            case ast.JoinedStr(values=parts) if _is_quoted(parts, node):
                return set()
            case ast.IfExp() | ast.BoolOp():
                passed = True
            case ast.Subscript():
                inside = False
            case ast.comprehension(target=target) | ast.For(target=target):
                return _names(target, False) if inside and node is parent.iter else None
            case ast.Assign(targets=targets):
                return {each for target in targets for each in _names(target, inside)}
            case ast.AnnAssign(target=target) | ast.AugAssign(target=target) | ast.NamedExpr(target=target):
                return _names(target, inside)
            case ast.Return():
                function = next((one for one in reversed(parents) if isinstance(one, ast.FunctionDef)), None)
                return set() if function is None else {_Kept(function.name, inside)}
            case ast.Expr():
                return None if passed else set()
            case ast.Raise() | ast.Assert():
                return set()  # what is not raised is all sent
            case ast.stmt() | ast.match_case():
                return None
        inside = inside or isinstance(parent, _CONTAINERS)
        node = parent
    return None


def _takes_value(call: ast.Call, argument: ast.AST) -> bool:
    if called(call) in _TAKES_VALUES:
        return True
    return called(call) in _EXECUTES and argument in call.args[1:]


def _is_quoted(parts: Sequence[ast.expr], node: ast.AST) -> bool:
    """Whether it stands between single quotes in a text of SQL: ``f"... '{now}'"``."""
    number = next(number for number, part in enumerate(parts) if part is node)
    around = [parts[other] if 0 <= other < len(parts) else None for other in (number - 1, number + 1)]
    before, after = (part.value if isinstance(part, ast.Constant) else "" for part in around)
    return str(before).endswith("'") and str(after).startswith("'")


def _names(target: ast.expr, inside: bool) -> set[_Kept]:
    """The names that a target gives a value to, or to a part of which it does."""
    part = inside or isinstance(target, ast.Subscript)
    return {_Kept(node.id, part) for node in ast.walk(target) if isinstance(node, ast.Name)}
