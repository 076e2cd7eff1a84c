"""How a run is told to end early: first to drain, then at once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


@dataclass(slots=True)
class Stop:
    """Shared by a run and whoever may stop it. The first request lets running tenants finish, the second does not."""

    #: No new tenant starts.
    draining: bool = False
    #: Set when running tenants are to be cut off.
    at_once: asyncio.Event = field(default_factory=asyncio.Event)

    def request(self) -> None:
        """Ask once to drain, twice to stop at once."""
        if self.draining:
            self.at_once.set()
        self.draining = True
