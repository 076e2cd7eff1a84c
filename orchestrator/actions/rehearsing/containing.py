"""What a clone does not contain: a revision that works outside its connection does so for real."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from orchestrator.actions.project import Project
from orchestrator.errors import UsageError
from orchestrator.rollout.plan import PlannedTenant

#: Other connections, other programs, the network, as they are written in a revision's file.
_OUTSIDE = re.compile(
    r"\b(?:create_(?:async_)?engine|(?:asyncpg|psycopg2?|aiosqlite|sqlite3)\.connect|subprocess|os\.system|socket|urllib"
    r"|requests|httpx|aiohttp|smtplib|boto3|redis|kafka|pika)\b"
)
_WORD = re.compile(r"[^\W\d]\w*")


def refuse_side_effects(project: Project, revisions: Iterable[str], *, allowed: bool) -> list[str]:
    """Refuse revisions that work outside the connection that they are given, as far as their text tells.

    Args:
        project: opened.
        revisions: that are to be rehearsed.
        allowed: the operator says that it may be.

    Returns:
        What of it is done for real, for people.

    Raises:
        UsageError: there is one, and it was not allowed.
    """
    found = []
    for revision in revisions:
        file = project.history.file(revision)
        text = file.read_text(encoding="utf-8", errors="replace")
        if (match := _OUTSIDE.search(text)) is not None:
            line = text.count("\n", 0, match.start()) + 1
            found.append(f"revision {revision} uses {match[0]} ({file.name}:{line})")
    if found and not allowed:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise UsageError(
            f"{found[0]}: what it does outside its connection would be done for real, not to a clone{more}",
            hint="read it; where that does no harm: --allow-outside; else rehearse up to the revision before it",
        )
    return [f"{each}: what it did outside its connection was done for real" for each in found]


def words_of(project: Project, revisions: Sequence[str]) -> frozenset[str]:
    """Words in the files of ``revisions`` that may be names of schemas; not those that are other tenants'."""
    words: set[str] = set()
    for revision in revisions:
        words.update(_WORD.findall(_text(project.history.file(revision))))
    theirs = {tenant.schema for tenant in project.fleet.tenants if tenant.schema != "public"}
    return frozenset(words - {name for name in theirs if name is not None})


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")


def paths_of(tenants: Iterable[PlannedTenant]) -> tuple[str, ...]:
    """The revisions that any of ``tenants`` has to run, each once."""
    return tuple(dict.fromkeys(revision for each in tenants for revision in each.path))
