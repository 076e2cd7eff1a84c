"""Who is cloned, of what clones are made, and what is done with them. Imports nothing large."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clones:
    """How a rehearsal is carried out."""

    #: Who is cloned of those selected: ``largest``, ``oldest``, ``drifted``, ``all``; ``None`` for all that are named
    #: one by one, else for one of each.
    pick: tuple[str, ...] | None = None
    #: Definitions only: no row is copied.
    schema_only: bool = False
    #: With ``schema_only``, make up so many rows for each table, at most; ``None`` for none.
    rows: int | None = None
    #: Copy a database's files where nobody is connected: quicker, and nobody can connect meanwhile.
    template: bool = False
    #: Go back, and up again.
    down: bool = True
    #: Run revisions that work outside their connection, as far as their text tells.
    allow_outside: bool = False
