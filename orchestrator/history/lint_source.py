"""Rules of ``lint`` that a revision's source answers: transactions, reads, names of public's. Pure."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from orchestrator.history.hazards import Hazard, HazardKind
from orchestrator.history.lint_sql import concurrently, if_not_exists, leaves_transaction, names_public
from orchestrator.history.pure_names import words
from orchestrator.history.source import called, constants, functions_of, keyword, sql_of

#: Operations that change tables.
_DDL = words(
    """
    add_column alter_column batch_alter_table create_check_constraint create_exclude_constraint create_foreign_key
    create_index create_primary_key create_table create_table_comment create_unique_constraint drop_column
    drop_constraint drop_index drop_table drop_table_comment rename_table
    """
)
_EXECUTES = frozenset({"execute", "exec_driver_sql"})
#: Calls that give a revision rows, or what the catalog says.
_READS = words(
    """
    fetchall fetchone fetchmany first mappings one one_or_none scalar scalar_one scalar_one_or_none scalars query
    get_columns get_foreign_keys get_indexes get_pk_constraint get_table_names get_unique_constraints has_column
    has_table inspect reflect Session sessionmaker
    """
)
#: SQL that changes nothing.
_IDLE = re.compile(r"\s*(?:SELECT|SHOW|SET|RESET|LOCK|ANALYZE|EXPLAIN)\b", re.IGNORECASE)
_DDL_SQL = re.compile(r"\s*(?:CREATE|ALTER|DROP)\b", re.IGNORECASE)
_BLOCK = "autocommit_block"
#: Characters of an expression that is told.
_SHORT = 80


@dataclass(frozen=True, slots=True)
class _Step:
    """One call that a direction comes to."""

    call: ast.Call
    #: Inside an autocommit block.
    bare: bool


def source_hazards(revision: str, tree: ast.Module) -> Iterator[Hazard]:
    """What ``lint`` finds in a revision's source, beside :func:`~orchestrator.history.hazards.find_hazards`.

    Args:
        revision: the identifier to report.
        tree: of its file.
    """
    texts, functions = constants(tree), functions_of(tree)
    for direction in ("upgrade", "downgrade"):
        steps = list(_steps(functions, direction))
        yield from _transactions(revision, direction, steps, texts)
        for step in steps:
            if _is_concurrent(step.call, texts) and _if_not_exists(step.call, texts):
                yield _hazard(revision, HazardKind.CONCURRENT_IF_NOT_EXISTS, step.call)
    yield from _reads(revision, functions, texts)
    for node, detail in _public_names(tree):
        yield Hazard(revision, HazardKind.PUBLIC_NAME, detail, getattr(node, "lineno", 1))


def _steps(functions: Mapping[str, ast.FunctionDef], start: str) -> Iterator[_Step]:
    """The calls of a function and of the file's own functions that it calls, with what they lie in."""
    seen: set[tuple[str, bool]] = set()

    def walk(node: ast.AST, bare: bool) -> Iterator[_Step]:
        if isinstance(node, ast.With) and any(_is_block(item.context_expr) for item in node.items):
            for statement in node.body:
                yield from walk(statement, True)
            return
        if isinstance(node, ast.Call):
            yield _Step(node, bare)
            if isinstance(node.func, ast.Name):
                yield from enter(node.func.id, bare)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, bare)

    def enter(name: str, bare: bool) -> Iterator[_Step]:
        if name in functions and (name, bare) not in seen:
            seen.add((name, bare))
            for statement in functions[name].body:
                yield from walk(statement, bare)

    return enter(start, False)


