"""Whose a place is: what is written on a schema, database or file that a tenant is in, and what is asked of new ones.

In PostgreSQL it is a line of the schema's or database's comment, so it goes with the place: through renames and
backups, and whatever becomes of the journal. It is changed in the transaction of what it tells of.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from orchestrator.databases.departures import Departure

#: Begins the line.
_PREFIX = "orchestrator "
#: What is written where it is so.
_WRITTEN = ("fresh", "found", "unfurnished", "seeded", "sowing", "ready")


@dataclass(frozen=True, slots=True)
class Marker:
    """What is written on a place."""

    #: What tells the fleet from others.
    fleet: str
    #: The tenant's id.
    tenant: str
    #: It is being onboarded: made for that, and not yet handed over.
    fresh: bool = False
    #: The place was there before, empty.
    found: bool = False
    #: It was taken ready made, and has not got yet what every new place is given first.
    unfurnished: bool = False
    #: Name of the seed that it has been given; ``None`` for none so far.
    seeded: str | None = None
    #: It is being given its seed. To be seen only where marks are in no transaction, of one who was cut off.
    sowing: bool = False
    #: It has all that it is to have, and may be registered: from now on it is never emptied.
    ready: bool = False
    #: It was set aside, under another name; ``None`` for a place that is in use.
    departure: Departure | None = None

    def within(self, comment: str | None) -> str:
        """``comment`` with this in the place of what it said before; other lines of it stay."""
        kept = [line for line in (comment or "").splitlines() if not line.startswith(_PREFIX)]
        said: dict[str, Any] = {"fleet": self.fleet, "tenant": self.tenant}
        said |= {key: value for key in _WRITTEN if (value := getattr(self, key))}
        if self.departure is not None:
            said["departure"] = self.departure.as_json()
        return "\n".join([*kept, _PREFIX + json.dumps(said, ensure_ascii=False)])

    @classmethod
    def read(cls, comment: str | None) -> Marker | None:
        """What ``comment`` says; ``None`` where it says nothing of ours."""
        for line in (comment or "").splitlines():
            if line.startswith(_PREFIX):
                try:
                    said = json.loads(line.removeprefix(_PREFIX))
                    known = {key: said[key] for key in cls.__slots__ if key in said}
                    if "departure" in known:
                        known["departure"] = Departure.from_json(known["departure"])
                    return cls(**known)
                except (ValueError, TypeError):
                    continue
        return None

    def is_of(self, other: Marker) -> bool:
        """Whether both are about one tenant of one fleet."""
        return (self.fleet, self.tenant) == (other.fleet, other.tenant)

    def handed_over(self) -> Marker:
        """What stays once the tenant is onboarded, or is back in its place."""
        return replace(self, fresh=False, found=False, unfurnished=False, sowing=False, ready=False, departure=None)


def settled(comment: str | None) -> str | None:
    """``comment`` as it is to be on a place that is in use again."""
    marker = Marker.read(comment)
    return comment if marker is None or marker.departure is None else marker.handed_over().within(comment)


@dataclass(frozen=True, slots=True)
class Template:
    """A database that new ones are copied from."""

    name: str
    #: What it looks like, as :meth:`Database.fingerprints` has it.
    shape: str
    #: What its version table says, sorted.
    heads: tuple[str, ...]
    version_table: str


@dataclass(frozen=True, slots=True)
class Pool:
    """Copies of one template that are kept on a server for one fleet's new tenants."""

    #: What tells the fleet from others.
    fleet: str
    #: The server's name in the fleet.
    server: str
    template: Template


@dataclass(frozen=True, slots=True)
class Stock:
    """What became of a pool when it was filled."""

    #: Copies that whoever comes next can take.
    ready: int
    #: How many of them were made now.
    made: int = 0
    #: Copies that were taken away: of an older template, altered since, or more than are to be kept.
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Claim:
    """What is asked of a place that a new tenant is to be in."""

    #: What is written on it from now on.
    marker: Marker
    #: Role that owns it; ``None`` for the migrating role.
    owner: str | None = None
    #: Extensions of the database.
    extensions: tuple[str, ...] = ()
    #: SQL, run once, in the transaction that writes the marker.
    statements: tuple[str, ...] = ()
    #: What a new database is to be copied from; ``None`` for an empty one.
    template: Template | None = None
    #: Where copies of the template may be ready; ``None`` for nowhere.
    pool: Pool | None = None


class Holds(StrEnum):
    """What a place holds."""

    #: There is no such place.
    MISSING = "missing"
    #: It is there, with nothing in it.
    EMPTY = "empty"
    #: It is there, with tables or other objects in it.
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Found:
    """One place, as it was found."""

    holds: Holds
    #: What is written on it; ``None`` for nothing of ours.
    marker: Marker | None = None
    #: It was missing, and has been copied from the template.
    copied: bool = False
    #: It was missing, and is one of the copies that were ready.
    taken: bool = False
