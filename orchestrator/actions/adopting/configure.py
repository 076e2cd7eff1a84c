"""The call of ``context.configure`` in an old env.py, and the function for one tenant that takes its place."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator

from orchestrator.actions.adopting.environment import LeftOut, OldEnvironment
from orchestrator.actions.adopting.runners import bindings_in, left_in_runner, opens_connections
from orchestrator.actions.adopting.statements import names_address
from orchestrator.actions.adopting.syntax import Text, names_of
from orchestrator.errors import ConfigurationError

#: Options that say where the one database was; the loop says that now.
_REPLACED = frozenset(
    {"connection", "url", "dialect_name", "dialect_opts", "literal_binds", "as_sql", "transaction_per_migration"}
)
#: Options that cannot hold for a tenant, and why.
_UNFIT = {
    "version_table_schema": "each tenant's version table is in the tenant's own schema",
    "include_schemas": "it would compare the models with every other tenant's schema",
}
_DOCSTRING = "Configure Alembic for one tenant and run its migrations; each revision is committed with its version."


class Configure:
    """What one tenant's ``migrate`` passes on of the old call.

    Raises:
        ConfigurationError: the old env.py names its version table in a way that cannot be taken over.
    """

    def __init__(self, old: OldEnvironment, text: Text) -> None:
        self._old = old
        self._text = text
        self._call, others = old.configure_calls()
        self._runner = old.runner_of(self._call)
        #: How the new env.py spells ``alembic.context``.
        self.context = self._spelling()
        #: Module-level names that the function needs.
        self.needed: set[str] = {self.context.partition(".")[0]}
        self.left_out: list[LeftOut] = []
        self._connection = self._connection_name()
        self._bindings = bindings_in(self._runner)
        made: dict[bool, set[str]] = {True: set(), False: set()}
        for statement, names in zip(old.tree.body, old.names, strict=True):
            made[statement in old.runners] |= names.bound
        #: Names of the module that only code makes which goes.
        self._lost = made[True] - made[False]
        #: Statements of the old function that the options depend on.
        self._lifted: dict[ast.stmt, str] = {}
        self._options = list(self._carried())
        self._compare(others)
        for runner in old.runners:
            self.left_out.extend(left_in_runner(runner, old, text, frozenset(self._lifted), self._connection))

    def render(self) -> list[str]:
        """``migrate`` and the loop, as lines."""
        given = {option.arg: option.value for option in self._options}
        metadata, version_table = given.get("target_metadata"), given.get("version_table")
        lines = [
            f"def migrate({self._connection}, tenant):",
            f'    """{_DOCSTRING}"""',
            *self._lifted_lines(),
            f"    {self.context}.configure(",
            f"        connection={self._connection},",
            f"        target_metadata={self._text.expression(metadata, 8) if metadata is not None else None},",
            "        version_table_schema=tenant.schema,",
            "        transaction_per_migration=True,",
            *(
                f"        {option.arg + '=' if option.arg else '**'}{self._text.expression(option.value, 8)},"
                for option in self._options
                if option.value is not metadata
            ),
            "    )",
            f"    with {self.context}.begin_transaction():",
            f"        {self.context}.run_migrations()",
            "",
            "",
        ]
        loop = "migrate" if version_table is None else f"migrate, version_table={ast.unparse(version_table)}"
        return [*lines, f"for_each_tenant({loop})"]

    def _spelling(self) -> str:
        function = self._call.func
        assert isinstance(function, ast.Attribute), "found as an attribute of alembic.context"
        spelled = ast.unparse(function.value)
        root = spelled.partition(".")[0]
        return spelled if any(root in names.bound for names in self._old.names) else "context"

    def _connection_name(self) -> str:
        given = [*self._call.args[:1], *(each.value for each in self._call.keywords if each.arg == "connection")]
        return given[0].id if isinstance(given[0], ast.Name) else "connection"

    def _carried(self) -> Iterator[ast.keyword]:
        for option in self._call.keywords:
            name, value = option.arg, option.value
            if name in _REPLACED:
                continue
            reason = _UNFIT.get(name or "") or self._obstacle(value)
            if reason is None:
                yield option
            elif name == "version_table":
                raise ConfigurationError(
                    f"the version table's name, {ast.unparse(value)}, cannot be taken over: {reason}",
                    file=self._old.file,
                    line=value.lineno,
                    hint="give it a name at the top of env.py and pass that as version_table",
                )
            elif not (isinstance(value, ast.Constant) and value.value in (None, False)):
                self.left_out.append(LeftOut(value.lineno, self._spelled(option), reason))

    def _obstacle(self, node: ast.expr | ast.stmt) -> str | None:
        """Why ``node`` cannot stand in the new function; ``None`` where it can, with all that it needs noted."""
        if names_address(node):
            return "it reads the one database's address"
        for name in sorted(names_of(node).read):
            if name == self._connection:
                note = f"kept, but {name} is None when SQL is written offline (--sql)"
                self.left_out.append(LeftOut(node.lineno, self._text.line(node.lineno), note))
            elif name in self._bindings:
                if not self._lift(name):
                    return f"{name} is worked out where the migrations were run"
            elif name in self._lost:
                return f"{name} is made by code that ran the migrations"
            elif name == "tenant":
                return "`tenant` is the tenant here"
            elif name not in vars(builtins):
                self.needed.add(name)
        return None

    def _lift(self, name: str) -> bool:
        """Take over what makes ``name`` inside the old function, where that is one plain statement."""
        made = self._bindings[name]
        statement = made[0]
        if statement in self._lifted:
            return True
        if len(made) > 1 or not isinstance(
            statement, ast.Assign | ast.AnnAssign | ast.FunctionDef | ast.Import | ast.ImportFrom
        ):
            return False
        if opens_connections(statement):
            return False
        # Noted before it is looked into: a function may call itself.
        self._lifted[statement] = name
        if self._obstacle(statement) is None:
            return True
        del self._lifted[statement]
        return False

    def _lifted_lines(self) -> Iterator[str]:
        for statement in sorted(self._lifted, key=lambda each: each.lineno):
            if isinstance(statement, ast.FunctionDef):
                yield ""
            yield from ("    " + line if line else "" for line in ast.unparse(statement).splitlines())
            if isinstance(statement, ast.FunctionDef):
                yield ""

    def _compare(self, others: tuple[ast.Call, ...]) -> None:
        """Tell of what other calls of configure say and the chosen one does not."""
        chosen = {(option.arg, ast.dump(option.value)) for option in self._call.keywords}
        for call in others:
            for option in call.keywords:
                if option.arg not in _REPLACED and (option.arg, ast.dump(option.value)) not in chosen:
                    reason = f"the call of configure in line {self._call.lineno}, which was taken, says otherwise"
                    self.left_out.append(LeftOut(option.value.lineno, self._spelled(option), reason))

    def _spelled(self, option: ast.keyword) -> str:
        return f"{option.arg}={ast.unparse(option.value)}" if option.arg else f"**{ast.unparse(option.value)}"
