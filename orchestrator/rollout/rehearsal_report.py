"""A rehearsal as a report for a ticket, in Markdown (GitHub's, for its tables). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.rollout import rehearsal_telling as telling
from orchestrator.rollout.markdown import block, code, table


def report(document: Mapping[str, Any]) -> str:
    """Write a rehearsal as Markdown, with a line break at its end.

    Args:
        document: as ``rehearse --json`` prints it. What tenants, revisions and databases have said is shown as it is
            and means nothing to Markdown.
    """
    parts = (_head(document), _failures(document), _locks(document), _not_undone(document), _revisions(document))
    return "\n\n".join(part for part in (*parts, _notes(document)) if part) + "\n"


def _head(document: Mapping[str, Any]) -> str:
    lines = [f"**{code(telling.verdict(document))}**", *map(code, telling.estimate(document))]
    return "\n".join([f"# Rehearsal {document['run']}", "", *(f"- {line}" for line in lines)])


def _failures(document: Mapping[str, Any]) -> str:
    parts = []
    for tenant, error in telling.failures(document):
        where = f" in {code(error['revision'])}" if error.get("revision") else ""
        told = [f"### {code(tenant)} failed{where}", block(str(error["message"]))]
        told += [block(str(error["statement"]))] if error.get("statement") else []
        parts.append("\n\n".join(told))
    return "\n\n".join(parts)


def _locks(document: Mapping[str, Any]) -> str:
    rows = [
        (
            code(each.table),
            f"{each.held_ms:.0f} ms",
            each.blocks,
            code(each.mode),
            code(each.revision),
            code(each.tenant),
        )
        for each in telling.locks(document)
    ]
    headings = ("table", "for", "who waits", "lock", "revision", "tenant")
    return _section("Keeps the application waiting", headings, rows)


def _not_undone(document: Mapping[str, Any]) -> str:
    rows = [(code(revision), code(tenant), code(why)) for revision, tenant, why in telling.not_undone(document)]
    return _section("Cannot be undone", ("revision", "tenant", "why"), rows)


def _revisions(document: Mapping[str, Any]) -> str:
    rows = [
        (
            code(each.revision),
            f"{each.ms:.0f} ms",
            "" if each.down_ms is None else f"{each.down_ms:.0f} ms",
            str(each.rows),
            "" if each.wal_bytes is None else str(each.wal_bytes),
            ", ".join(map(code, each.rewritten)),
            code(each.tenant),
            code(each.message),
        )
        for each in telling.revisions(document)
    ]
    headings = ("revision", "up", "down", "rows written", "WAL bytes", "written anew", "tenant", "what")
    return _section("Revisions", headings, rows)


def _notes(document: Mapping[str, Any]) -> str:
    notes = telling.notes(document)
    return "## Notes\n\n" + "\n".join(f"- {code(note)}" for note in notes) if notes else ""


def _section(title: str, headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    listed = list(rows)
    return f"## {title}\n\n{table(headings, listed)}" if listed else ""
