"""What a revision does outside any transaction: written down before it is done, because nothing can take it back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

#: Characters of a statement that is told in passing.
_SHORT = 120
#: Statements told by name; of more, the last ones.
_NAMED = 10


@dataclass(frozen=True, slots=True)
class Outside:
    """A revision that has left its transaction, as far as it has come."""

    revision: str
    #: ``upgrade`` or ``downgrade``.
    direction: str
    #: What the version table says as long as the revision is not through. Several, where what it left was not committed
    #: by itself when it began.
    heads: tuple[tuple[str, ...], ...]
    #: The last statements that went through and stay, shortened.
    stayed: tuple[str, ...] = ()
    #: How many went through.
    count: int = 0
    #: The statement that was begun last and has not ended, shortened.
    current: str | None = None
    #: Names of the indexes that were invalid before.
    invalid_before: tuple[str, ...] = ()
    #: The revision is through, and the version table says so.
    done: bool = False

    def begins(self, statement: str) -> Outside:
        """``statement`` is about to be sent."""
        return replace(self, current=shortened(statement))

    def ends(self) -> Outside:
        """The current statement went through."""
        assert self.current is not None
        return replace(self.stays(self.current), current=None)

    def stays(self, *statements: str) -> Outside:
        """``statements`` went through, and will not be rolled back."""
        told = (*self.stayed, *map(shortened, statements))[-_NAMED:]
        return replace(self, stayed=told, count=self.count + len(statements))


#: Told of every step outside a transaction before it is taken, while it is not done; what it raises keeps the first one
#: from being taken.
Keep = Callable[[Outside], Awaitable[None]]


def what_stayed(stayed: tuple[str, ...], count: int) -> str:
    """What had gone through, for people."""
    if not count:
        return "no statement had gone through"
    more = f" ({count} statements; the last ones)" if count > len(stayed) else ""
    return f"this had gone through and stays{more}: {'; '.join(stayed)}"


def ways_on(tenant: str, revision: str, direction: str) -> str:
    """What to type once the tenant was looked at."""
    target = revision if direction == "upgrade" else "REVISION"
    return (
        f"look at what it left outside a transaction; to run {revision} again from its beginning: "
        f"orchestrator resume --retry-partial; or do the rest by hand, then: orchestrator stamp {target} -t {tenant}"
    )


def shortened(statement: str) -> str:
    """``statement`` on one line, and not too long."""
    line = " ".join(statement.split())
    return line if len(line) <= _SHORT else f"{line[: _SHORT - 3]}..."