def _is_block(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and called(node) == _BLOCK


def _transactions(revision: str, direction: str, steps: list[_Step], texts: Mapping[str, str]) -> Iterator[Hazard]:
    """Steps outside transactions beside others, and those that are inside and must not be."""
    by_hand = [step for step in steps if leaves_transaction(_sql(step.call, texts) or "")]
    for step in by_hand:
        yield _hazard(revision, HazardKind.UNGUARDED_AUTOCOMMIT, step.call, "ends its transaction by hand: ")
    if by_hand or any(_is_block(step.call) for step in steps):
        # Entered in a way of its own: what lies inside cannot be told.
        return
    work = [step for step in steps if _is_work(step.call, texts)]
    inside, outside = [step for step in work if step.bare], [step for step in work if not step.bare]
    if inside and outside:
        first = inside[0].call
        other = f"beside {_shown(outside[0].call)} (line {outside[0].call.lineno}) in {direction}()"
        detail = f"{_shown(first)} outside any transaction, {other}: a failure leaves one without the other"
        yield Hazard(revision, HazardKind.UNGUARDED_AUTOCOMMIT, detail, first.lineno)
    for step in outside:
        if _is_concurrent(step.call, texts):
            detail = f"CONCURRENTLY cannot run in a transaction: {_shown(step.call)}"
            yield Hazard(revision, HazardKind.UNGUARDED_AUTOCOMMIT, detail, step.call.lineno)


def _reads(revision: str, functions: Mapping[str, ast.FunctionDef], texts: Mapping[str, str]) -> Iterator[Hazard]:
    """The first read of an upgrade that also changes tables."""
    calls = [step.call for step in _steps(functions, "upgrade")]
    changes = next((call for call in calls if _is_ddl(call, texts)), None)
    reads = next((call for call in calls if called(call) in _READS), None) or _read_in_loop(functions)
    if changes is not None and reads is not None:
        detail = f"{_shown(reads)} reads, and {_shown(changes)} (line {changes.lineno}) changes tables"
        yield Hazard(revision, HazardKind.READS_WITH_DDL, detail, reads.lineno)


def _read_in_loop(functions: Mapping[str, ast.FunctionDef]) -> ast.Call | None:
    """Rows are gone through as they come: ``for row in connection.execute(...)``."""
    for node in ast.walk(functions["upgrade"]) if "upgrade" in functions else ():
        if isinstance(node, ast.For | ast.comprehension):
            through = node.iter
            if isinstance(through, ast.Call) and called(through) in _EXECUTES:
                return through
    return None


def _is_work(call: ast.Call, texts: Mapping[str, str]) -> bool:
    if called(call) in _EXECUTES:
        text = _sql(call, texts)
        return text is None or not _IDLE.match(text)
    return called(call) == "bulk_insert" or _is_ddl(call, texts)


def _is_ddl(call: ast.Call, texts: Mapping[str, str]) -> bool:
    return isinstance(call.func, ast.Attribute) and (
        call.func.attr in _DDL or bool(_DDL_SQL.match(_sql(call, texts) or ""))
    )


def _is_concurrent(call: ast.Call, texts: Mapping[str, str]) -> bool:
    return _is_true(keyword(call, "postgresql_concurrently")) or concurrently(_sql(call, texts) or "")


def _if_not_exists(call: ast.Call, texts: Mapping[str, str]) -> bool:
    return _is_true(keyword(call, "if_not_exists")) or if_not_exists(_sql(call, texts) or "")


def _is_true(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


def _sql(call: ast.Call, texts: Mapping[str, str]) -> str | None:
    return sql_of(call, texts) if called(call) in _EXECUTES else None


def _public_names(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """Texts and arguments that name public; what stands for itself is a docstring."""
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        match node:
            case ast.keyword(arg=str(name), value=ast.Constant(value="public")) if name.endswith("schema"):
                yield node.value, f"{name}='public'"
            case ast.JoinedStr(values=values):
                text = "".join(str(one.value) if isinstance(one, ast.Constant) else "x" for one in values)
                said.update(id(one) for one in values)
                yield from ((node, found) for found in filter(None, [names_public(text)]))
            case ast.Constant(value=str(text)) if id(node) not in said:
                yield from ((node, found) for found in filter(None, [names_public(text)]))


def _hazard(revision: str, kind: HazardKind, call: ast.Call, before: str = "") -> Hazard:
    return Hazard(revision, kind, before + _shown(call), call.lineno)


def _shown(call: ast.Call) -> str:
    return " ".join(ast.unparse(call).split())[:_SHORT]
