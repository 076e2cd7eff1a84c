"""Recordings that outlast their run: one of them saves a later run the second tenant to record."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.databases.postgresql.script import Step
from orchestrator.migration.recording import Recorded
from orchestrator.rollout.plan import Kind

#: Counted up whenever the files' form or what is recorded changes.
_FORMAT = 1
#: Files kept: the newest.
_KEPT = 200

log = logging.getLogger("orchestrator.run")


@dataclass(frozen=True, slots=True)
class Transcripts:
    """The recordings of one project.

    They are believed only after a tenant of the new run was sent the same: versions of Alembic and SQLAlchemy, and what
    env.py says, are in no key.
    """

    directory: Path
    #: Of the shared directory's files.
    digest: str

    def load(self, direction: str, kind: Kind) -> tuple[Recorded, ...] | None:
        """What tenants of ``kind`` were sent on an earlier ``direction``; ``None`` if not known."""
        try:
            document = json.loads(self._file(direction, kind).read_bytes())
            return tuple(_recorded(each) for each in document["transactions"])
        except (OSError, ValueError, KeyError, TypeError):
            # Missing, cut off or of another form: the same as never recorded.
            return None

    def save(self, direction: str, kind: Kind, recorded: Sequence[Recorded]) -> None:
        """Keep what tenants of ``kind`` were sent; a directory that cannot be written keeps nothing."""
        file = self._file(direction, kind)
        document = {"command": direction, **kind._asdict(), "transactions": [asdict(each) for each in recorded]}
        new = file.with_suffix(f".{os.getpid()}")
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            new.write_text(json.dumps(document, indent=1), encoding="utf-8")
            new.replace(file)
            self._forget_old()
        except OSError as error:
            log.info("recordings are not kept: %s", error)

    def _file(self, direction: str, kind: Kind) -> Path:
        key = json.dumps([_FORMAT, self.digest, direction, kind])
        return self.directory / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"

    def _forget_old(self) -> None:
        files = sorted(self.directory.glob("*.json"), key=lambda file: file.stat().st_mtime, reverse=True)
        for file in files[_KEPT:]:
            file.unlink(missing_ok=True)


def _recorded(document: dict[str, object]) -> Recorded:
    step = document["step"]
    if not isinstance(step, dict):
        raise TypeError("a step is an object")
    lists = {name: tuple(value) for name, value in step.items() if isinstance(value, list)}
    reason = document["reason"]
    return Recorded(Step(**{**step, **lists}), None if reason is None else str(reason), bool(document["remembers"]))
