"""A run as a report for a ticket, in Markdown (GitHub's, for its tables). Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime

from orchestrator.journal.records import AttemptRecord
from orchestrator.rollout.markdown import block, code, table
from orchestrator.rollout.rehearsal_telling import compared
from orchestrator.rollout.result import Cause, RunResult
from orchestrator.rollout.waves import WaveRecord
from orchestrator.statuses import SATISFIED, TenantStatus

#: Tenants that took longest, and backups, that are listed.
_LISTED = 10
#: Causes that are told in full.
_CAUSES = 20


def report(result: RunResult) -> str:
    """Write ``result`` as Markdown, with a line break at its end.

    What tenants, revisions and databases have said is shown as it is and means nothing to Markdown.
    """
    parts = (_head(result), _waves(result), _failures(result), _slowest(result), _backups(result))
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(result: RunResult) -> str:
    run = result.run
    facts = [
        ("status", f"**{run.status.value}**: {_counted(result.tenants)}"),
        ("target", ", ".join(code(each) for each in run.target) or code(run.requested_target or "base")),
        ("started", _moment(run.started_at)),
        ("finished", _moment(run.finished_at)),
        ("took", _seconds(run.started_at, run.finished_at)),
        ("rehearsed", code(compared(result.rehearsed)) if result.rehearsed is not None else ""),
        ("by", code(f"{run.actor.user}@{run.actor.host}")),
        ("commit", code(run.actor.git_commit or "")),
        ("directory", code(run.directory_digest or "")),
        ("go on with", "" if result.satisfied or result.way_on is None else code(result.retry)),
    ]
    lines = [f"# Run {run.id}: {run.command}", "", *(f"- {name}: {value}" for name, value in facts if value)]
    return "\n".join(lines)


def _waves(result: RunResult) -> str:
    records = {wave.name: wave for wave in result.waves}
    members: dict[str, list[AttemptRecord]] = {name: [] for name in records}
    for attempt in result.tenants:
        members.setdefault(attempt.wave or "-", []).append(attempt)
    if len(members) < 2 and not records:
        return ""
    # Those that were not reached come in the order in which their tenants do.
    names = dict.fromkeys([*(attempt.wave or "-" for attempt in result.tenants), *records])
    rows = [_wave(name, members[name], records.get(name)) for name in names]
    return "## Waves\n\n" + table(("wave", "state", "tenants", "took", "remarks"), rows)


def _wave(name: str, members: Sequence[AttemptRecord], record: WaveRecord | None) -> tuple[str, ...]:
    began = [attempt.started_at for attempt in members if attempt.started_at is not None]
    ended = [attempt.finished_at for attempt in members if attempt.finished_at is not None]
    took = _seconds(min(began), max(ended)) if began and ended else ""
    return code(name), record.state.value if record else "", _counted(members), took, _remarks(record)


def _remarks(record: WaveRecord | None) -> str:
    if record is None:
        return ""
    remarks = [code(record.reason)] if record.reason else []
    if record.rolled_back is not None:
        remarks.append(f"taken back by run {code(record.rolled_back)}")
    if record.until is not None:
        remarks.append(f"baked until {_moment(record.until)}")
    refused = list((record.refused or {}).items())
    remarks += [f"{code(tenant)} turned down: {code(why)}" for tenant, why in refused[:_LISTED]]
    if len(refused) > _LISTED:
        remarks.append(f"and {len(refused) - _LISTED} more turned down")
    return "; ".join(remarks)


def _failures(result: RunResult) -> str:
    if not result.causes:
        return ""
    attempts = {attempt.tenant: attempt for attempt in result.tenants}
    count = sum(cause.count for cause in result.causes)
    parts = [f"## Failures\n\n{_tenants(count)}, {len(result.causes)} cause{'s' if len(result.causes) > 1 else ''}"]
    for number, cause in enumerate(result.causes[:_CAUSES], 1):
        parts.append("\n".join(_cause(number, cause, attempts[cause.example])))
    if len(result.causes) > _CAUSES:
        parts.append(
            f"and {len(result.causes) - _CAUSES} more causes: {code(f'orchestrator runs show {result.run.id}')}"
        )
    return "\n\n".join(parts)


def _cause(number: int, cause: Cause, example: AttemptRecord) -> Iterator[str]:
    error = example.error or {}
    yield f"### {number}. {_tenants(cause.count)}, for example {code(cause.example)} ({example.status.value})"
    yield ""
    for name in ("revision", "type", "sqlstate"):
        if error.get(name):
            yield f"- {name}: {code(str(error[name]))}"
    yield f"- again: {code(cause.retry)}"
    for name in ("message", "statement", "hint"):
        if error.get(name):
            yield f"\n{name}:\n"
            yield block(str(error[name]))


def _slowest(result: RunResult) -> str:
    timed = [attempt for attempt in result.tenants if attempt.duration_ms is not None]
    timed.sort(key=lambda attempt: (-(attempt.duration_ms or 0), attempt.tenant))
    if not timed:
        return ""
    rows = [
        (
            code(attempt.tenant),
            f"{(attempt.duration_ms or 0) / 1000:.1f} s",
            str(attempt.attempts),
            attempt.path or "",
            attempt.status.value,
        )
        for attempt in timed[:_LISTED]
    ]
    return "## Slowest tenants\n\n" + table(("tenant", "took", "tries", "path", "status"), rows)


def _backups(result: RunResult) -> str:
    if not result.backups:
        return ""
    total = sum(int(each["bytes"]) for each in result.backups)
    rows = [
        (code(str(each["tenant"])), code(str(each["file"])), str(each["bytes"]), code(str(each["sha256"])[:12]))
        for each in result.backups[:_LISTED]
    ]
    told = table(("tenant", "file", "bytes", "sha256"), rows)
    more = len(result.backups) - _LISTED
    rest = f"\n\nand {more} more: {code(f'orchestrator runs show {result.run.id} --json')}" if more > 0 else ""
    return f"## Backups\n\n{len(result.backups)} files, {total} bytes\n\n{told}{rest}"


def _counted(attempts: Sequence[AttemptRecord]) -> str:
    counts = Counter(attempt.status for attempt in attempts)
    # What went wrong comes first: it is what the ticket is about.
    order = sorted((status for status in TenantStatus if counts[status]), key=lambda status: status in SATISFIED)
    return ", ".join(f"{counts[status]} {status.value}" for status in order) or "no tenants"


def _tenants(count: int) -> str:
    return f"{count} tenant" if count == 1 else f"{count} tenants"


def _moment(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _seconds(began: datetime, ended: datetime | None) -> str:
    return "" if ended is None else f"{(ended - began).total_seconds():.1f} s"
