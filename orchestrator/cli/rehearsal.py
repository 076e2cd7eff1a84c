"""A rehearsal for people at three in the morning: the verdict, what locks what, what cannot be undone, the estimate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from orchestrator.cli.hints import typed
from orchestrator.cli.render import print_table, sized
from orchestrator.rollout import rehearsal_telling as telling

#: Locks, and things that cannot be undone, that are listed; all are in the JSON.
_LISTED = 12
#: So many revisions are all listed.
_MANY = 20


def show_rehearsal(document: Mapping[str, Any]) -> None:
    """Print what a rehearsal found.

    Args:
        document: as ``rehearse --json`` prints it.
    """
    click.echo(telling.verdict(document))
    for tenant, error in telling.failures(document):
        _show_failure(tenant, error)
    for line in telling.estimate(document):
        click.echo(line)
    if not document["clones"]:
        _show_notes(document)
        return
    _show_locks(document)
    _show_not_undone(document)
    _show_revisions(document)
    _show_clones(document)
    _show_notes(document)


def _show_failure(tenant: str, error: Mapping[str, Any]) -> None:
    where = f" in revision {error['revision']}" if error.get("revision") else ""
    click.echo(f"\n{tenant} failed{where}: {error['message']}")
    for name in ("statement", "hint"):
        if error.get(name):
            text = typed(str(error[name])) if name == "hint" else str(error[name])
            text = text.strip().replace("\n", "\n             ")
            click.echo(f"  {name:<9}  {text}")
    click.echo()


def _show_locks(document: Mapping[str, Any]) -> None:
    found = telling.locks(document)
    unseen = [each for clone in document["clones"] for each in clone["not_measured"]]
    if found:
        click.echo("\nkeeps the application waiting:")
        print_table(
            ("TABLE", "FOR", "WHO WAITS", "LOCK", "REVISION", "TENANT"),
            [
                (lock.table, _time(lock.held_ms), lock.blocks, lock.mode, lock.revision, lock.tenant)
                for lock in found[:_LISTED]
            ],
        )
        if len(found) > _LISTED:
            click.echo(typed(f"and {len(found) - _LISTED} more: orchestrator runs show {document['run']} --json"))
    elif any(clone["revisions"] for clone in document["clones"]) and not unseen:
        click.echo("\nno lock on a table that was there before keeps the application waiting")


def _show_not_undone(document: Mapping[str, Any]) -> None:
    found = telling.not_undone(document)
    if found:
        click.echo("\ncannot be undone:")
        for revision, tenant, why in found[:_LISTED]:
            who = f" ({tenant})" if tenant else ""
            click.echo(f"  {revision or 'all'}{who}: {why}")
        if len(found) > _LISTED:
            click.echo(typed(f"  and {len(found) - _LISTED} more: orchestrator runs show {document['run']} --json"))


def _show_revisions(document: Mapping[str, Any]) -> None:
    found = telling.revisions(document)
    if not found:
        return
    click.echo()
    rows = []
    # Of many, those that take long; in the order in which they are run.
    slowest = sorted(found, key=lambda one: -one.ms)[:_LISTED] if len(found) > _MANY else found
    for one in (one for one in found if one in slowest):
        made = ", ".join(one.rewritten) or "-"
        wal = "?" if one.wal_bytes is None else sized(max(one.wal_bytes, 0))
        down = "-" if one.down_ms is None else _time(one.down_ms)
        message = f"{one.message} (outside a transaction)" if one.outside else one.message
        rows.append((one.revision, _time(one.ms), down, f"{one.rows:,}", wal, made, one.tenant, message))
    print_table(("REVISION", "UP", "DOWN", "ROWS", "WAL", "WRITTEN ANEW", "TENANT", ""), rows)
    if len(found) > len(rows):
        most = max(one.ms for one in found if one not in slowest)
        told = f"and {len(found) - len(rows)} more, none of which took more than {_time(most)}"
        click.echo(typed(f"{told}: orchestrator runs show {document['run']} --json"))


def _show_clones(document: Mapping[str, Any]) -> None:
    made = [clone for clone in document["clones"] if clone["way"] is not None]
    if made:
        click.echo()
        print_table(
            ("CLONE OF", "PICKED", "FROM", "SIZE", "MADE BY", "IN"),
            [
                (
                    clone["tenant"],
                    ", ".join(clone["picked"]),
                    ", ".join(clone["from"]) or "base",
                    sized(clone["bytes"]),
                    clone["way"],
                    f"{clone['clone_s']:.1f} s",
                )
                for clone in made
            ],
        )


def _show_notes(document: Mapping[str, Any]) -> None:
    notes = telling.notes(document)
    if notes:
        click.echo()
    for note in notes:
        click.echo(f"note: {note}")


def _time(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.1f} s" if milliseconds >= 1000 else f"{milliseconds:.0f} ms"
