"""What of a rehearsal matters most, in words; from the document that ``--json`` prints and the journal keeps. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Document: TypeAlias = Mapping[str, Any]

#: Tenants that are named in one line.
_NAMED = 3

#: How many times what was said a run may take, or be quicker, to be as expected.
_NEAR = 2.0

#: In the place of a lock's mode: on rows of a table.
ROWS = "row locks"

#: Locks that keep readers or writers waiting, in the order of their strength.
_STRENGTH = ("ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock")


@dataclass(frozen=True, slots=True)
class LockTold:
    """The strongest lock of one revision on one table, on the clone where it was held longest; or that on its rows."""

    revision: str
    table: str
    mode: str
    #: Whom it keeps waiting.
    blocks: str
    held_ms: float
    tenant: str


@dataclass(frozen=True, slots=True)
class RevisionTold:
    """One revision, on the clone where it took longest."""

    revision: str
    message: str
    tenant: str
    #: Of the first time up.
    ms: float
    down_ms: float | None
    rows: int
    #: What was made anew: ``tasks (200,000 rows)``, ``index ix_title``.
    rewritten: tuple[str, ...]
    wal_bytes: int | None
    #: Milliseconds that its transaction was open.
    open_ms: float
    outside: bool


def verdict(document: Document) -> str:
    """The whole answer in one line."""
    target = ", ".join(document["target"]) or "base"
    if not document["clones"]:
        return _without_clones(document, target)
    # Reports that an earlier version has kept do not say who was not reached.
    away = document.get("not_reached", ())
    unknown = f"; what is pending for {_some(away)} is not known: not reached" if away else ""
    return _rehearsed(document["clones"], target) + unknown


def _without_clones(document: Document, target: str) -> str:
    if away := document.get("not_reached"):
        return f"nothing was rehearsed: what is pending to {target} for {_some(away)} is not known: not reached"
    if left_alone := document.get("left_alone"):
        return f"nothing was rehearsed: an upgrade to {target} would leave alone {_some(left_alone)}"
    return f"nothing to rehearse: no tenant that was selected has anything pending to {target}"


def _some(tenants: Sequence[str]) -> str:
    more = f" and {len(tenants) - _NAMED} more" if len(tenants) > _NAMED else ""
    return ", ".join(tenants[:_NAMED]) + more


def _rehearsed(clones: Sequence[Document], target: str) -> str:
    failed = [clone for clone in clones if clone["error"] is not None]
    wrong = [clone for clone in clones if clone["error"] is None and not clone["ok"]]
    count = "1 clone" if len(clones) == 1 else f"{len(clones)} clones"
    if failed:
        return f"rehearsed to {target} on {count}: {len(failed)} failed"
    if wrong:
        return f"rehearsed to {target} on {count}: all went up, {len(wrong)} not back as it was"
    if any(clone["changed_rows"] for clone in clones):
        return f"rehearsed to {target} on {count}: up, down and up to the same tables, but not to the same rows"
    if all(clone["again_same"] for clone in clones):
        return f"rehearsed to {target} on {count}: up, down and up, each time the same"
    return f"rehearsed to {target} on {count}: all went up"


def failures(document: Document) -> Iterator[tuple[str, Document]]:
    """Clones that could not be made, or did not go up, with the error."""
    for clone in document["clones"]:
        if clone["error"] is not None:
            yield clone["tenant"], clone["error"]


def not_undone(document: Document) -> list[tuple[str, str, str]]:
    """What cannot be undone, or not without a trace: revision, tenant, and why. Each reason once."""
    found: dict[tuple[str, str], str] = {}
    for loss in document["losses"]:
        found[loss["revision"], f"may throw data away: {loss['detail']}"] = ""
    for clone in document["clones"]:
        for one in clone["revisions"]:
            for why in _trouble(one):
                found.setdefault((one["revision"], why), clone["tenant"])
        for line in clone["changed_rows"]:
            found.setdefault(("", f"up and back, {line}"), clone["tenant"])
        if (error := clone["again_error"]) is not None:
            found.setdefault(
                (error["revision"] or "", f"after that, it does not go up: {error['message']}"), clone["tenant"]
            )
        elif clone["again_same"] is False:
            found.setdefault(("", "up again, its tables are not as after the first time"), clone["tenant"])
    return [(revision, tenant, why) for (revision, why), tenant in found.items()]


def _trouble(one: Document) -> Iterator[str]:
    error = one["error"] or {}
    if one["back"] == "none":
        yield f"no way back: {error.get('message', 'it says so itself')}"
    elif one["back"] == "failed":
        yield f"its downgrade() fails: {error.get('message', '')}"
    elif one["back"] == "different":
        yield from (f"after its downgrade(): {line}" for line in one["difference"])


def locks(document: Document) -> list[LockTold]:
    """Locks that keep the application waiting, the longest first; in the direction of the run."""
    longest: dict[tuple[str, str, str], LockTold] = {}
    for clone, one, measured in _ups(document):
        for table, mode, blocks, held_ms in (*_table_locks(measured), *_row_locks(measured)):
            told = LockTold(one["revision"], table, mode, blocks, held_ms, clone["tenant"])
            # How many rows is another number on each clone.
            kind = ROWS if mode == ROWS else blocks
            known = longest.get((told.revision, table, kind))
            if known is None or told.held_ms > known.held_ms:
                longest[told.revision, table, kind] = told
    found = [each for each in longest.values() if not any(_covers(other, each) for other in longest.values())]
    return sorted(found, key=lambda each: (-each.held_ms, each.table))


def _table_locks(measured: Document) -> Iterator[tuple[str, str, str, float]]:
    for lock in measured["locks"]:
        if lock["blocks"] is not None:
            yield lock["table"], lock["mode"], lock["blocks"], lock["held_ms"]


def _row_locks(measured: Document) -> Iterator[tuple[str, str, str, float]]:
    """Rows that were updated or deleted: whoever else would write one of them waits for the commit."""
    held: dict[str, float] = {
        lock["table"]: lock["held_ms"] for lock in measured["locks"] if lock["mode"] == "RowExclusiveLock"
    }
    # Reports that an earlier version has kept do not say.
    changed: Mapping[str, int] = measured.get("rows_changed", {})
    whole: float = measured["transaction_ms"]
    for table, rows in changed.items():
        # An earlier revision of the same transaction may have the table's lock.
        count = "1 row" if rows == 1 else f"{rows:,} rows"
        yield table, ROWS, f"writes to {count}", held.get(table, whole)


def _covers(one: LockTold, other: LockTold) -> bool:
    """Whether ``other`` says nothing that ``one`` does not: a stronger lock on the table, held as long."""
    same = (one.revision, one.table) == (other.revision, other.table)
    return same and _strength(one) > _strength(other) and one.held_ms >= other.held_ms


def _strength(lock: LockTold) -> int:
    return _STRENGTH.index(lock.mode) if lock.mode in _STRENGTH else -1


def _ups(document: Document) -> Iterator[tuple[Document, Document, Document]]:
    for clone in document["clones"]:
        for one in clone["revisions"]:
            for measured in (one["up"], one["again"]):
                if measured is not None:
                    yield clone, one, measured


def revisions(document: Document) -> list[RevisionTold]:
    """Each revision once, in the order in which the longest way has them."""
    found: dict[str, RevisionTold] = {}
    for clone in sorted(document["clones"], key=lambda clone: -len(clone["revisions"])):
        for one in clone["revisions"]:
            told = _revision(clone["tenant"], one)
            known = found.get(told.revision)
            if known is None or told.ms > known.ms:
                # A name keeps its place in the dictionary.
                found[told.revision] = told
    return list(found.values())


def _revision(tenant: str, one: Document) -> RevisionTold:
    # Going up again it may find rows done already: the first time is what a run will see.
    up = one["up"]
    made = [_made(each) for each in up["rewritten"]]
    return RevisionTold(
        one["revision"],
        one["message"],
        tenant,
        up["duration_ms"],
        None if one["down"] is None else one["down"]["duration_ms"],
        sum(up["rows_written"].values()),
        tuple(dict.fromkeys(made)),
        up["wal_bytes"],
        up["transaction_ms"],
        up["outside_transaction"],
    )


def _made(each: Document) -> str:
    count = "1 row" if each["rows"] == 1 else f"{each['rows'] or 0:,} rows"
    rows = f" ({count})" if each["rows"] is not None else ""
    return f"{each['table']}{rows}" if each["index"] is None else f"index {each['index']} on {each['table']}{rows}"


def estimate(document: Document) -> list[str]:
    """How long the run would take, and what is not known of that; a line each."""
    known: Document = document["estimate"]
    lines = []
    if known["s"] is not None:
        count = "1 tenant" if known["tenants"] == 1 else f"{known['tenants']:,} tenants"
        longest = known["longest"]
        most = f"; {longest['tenant']} takes longest, {_seconds(longest['s'])}" if known["tenants"] > 1 else ""
        lines.append(
            f"a run over {count} takes about {_seconds(known['s'])}"
            f" ({_seconds(known['low_s'])} to {_seconds(known['high_s'])}){most}"
        )
    if (beyond := known["beyond"]) is not None:
        lines.append(
            f"a guess, for {beyond['tenant']} is {beyond['times']:.0f} times as large as any clone: rehearse it, too"
        )
    if known["bake_s"]:
        lines.append(f"its waves bake {_seconds(known['bake_s'])} on top of that")
    if known["unknown_tenants"]:
        names = ", ".join(known["not_rehearsed"][:3])
        more = len(known["not_rehearsed"]) - 3
        names += f" and {more} more" if more > 0 else ""
        count = known["unknown_tenants"]
        lines.append(f"not in it: {count} tenants that have revisions to run which no clone ran: {names}")
    return lines


def notes(document: Document) -> list[str]:
    """What else a reader has to know, each once."""
    found = [*document["notes"]]
    for clone in document["clones"]:
        found += [f"{clone['tenant']}: {note}" for note in clone["notes"]]
        found += clone["not_measured"]
    if any(one["up"]["wal_bytes"] is not None for clone in document["clones"] for one in clone["revisions"]):
        found.append("WAL is what the whole server wrote meanwhile")
    return list(dict.fromkeys(found))


def compared(found: Document) -> str:
    """How a run did beside what a rehearsal had said, in a line."""
    beside = found["measured_s"] / found["s"] if found["s"] else 0.0
    hit = _hit(found, beside)
    foreseen = f", without {found['unforeseen']} that it did not know" if found["unforeseen"] else ""
    count = "this tenant" if found["tenants"] == 1 else f"these {found['tenants']:,} tenants"
    if found["not_replayed"]:
        hit += f"; {found['not_replayed']} went through Alembic, and were to be replayed"
    return (
        f"rehearsal {found['rehearsal']} had said {_seconds(found['s'])}"
        f" ({_seconds(found['low_s'])} to {_seconds(found['high_s'])}) for {count}{foreseen};"
        f" it took {_seconds(found['measured_s'])}, {beside:.1f} times that: {hit}"
    )


def _hit(found: Document, beside: float) -> str:
    if not found["low_s"] <= found["measured_s"] <= found["high_s"]:
        return "outside of what was expected"
    # A spread may be so wide that it says little.
    near = 1 / _NEAR <= beside <= _NEAR
    return "as expected" if near else "within the spread that it gave, and not near what it said"


def _seconds(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    if seconds >= 120:
        return f"{seconds / 60:.0f} min"
    return f"{seconds:.1f} s" if seconds >= 0.95 else f"{seconds:.2f} s"
