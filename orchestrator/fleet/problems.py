"""Problems: everything that is wrong with one file or one source, told at once, a line each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.errors import ConfigurationError
from orchestrator.fleet.masking import mask
from orchestrator.fleet.nearest import did_you_mean

#: Keys and list positions that lead to a value, from the top: ``("tenants", 3, "tags", 0)``.
Path = tuple[str | int, ...]

#: Lines one message has at most; the rest is counted.
SHOWN = 20


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    #: The value at fault.
    path: Path
    message: str
    #: What to write instead; ``None`` when the message says it all.
    hint: str | None = None
    #: The key is at fault, not its value.
    at_key: bool = False


@dataclass(frozen=True, slots=True)
class Located:
    """A problem and where it stands, for people."""

    #: Sorts problems in the order of the file.
    line: int
    column: int
    message: str
    hint: str | None


@dataclass(slots=True)
class Report:
    """Collects problems and turns them into one error."""

    #: The file as the user named it; ``None`` for rows of a source.
    file: str | None
    found: list[Located] = field(default_factory=list)

    def raise_if_any(self, hint: str) -> None:
        """Raise one error that tells all problems, the first ones of the file first.

        Args:
            hint: what to do next, where there is more than one problem or it has no hint of its own.
        """
        if not self.found:
            return
        found = sorted(set(self.found), key=lambda problem: (problem.line, problem.column))
        first, *others = found[:SHOWN]
        lines = [first.message, *(self._line(other) for other in others)]
        if len(found) > SHOWN:
            lines.append(f"... and {len(found) - SHOWN} more")
        if others:
            lines[0] = _with_hint(first)
            place: Mapping[str, Any] = {"hint": hint}
        else:
            place = {"hint": first.hint or hint}
        if self.file is not None:
            place = {**place, "file": self.file, "line": first.line, "column": first.column}
        raise ConfigurationError(mask("\n".join(lines)), **place)

    def _line(self, problem: Located) -> str:
        place = f"{self.file}:{problem.line}:{problem.column}: " if self.file is not None else ""
        return place + _with_hint(problem)


def suggestion(word: str, known: Mapping[str, Any] | frozenset[str] | list[str]) -> str | None:
    """A hint that names the nearest of ``known``, or all of them when there are few."""
    near = did_you_mean(word, known)
    if near:
        return f"did you mean `{near}`?"
    return f"one of: {', '.join(known)}" if 0 < len(known) <= 12 else None


def _with_hint(problem: Located) -> str:
    return f"{problem.message} ({problem.hint})" if problem.hint else problem.message
