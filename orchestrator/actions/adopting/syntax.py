"""Which names a piece of Python reads and binds, and the lines it stands on. Code is read here, never run."""

from __future__ import annotations

import ast
import symtable
import sys
from collections.abc import Iterator
from dataclasses import dataclass

#: Packages that are imported for their names alone.
_QUIET = frozenset({"alembic", "sqlalchemy"}) | sys.stdlib_module_names


@dataclass(frozen=True, slots=True)
class Names:
    """The module-level names that matter to a piece of code."""

    #: Looked up in the module (or among the built-ins).
    read: frozenset[str]
    #: Given a value in the module.
    bound: frozenset[str]


def names_of(node: ast.stmt | ast.expr) -> Names:
    """The names that a statement of a module, or an expression, reads and binds."""
    expression = isinstance(node, ast.expr)
    top = symtable.symtable(ast.unparse(node), "env.py", "eval" if expression else "exec")
    read: set[str] = set()
    bound: set[str] = set()

    def visit(table: symtable.SymbolTable) -> None:
        for symbol in table.get_symbols():
            inside = table is top or symbol.is_global()
            if inside and symbol.is_referenced():
                read.add(symbol.get_name())
            if inside and (symbol.is_assigned() or symbol.is_imported()):
                bound.add(symbol.get_name())
        for child in table.get_children():
            visit(child)

    visit(top)
    # From Python 3.12 on, a comprehension's own variables are listed as if they were the module's.
    return Names(frozenset(read - bound if expression else read), frozenset(bound))


def simple_statements(body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements that hold no others, in order; those inside functions and classes too."""
    found: list[ast.stmt] = []
    for statement in body:
        inner = [child for child in ast.walk(statement) if isinstance(child, ast.stmt) and child is not statement]
        blocks = [value for _, value in ast.iter_fields(statement) if isinstance(value, list)]
        if not inner:
            found.append(statement)
            continue
        for block in blocks:
            found.extend(simple_statements([each for each in block if isinstance(each, ast.stmt)]))
            for each in block:
                if isinstance(each, ast.ExceptHandler | ast.match_case):
                    found.extend(simple_statements(each.body))
    return found


def calls(node: ast.AST) -> Iterator[ast.Call]:
    """Every call in ``node``, in the order of the text."""
    found = (each for each in ast.walk(node) if isinstance(each, ast.Call))
    return iter(sorted(found, key=lambda call: (call.lineno, call.col_offset)))


def called(call: ast.Call) -> str:
    """The last part of the name that is called; empty where a call's result is."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def bound_by(alias: ast.alias) -> str:
    """The name that one part of an import statement makes."""
    return alias.asname or alias.name.partition(".")[0]


def is_quiet(statement: ast.Import | ast.ImportFrom) -> bool:
    """Whether importing this changes nothing for the project: it registers no tables."""
    if isinstance(statement, ast.ImportFrom):
        return not statement.level and (statement.module or "").partition(".")[0] in _QUIET
    return all(alias.name.partition(".")[0] in _QUIET for alias in statement.names)


class Text:
    """The lines of a module, to take statements over as their author wrote them."""

    def __init__(self, source: str, tree: ast.Module) -> None:
        self._source = source
        self._lines = source.splitlines()
        starts = [line for statement in tree.body for line in range(_first(statement), _last(statement) + 1)]
        #: Lines that two statements share.
        self._shared = {line for line in starts if starts.count(line) > 1}

    def head(self, tree: ast.Module) -> str:
        """The comments above everything else: a licence, mostly."""
        first = _first(tree.body[0]) if tree.body else len(self._lines) + 1
        return "\n".join(self._lines[: first - 1]).strip("\n")

    def statement(self, node: ast.stmt) -> str:
        """A module-level statement with the comments right above it, and up to two blank lines before those."""
        first, last = _first(node), _last(node)
        if {first, last} & self._shared:
            return ast.unparse(node)
        start = first - 1
        while start > 0 and self._lines[start - 1].startswith("#"):
            start -= 1
        blank = 0
        while start - blank > 0 and not self._lines[start - blank - 1].strip() and blank < 2:
            blank += 1
        # Comments at the top of the file are taken over with the head.
        start = first - 1 if start - blank <= 0 else start
        return "\n" * blank + "\n".join(self._lines[start:last])

    def expression(self, node: ast.expr, indent: int) -> str:
        """An expression as it is written, its further lines moved to ``indent`` columns."""
        text = ast.get_source_segment(self._source, node) or ast.unparse(node)
        first, *rest = text.splitlines()
        if not rest:
            return text
        margin = min((len(line) - len(line.lstrip()) for line in rest if line.strip()), default=0)
        if _spans_lines(node) or any(line.startswith("\t") for line in rest):
            return ast.unparse(node)
        return "\n".join([first, *(" " * indent + line[margin:] if line.strip() else "" for line in rest)])

    def line(self, number: int) -> str:
        """One line, by its number from 1."""
        return self._lines[number - 1].strip()


def _first(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _last(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno


def _spans_lines(node: ast.expr) -> bool:
    """A string in it goes over several lines, so that moving them would change it."""
    strings = (each for each in ast.walk(node) if isinstance(each, ast.Constant | ast.JoinedStr))
    return any(each.lineno != each.end_lineno for each in strings)
