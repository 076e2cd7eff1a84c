"""An env.py for one database, rewritten for every tenant: what says *what* to migrate stays, what ran it goes."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from orchestrator.actions.adopting.configure import Configure
from orchestrator.actions.adopting.environment import LeftOut, OldEnvironment
from orchestrator.actions.adopting.statements import Kind, is_usual, kind_of, needed_names
from orchestrator.actions.adopting.syntax import Text, bound_by, is_quiet
from orchestrator.actions.new_files import template


@dataclass(frozen=True, slots=True)
class CarriedOver:
    """The new env.py."""

    #: Its text.
    source: str
    #: What is not in it, by line.
    left_out: tuple[LeftOut, ...]


def carry_over(source: str, file: str) -> CarriedOver | None:
    """Rewrite an env.py so that it hands the migration of one tenant to ``for_each_tenant``.

    Args:
        source: the text of the old one.
        file: its name, for messages.

    Returns:
        The new one; ``None`` when the old one calls ``for_each_tenant`` already.

    Raises:
        ConfigurationError: it is not valid Python, or does what a tenant loop cannot take over.
    """
    old = OldEnvironment(source, file)
    if old.has_loop:
        return None
    text = Text(source, old.tree)
    configure = Configure(old, text)
    chosen = _Chosen(old, configure, text)
    head = text.head(old.tree)
    parts = [*([head, ""] if head else []), *chosen.statements, "", "", *configure.render()]
    left_out = sorted({*configure.left_out, *chosen.left_out}, key=lambda each: each.line)
    return CarriedOver("\n".join(parts).strip("\n") + "\n", tuple(left_out))


class _Chosen:
    """The module-level statements that stay."""

    def __init__(self, old: OldEnvironment, configure: Configure, text: Text) -> None:
        self._old = old
        self._text = text
        self.left_out: list[LeftOut] = []
        self.statements: list[str] = []
        kinds = [kind_of(statement, old) for statement in old.tree.body]
        self._needed = needed_names(old, kinds, configure.needed)
        self._read = frozenset(name for names in old.names for name in names.read)
        root = configure.context.partition(".")[0]
        imported = False
        if kinds[0] is not Kind.DOCSTRING:
            self.statements.append(template("alembic/env.py").decode().partition("\n")[0] + "\n")
        for number, (statement, kind) in enumerate(zip(old.tree.body, kinds, strict=True)):
            kept = self._kept(statement, kind, number)
            if kept is None:
                self._tell(statement, kind)
                continue
            # Whatever comes first stands below the docstring, one blank line apart.
            self.statements.append(kept if len(self.statements) != 1 else kept.lstrip("\n"))
            if root in old.names[number].bound and not imported:
                self.statements.append("from orchestrator import for_each_tenant")
                imported = True
        if not imported:
            self.statements.append(f"\nfrom alembic import {root}\nfrom orchestrator import for_each_tenant")

    def _kept(self, statement: ast.stmt, kind: Kind, number: int) -> str | None:
        if kind in (Kind.RUNNER, Kind.LOGGING, Kind.ADDRESS):
            return None
        if kind in (Kind.DOCSTRING, Kind.EFFECT):
            return self._text.statement(statement)
        if isinstance(statement, ast.Import | ast.ImportFrom):
            return self._kept_import(statement)
        return self._text.statement(statement) if self._old.names[number].bound & self._needed else None

    def _kept_import(self, statement: ast.Import | ast.ImportFrom) -> str | None:
        """The import with the names that stay; one of the project's own that nobody names is there for what it does."""
        kept = [alias for alias in statement.names if self._keeps(statement, alias)]
        if len(kept) == len(statement.names):
            return self._text.statement(statement)
        dropped = [alias for alias in statement.names if alias not in kept]
        if not is_quiet(statement):
            self._leave_out(statement, f"only what ran the migrations used {', '.join(bound_by(a) for a in dropped)}")
        if not kept:
            return None
        if isinstance(statement, ast.Import):
            return ast.unparse(ast.Import(kept))
        return ast.unparse(ast.ImportFrom(statement.module, kept, statement.level))

    def _keeps(self, statement: ast.Import | ast.ImportFrom, alias: ast.alias) -> bool:
        name = bound_by(alias)
        if name == "*" or (isinstance(statement, ast.ImportFrom) and statement.module == "__future__"):
            return True
        return name in self._needed or (name not in self._read and not is_quiet(statement))

    def _tell(self, statement: ast.stmt, kind: Kind) -> None:
        if kind is Kind.ADDRESS:
            self._leave_out(statement, "the tenants' addresses are in tenants.yaml")
        elif kind is Kind.DEFINITION and not (
            isinstance(statement, ast.Import | ast.ImportFrom) or is_usual(statement, self._old)
        ):
            self._leave_out(statement, "only what ran the migrations used it")

    def _leave_out(self, statement: ast.stmt, reason: str) -> None:
        self.left_out.append(LeftOut(statement.lineno, self._text.line(statement.lineno), reason))
