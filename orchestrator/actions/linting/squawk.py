"""Let squawk look at the SQL of revisions, and say in whose lines what it finds stands."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

from orchestrator.actions.linting.report import Finding, LintedRevision, Squawk
from orchestrator.actions.linting.scope import Scope
from orchestrator.databases.squawk import SquawkUnavailable, complaints
from orchestrator.history.hazards import HazardKind
from orchestrator.history.lint_sql import Statement
from orchestrator.history.rules import RULES, SQUAWK_RULE, severity_of
from orchestrator.statuses import Severity


def ask_squawk(
    scope: Scope, revisions: Sequence[LintedRevision], chosen: Mapping[str, Severity]
) -> tuple[Squawk, list[Finding]]:
    """What squawk says of what the revisions' ``upgrade`` sends; blocks until it has.

    Args:
        scope: what is looked at.
        revisions: with their SQL, as far as it could be rendered.
        chosen: what tenants.yaml says of rules; one of squawk's that weighs something is asked for by name.
    """
    severity = severity_of(HazardKind.SQUAWK, chosen)
    if severity is Severity.OFF:
        return Squawk(reason="tenants.yaml says `squawk: off`"), []
    if scope.dialect != "postgresql":
        return Squawk(reason="it knows PostgreSQL only"), []
    todo = [each for each in revisions if each.statements]
    if not todo:
        return Squawk(ran=True), []
    scripts = [_Script(each.statements) for each in todo]
    wanted = [name for name, weight in chosen.items() if name.startswith(SQUAWK_RULE) and weight is not Severity.OFF]
    include = sorted(name.removeprefix(SQUAWK_RULE) for name in wanted)
    try:
        found = complaints([script.text for script in scripts], version=scope.version, include=include)
    except SquawkUnavailable as error:
        return Squawk(reason=error.message, hint=error.hint, severity=severity), []
    findings: dict[Finding, None] = {}
    for one in found:
        each = todo[one.script]
        line = scripts[one.script].line_of(one.line)
        hint = one.help or RULES[HazardKind.SQUAWK].hint
        rule = f"{SQUAWK_RULE}{one.rule}"
        findings[Finding(rule, severity, each.revision, each.file, line, one.message, hint)] = None
    return Squawk(ran=True), list(findings)


class _Script:
    """Statements as one script, and the way back from its lines to theirs."""

    def __init__(self, statements: Sequence[Statement]) -> None:
        # What is made in a transaction nobody else uses yet, and squawk knows that.
        parts = ["BEGIN;", *(statement.text for statement in statements), "COMMIT;"]
        self.text = "\n".join(parts) + "\n"
        self._statements = statements
        self._begins: list[int] = []
        line = 2
        for statement in statements:
            self._begins.append(line)
            line += statement.text.count("\n") + 1

    def line_of(self, line: int) -> int:
        """The line of the revision's file that wrote line ``line`` (from 1) of the script."""
        number = bisect_right(self._begins, line) - 1
        return self._statements[max(number, 0)].line
