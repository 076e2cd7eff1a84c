"""What a migration in a clone, or in a scratch place, is kept from: it would stay when that is gone."""

from __future__ import annotations

from orchestrator.errors import DatabaseError


class Beyond(DatabaseError):
    """A migration was about to do what would not be gone with its place; that was not done.

    Args:
        what: the statement, without its values, and what is wrong with it.
        place: what it is that will be gone, for people.
        hint: what to do.
    """

    def __init__(self, what: str, *, place: str, hint: str | None) -> None:
        super().__init__(
            f"this revision does what would stay when its {place} is gone, and that was not done: {what}", hint=hint
        )
        self.what = what
