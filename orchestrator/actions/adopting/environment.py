"""What an env.py written for one database says: how it configures Alembic, and which code runs the migrations."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from orchestrator.actions.adopting.syntax import Names, called, calls, names_of
from orchestrator.errors import ConfigurationError

#: What only the code that runs migrations asks of ``alembic.context``.
_RUNNING = frozenset({"configure", "run_migrations", "begin_transaction", "is_offline_mode"})
#: What Alembic's template for several databases passes, and no other.
_SEVERAL_DATABASES = frozenset({"upgrade_token", "downgrade_token", "engine_name"})
_BY_HAND = "write the tenant loop by hand: docs/howto/adopt.md shows it"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A piece of the old env.py that the user should look at."""

    #: Line in the old file, from 1.
    line: int
    #: The piece, or its first line.
    text: str
    #: Why it is not in the new file, or is in it with a change of meaning.
    reason: str


class OldEnvironment:
    """An env.py, read by its syntax.

    Args:
        source: its text.
        file: its name, for messages.

    Raises:
        ConfigurationError: it is not valid Python, or it does something that a tenant loop cannot take over.
    """

    def __init__(self, source: str, file: str) -> None:
        try:
            self.tree = ast.parse(source)
        except (SyntaxError, ValueError) as error:
            line = error.lineno if isinstance(error, SyntaxError) else None
            raise ConfigurationError(
                f"not valid Python: {error.args[0]}", file=file, line=line, hint="mend it, and then try again"
            ) from error
        self.file = file
        #: Names of every module-level statement, in order.
        self.names: list[Names] = [names_of(statement) for statement in self.tree.body]
        #: How this module spells ``alembic.context``; empty where it never imports it.
        self.contexts = frozenset(self._contexts())
        self.has_loop = any(called(call) == "for_each_tenant" for call in calls(self.tree))
        #: The module-level statements that run migrations; their functions by name.
        self.runners = self._find_runners()

    @property
    def runner_names(self) -> frozenset[str]:
        """The functions that run migrations."""
        return frozenset(each.name for each in self.runners if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))

    def configure_calls(self) -> tuple[ast.Call, tuple[ast.Call, ...]]:
        """The call of ``context.configure`` with a connection, and every other one.

        Raises:
            ConfigurationError: there is none, or it is made for several databases.
        """
        found = [call for call in calls(self.tree) if self._is_context(call.func, {"configure"})]
        several = [
            keyword.value.lineno
            for call in calls(self.tree)
            if self._is_context(call.func, {"configure", "run_migrations"})
            for keyword in call.keywords
            if keyword.arg in _SEVERAL_DATABASES
        ]
        if several:
            raise ConfigurationError(
                "this env.py is for several databases whose revisions differ (upgrade_ENGINE() in each file); a fleet "
                "has one history for all tenants",
                file=self.file,
                line=several[0],
                hint="make a project for each of its databases: `orchestrator init` in a directory of its own, then "
                "move that database's upgrade and downgrade functions into its alembic/versions/",
            )
        online = [call for call in found if call.args or any(keyword.arg == "connection" for keyword in call.keywords)]
        if not online:
            raise ConfigurationError(
                "no call of context.configure(connection=...), so it cannot be told how it migrates",
                file=self.file,
                hint=_BY_HAND,
            )
        return online[0], tuple(call for call in found if call is not online[0])

    def runner_of(self, node: ast.AST) -> ast.stmt:
        """The module-level statement that ``node`` stands in."""
        return next(statement for statement in self.tree.body if node in ast.walk(statement))

    def runs_migrations(self, node: ast.AST) -> bool:
        """Whether ``node`` asks Alembic to migrate."""
        return any(self._is_context(each, _RUNNING) for each in ast.walk(node))

    def _is_context(self, node: ast.AST, attributes: Iterable[str]) -> bool:
        return (
            isinstance(node, ast.Attribute)
            and node.attr in attributes
            and isinstance(node.value, ast.Name | ast.Attribute)
            and ast.unparse(node.value) in self.contexts
        )

    def _contexts(self) -> Iterator[str]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and node.module == "alembic" and not node.level:
                yield from (each.asname or each.name for each in node.names if each.name == "context")
            elif isinstance(node, ast.Import):
                for each in node.names:
                    if each.name == "alembic.context" and each.asname:
                        yield each.asname
                    elif each.name in {"alembic", "alembic.context"}:
                        yield f"{each.asname or 'alembic'}.context"

    def _find_runners(self) -> list[ast.stmt]:
        """Whatever asks Alembic to migrate, and whatever calls that."""
        found: set[int] = set()
        defined: set[str] = set()
        while True:
            before = len(found)
            for number, (statement, names) in enumerate(zip(self.tree.body, self.names, strict=True)):
                if isinstance(statement, ast.Import | ast.ImportFrom) or number in found:
                    continue
                if self.runs_migrations(statement) or names.read & defined:
                    found.add(number)
                    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                        defined.add(statement.name)
            if len(found) == before:
                return [self.tree.body[number] for number in sorted(found)]
