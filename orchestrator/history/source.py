"""What a revision's source says without being run: its texts, its functions, its calls."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping

#: Calls that are given SQL as a text.
TAKES_SQL = frozenset({"execute", "text", "exec_driver_sql"})


def functions_of(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    """The functions of the file, by name."""
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def called(call: ast.Call) -> str:
    """The last part of the name of what is called; empty where it has none."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    """What a call is given under ``name``; ``None`` where it is given nothing."""
    return next((word.value for word in call.keywords if word.arg == name), None)


def text_of(node: ast.expr, texts: Mapping[str, str]) -> str | None:
    """The text that an expression stands for, as far as the file says; a value put into it is ``{}``."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.Name):
        return texts.get(node.id)
    if isinstance(node, ast.JoinedStr):
        parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        return "".join(str(part) for part in parts)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod):
        left = text_of(node.left, texts)
        right = text_of(node.right, texts) if isinstance(node.op, ast.Add) else ""
        return None if left is None else left + (right if right is not None else "{}")
    return None


def constants(tree: ast.Module) -> dict[str, str]:
    """Texts that the file gives a name to."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and (text := text_of(node.value, {})) is not None:
            found.update((target.id, text) for target in node.targets if isinstance(target, ast.Name))
    return found


def reached(functions: Mapping[str, ast.FunctionDef], start: str) -> Iterator[ast.FunctionDef]:
    """``start`` and the functions of the file that it calls, each once."""
    seen: set[str] = set()
    todo = [start]
    while todo:
        name = todo.pop()
        if name in functions and name not in seen:
            seen.add(name)
            yield functions[name]
            calls = (node.func for node in ast.walk(functions[name]) if isinstance(node, ast.Call))
            todo.extend(function.id for function in calls if isinstance(function, ast.Name))


def sql_of(call: ast.Call, texts: Mapping[str, str]) -> str | None:
    """The SQL that a call such as ``op.execute(sa.text("..."))`` is given, as far as the file says.

    Args:
        call: one of :data:`TAKES_SQL`.
        texts: what :func:`constants` found.
    """
    given = call.args[0] if call.args else None
    while isinstance(given, ast.Call) and called(given) in TAKES_SQL and given.args:
        given = given.args[0]
    return None if given is None else text_of(given, texts)


def statement_lines(tree: ast.Module) -> dict[int, int]:
    """The line at which the innermost statement over a line begins, by that line: what is found twice is told once."""
    begins: dict[int, int] = {}
    for node in ast.walk(tree):  # outer ones come first
        if isinstance(node, ast.stmt):
            begins.update(dict.fromkeys(range(node.lineno, (node.end_lineno or node.lineno) + 1), node.lineno))
    return begins


def unreached(tree: ast.Module, direction: str) -> frozenset[ast.AST]:
    """The functions that neither the direction's own nor the module level mentions, themselves or by others."""
    functions: dict[str, list[ast.FunctionDef]] = {}
    mentioned: list[str] = [direction]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            functions.setdefault(node.name, []).append(node)
            mentioned += _mentions([*node.decorator_list, node.args, *filter(None, [node.returns])])
        else:
            mentioned += _mentions([node])
    if direction not in functions:  # bound in another way: which function it is cannot be told
        return frozenset()
    found: set[str] = set()
    while mentioned:
        name = mentioned.pop()
        if name in functions and name not in found:
            found.add(name)
            mentioned += _mentions(functions[name])
    return frozenset(node for name, nodes in functions.items() if name not in found for node in nodes)


def _mentions(nodes: Iterable[ast.AST]) -> list[str]:
    return [inner.id for node in nodes for inner in ast.walk(node) if isinstance(inner, ast.Name)]
