"""What becomes of the place of a tenant that is taken out of the fleet: what is written on it, and what is found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import Any


class Stage(StrEnum):
    """How far the taking out has come."""

    #: It is set aside; the fleet may still list the tenant.
    LEAVING = "leaving"
    #: The fleet does not list the tenant any more.
    ASIDE = "aside"
    #: It is being dropped, and some of it may be gone: there is no way back.
    DROPPING = "dropping"


@dataclass(frozen=True, slots=True)
class Departure:
    """What is written on a place that was set aside, beside whose it is."""

    #: Name of the schema or database that it was, or the file's path.
    was: str
    #: When it was set aside, RFC 3339.
    at: str
    stage: Stage = Stage.LEAVING
    #: From when on it may be dropped, RFC 3339; ``None`` for not before somebody says so.
    until: str | None = None
    #: The tenant's keys as in tenants.yaml, secrets masked.
    entry: Mapping[str, Any] = field(default_factory=dict)
    #: ``file`` and ``sha256`` of its last backup; ``None`` for none.
    archive: Mapping[str, str] | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain JSON, without what there is not."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        return {key: dict(value) if isinstance(value, Mapping) else value for key, value in found.items() if value}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Departure:
        """What :meth:`as_json` gave; keys of newer versions are left out.

        Raises:
            ValueError: it is not that.
            TypeError: something is missing.
        """
        known = {each.name: said[each.name] for each in fields(cls) if each.name in said}
        return cls(**{**known, "stage": Stage(known.get("stage", Stage.LEAVING))})

    def is_due(self, now: datetime) -> bool:
        """Whether it may be dropped: its day has come, or somebody has begun to drop it."""
        if self.stage is Stage.DROPPING:
            return True
        return self.stage is Stage.ASIDE and self.until is not None and datetime.fromisoformat(self.until) <= now
