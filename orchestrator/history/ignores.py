"""Comments in a revision's file that excuse it from a rule: ``# orchestrator: ignore RULE: reason``."""

from __future__ import annotations

import io
import re
import tokenize
from dataclasses import dataclass

from orchestrator.history.hazards import HazardKind
from orchestrator.history.rules import NOT_IGNORED, SQUAWK_RULE, is_rule

_COMMENT = re.compile(r"#\s*orchestrator:\s*ignore\b\s*(?P<rule>[^\s:]*)\s*(?::(?P<reason>.*))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Ignore:
    """One such comment; it counts for the whole file."""

    rule: str
    #: Why; empty where none is given.
    reason: str
    #: 1-based line in the file.
    line: int

    @property
    def fault(self) -> str | None:
        """What is wrong with it; ``None`` where it counts."""
        if not self.rule:
            return "it names no rule"
        if not is_rule(self.rule):
            return f"there is no rule {self.rule}"
        if self.rule in NOT_IGNORED:
            return f"{self.rule} cannot be ignored"
        return None if self.reason else f"it gives no reason to ignore {self.rule}"

    def covers(self, rule: str) -> bool:
        """Whether it excuses from ``rule``; ``squawk`` is all that squawk finds."""
        whole = self.rule == HazardKind.SQUAWK and rule.startswith(SQUAWK_RULE)
        return self.fault is None and (rule == self.rule or whole)


def ignores(source: str) -> tuple[Ignore, ...]:
    """The ignoring comments of a revision file, in order; a string that looks like one is none.

    Args:
        source: text of the file, which Python can read.
    """
    found = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and (comment := _COMMENT.match(token.string)):
            found.append(Ignore(comment["rule"], (comment["reason"] or "").strip(), token.start[0]))
    return tuple(found)
