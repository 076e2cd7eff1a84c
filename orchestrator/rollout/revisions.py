"""Which files revisions were applied from: noted once a tenant was seen to have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from orchestrator.history.directory import History
from orchestrator.journal.records import AttemptRecord, RevisionRecord
from orchestrator.rollout.watching import Recorder

_Heads = tuple[str, ...]


@dataclass(slots=True)
class Revisions:
    """The revisions of one run."""

    history: History
    recorder: Recorder
    #: What the run begins with: a record for each revision that it may apply, from the file as it is now.
    begun: Sequence[RevisionRecord]
    _not_applied: dict[str, RevisionRecord] = field(default_factory=dict)
    #: From where to where tenants have gone: thousands go the same way.
    _ways: set[tuple[_Heads, _Heads]] = field(default_factory=set)

    def begin(self) -> None:
        """Note what the run begins with; to be on disk before it is begun."""
        for record in self.begun:
            self.recorder.record_revision(record)
            if record.applied_at is None:
                self._not_applied.setdefault(record.revision, record)

    def reached(self, attempt: AttemptRecord) -> None:
        """A tenant was read again at the end of an attempt: what it has now and had not before was applied."""
        before, after = attempt.from_heads or (), attempt.to_heads
        if after is None or (before, after) in self._ways:
            return
        self._ways.add((before, after))
        graph = self.history.graph
        if graph.unknown((*before, *after)):
            return
        for revision in graph.closure(after) - graph.closure(before):
            record = self._not_applied.pop(revision, None)
            if record is not None:
                self.recorder.record_revision(replace(record, applied_at=datetime.now(UTC)))
