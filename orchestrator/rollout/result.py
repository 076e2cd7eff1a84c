"""What a run did, as the object that the Python API returns and ``--json`` prints."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.journal.records import AttemptRecord, RunRecord
from orchestrator.rollout.next_commands import again_of, hint_of, retry_for
from orchestrator.rollout.waiting import Waiting
from orchestrator.rollout.waves import WaveRecord, WaveState
from orchestrator.statuses import FAILURES, SATISFIED, RunStatus, TenantStatus

#: Names, numbers and strings in a statement differ between tenants where the cause is the same.
_LITERALS = re.compile(r"'(?:[^']|'')*'|\b\d+\b|\"[^\"]*\"\.")


@dataclass(frozen=True, slots=True)
class Cause:
    """Tenants that failed for the same reason: same revision, same SQLSTATE, same statement but for literals."""

    fingerprint: str
    #: How many they are.
    count: int
    message: str
    #: One of them.
    example: str
    #: What to type to go on.
    retry: str
    #: What to do about it first, where that is known.
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class RunResult:
    """One run, whole: also what the journal gives back for an old one."""

    run: RunRecord
    tenants: tuple[AttemptRecord, ...]
    #: Waves of tenants.yaml whose tenants are through, in order.
    waves: tuple[WaveRecord, ...] = ()
    #: Backups that it made: ``tenant``, ``file``, ``bytes``, ``sha256`` and ``heads`` of each.
    backups: tuple[Mapping[str, Any], ...] = ()
    #: Of a rehearsal, what it found: the document of ``rehearse --json``.
    rehearsal: Mapping[str, Any] | None = None
    #: What a rehearsal had said of it beforehand, and what it was; see :func:`~orchestrator.rollout.foretold.foretold`.
    rehearsed: Mapping[str, Any] | None = None
    #: What it waits for that was given to workers, and that none of them has begun.
    waits: Waiting | None = None

    @property
    def status(self) -> RunStatus:
        """Where the run stands."""
        return self.run.status

    @property
    def summary(self) -> dict[str, int]:
        """How many tenants ended how; only statuses that occur."""
        counts = Counter(attempt.status for attempt in self.tenants)
        return {status.value: counts[status] for status in TenantStatus if counts[status]}

    @property
    def satisfied(self) -> bool:
        """All that was asked for is so."""
        through = all(wave.state is WaveState.DONE for wave in self.waves)
        return through and all(attempt.status in SATISFIED for attempt in self.tenants)

    @property
    def held_up(self) -> WaveRecord | None:
        """The wave that keeps later ones from beginning."""
        return next((wave for wave in reversed(self.waves) if wave.state is not WaveState.DONE), None)

    @property
    def failed(self) -> tuple[AttemptRecord, ...]:
        """Tenants that used up the failure budget."""
        return tuple(attempt for attempt in self.tenants if attempt.status in FAILURES)

    @property
    def causes(self) -> tuple[Cause, ...]:
        """Failures and blocks grouped by cause, the most frequent first."""
        groups: dict[str, list[AttemptRecord]] = {}
        for attempt in self.tenants:
            if attempt.error is not None and attempt.status not in SATISFIED:
                groups.setdefault(fingerprint(attempt.error, attempt.tenant), []).append(attempt)
        return tuple(
            _cause(key, group, self.run) for key, group in sorted(groups.items(), key=lambda item: -len(item[1]))
        )

    @property
    def retry(self) -> str:
        """What to type to go on with what is left.

        Partial tenants are named by it when they alone are left: while there is more to do, nobody is to run their
        revisions again by the way.
        """
        if any(wave.rolled_back is not None for wave in self.waves):
            return again_of(self.run)
        left = [attempt for attempt in self.tenants if attempt.status not in SATISFIED]
        waits = self.held_up is not None and self.held_up.state is WaveState.WAITING
        command = retry_for(self.run, left, partial=bool(left) and all(map(_is_left_alone, left)))
        return command + (" --approve" if waits else "")

    @property
    def way_on(self) -> str | None:
        """What can be done for what is left, in a line for people; ``None`` while somebody is at it."""
        run = self.run
        if run.finished_at is None and run.status is not RunStatus.INTERRUPTED:
            return None if run.executor is None else f"look on with: orchestrator runs show {run.id} --follow"
        words = "begin a new one" if run.status is RunStatus.CANCELLED else "go on with"
        return f"{words}: {self.retry}"

    def as_json(self) -> dict[str, Any]:
        """The document that ``upgrade --json`` and ``runs show --json`` print (see docs/cli.md)."""
        run = self.run
        return {
            "run": run.id,
            "command": run.command,
            "target": list(run.target),
            "status": run.status.value,
            "started_at": _moment(run.started_at),
            "finished_at": _moment(run.finished_at),
            "actor": f"{run.actor.user}@{run.actor.host}",
            "git_commit": run.actor.git_commit,
            "directory_digest": run.directory_digest,
            "tenants": [tenant_document(attempt) for attempt in self.tenants],
            "causes": [
                {
                    "fingerprint": cause.fingerprint,
                    "count": cause.count,
                    "message": cause.message,
                    "example": cause.example,
                    "retry": cause.retry,
                }
                for cause in self.causes
            ],
            "waves": [wave.as_json() for wave in self.waves],
            "summary": self.summary,
            "backups": [dict(each) for each in self.backups],
            **({} if self.rehearsal is None else {"rehearsal": dict(self.rehearsal)}),
            **({} if self.rehearsed is None else {"rehearsed": dict(self.rehearsed)}),
            **({} if self.waits is None else {"waits": self.waits.as_json()}),
        }


def _cause(key: str, group: Sequence[AttemptRecord], run: RunRecord) -> Cause:
    error = group[0].error or {}
    retry = retry_for(run, group, partial=any(map(_is_left_alone, group)))
    return Cause(key, len(group), str(error.get("message")), group[0].tenant, retry, hint_of(run, error))


def _is_left_alone(attempt: AttemptRecord) -> bool:
    """Whether a resume leaves the tenant alone unless it is told otherwise.

    Not one whose revision is through, and has left an invalid index: once that is mended, any command goes on.
    """
    invalid = attempt.error is not None and attempt.error.get("type") == "invalid_index"
    return attempt.status is TenantStatus.PARTIAL and not invalid


def fingerprint(error: Mapping[str, Any], tenant: str) -> str:
    """What failures of one cause have in common, as 12 hex digits.

    Args:
        error: as in an attempt's record.
        tenant: the id of whom it befell: messages often name it.
    """
    told = str(error.get("statement") or ("" if error.get("sqlstate") else error.get("message")))
    normal = _LITERALS.sub("?", re.sub(rf"(?<!\w){re.escape(tenant)}(?!\w)", "?", told))
    text = "\0".join(str(part) for part in (error.get("revision"), error.get("type"), error.get("sqlstate"), normal))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def run_status(
    attempts: Sequence[AttemptRecord], asked: RunStatus | None, waves: Sequence[WaveRecord] = ()
) -> RunStatus:
    """How a run ended, from how its tenants and waves did, and from what it was asked to end as."""
    if asked is not None:
        return asked
    fine = all(attempt.status in SATISFIED for attempt in attempts)
    failed = any(wave.state is WaveState.FAILED for wave in waves)
    return RunStatus.SUCCEEDED if fine and not failed else RunStatus.FAILED


def tenant_document(attempt: AttemptRecord) -> dict[str, Any]:
    """A tenant in a run's document."""
    return {
        "tenant": attempt.tenant,
        "status": attempt.status.value,
        "from": _heads(attempt.from_heads),
        "to": _heads(attempt.to_heads),
        "wave": attempt.wave,
        "attempts": attempt.attempts,
        "duration_ms": None if attempt.duration_ms is None else round(attempt.duration_ms, 1),
        "path": attempt.path,
        "error": dict(attempt.error) if attempt.error is not None else None,
    }


def _heads(heads: tuple[str, ...] | None) -> list[str] | None:
    return None if heads is None else list(heads)


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
