"""What has been recorded and is not in the database yet."""

from __future__ import annotations

import dataclasses
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from orchestrator.journal.encoding import moment, to_json
from orchestrator.journal.records import AttemptRecord, EventRecord, RevisionRecord, StepRecord
from orchestrator.journal.rows import attempt_row, event_row, revision_row, step_row
from orchestrator.statuses import RunStatus


@dataclass(slots=True)
class Pending:
    """Records waiting to be written, each only in its last form."""

    #: By run and tenant.
    attempts: dict[tuple[str, str], AttemptRecord] = field(default_factory=dict)
    #: By their number among all that this writer has recorded.
    events: dict[int, EventRecord] = field(default_factory=dict)
    #: By tenant.
    steps: dict[str, StepRecord] = field(default_factory=dict)
    #: By revision and checksum.
    revisions: dict[tuple[str, str], RevisionRecord] = field(default_factory=dict)
    #: Somebody waits for this to be safe from a power failure, too.
    durable: bool = False
    #: By run: how and when it ended.
    finishes: dict[str, tuple[RunStatus, datetime]] = field(default_factory=dict)
    #: Runs whose process is to be known as alive at this moment.
    heartbeats: dict[str, datetime] = field(default_factory=dict)
    #: Sets the events of this open journal apart from those of all others.
    writer: str = field(default_factory=lambda: secrets.token_hex(6))

    def __bool__(self) -> bool:
        return self.has_news or bool(self.heartbeats)

    @property
    def has_news(self) -> bool:
        """Whether there is anything in it that would be missed."""
        return bool(self.attempts or self.events or self.steps or self.revisions or self.finishes)

    def take(self) -> Pending:
        """All of it; nothing is left here."""
        taken = dataclasses.replace(self)
        self.attempts, self.events, self.finishes, self.heartbeats = {}, {}, {}, {}
        self.steps, self.revisions, self.durable = {}, {}, False
        return taken

    def put_back(self, taken: Pending) -> None:
        """What could not be written waits again, unless something newer has come in its place."""
        self.attempts = taken.attempts | self.attempts
        self.events = taken.events | self.events
        self.steps = taken.steps | self.steps
        self.revisions = taken.revisions | self.revisions
        self.durable = taken.durable or self.durable
        self.finishes = taken.finishes | self.finishes
        self.heartbeats = taken.heartbeats | self.heartbeats

    def save(self, directory: Path) -> list[Path]:
        """Append it as JSON lines to ``unsaved-RUN.jsonl``, one file per run.

        Args:
            directory: where; where nothing can be written there, the system's directory for temporary files.

        Returns:
            The files. Empty when neither directory can be written.
        """
        lines: dict[str, list[str]] = {}
        for attempt in self.attempts.values():
            lines.setdefault(attempt.run, []).append(_line("attempt", attempt_row(attempt)))
        for number, event in self.events.items():
            lines.setdefault(event.run, []).append(_line("event", event_row(event, self.writer, number)))
        for step in self.steps.values():
            lines.setdefault(step.run, []).append(_line("step", step_row(step)))
        for revision in self.revisions.values():
            lines.setdefault(revision.first_run, []).append(_line("revision", revision_row(revision)))
        for run, (status, finished_at) in self.finishes.items():
            lines.setdefault(run, []).append(_line("finish", {"status": status, "finished_at": moment(finished_at)}))
        written = (_append(directory, run, text) for run, text in lines.items())
        return [path for path in written if path is not None]


def _line(kind: str, values: Mapping[str, Any]) -> str:
    return to_json({"record": kind, **values}) + "\n"


def _append(directory: Path, run: str, lines: list[str]) -> Path | None:
    name = f"unsaved-{run}.jsonl"
    for path in (directory / name, Path(tempfile.gettempdir()) / f"orchestrator-{secrets.token_hex(4)}-{name}"):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.writelines(lines)
        except OSError:
            continue
        return path
    return None
