"""How a run is told to end early: first to drain, then at once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from orchestrator.statuses import RunStatus


@dataclass(slots=True)
class Stop:
    """Shared by a run and whoever may stop it. The first request lets running tenants finish, the second does not."""

    #: Set when running tenants are to be cut off.
    at_once: asyncio.Event = field(default_factory=asyncio.Event)
    #: What the run is to be called that was ended early; ``None`` while nobody asked for it.
    asked: RunStatus | None = None
    _asked: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def draining(self) -> bool:
        """No new tenant starts."""
        return self.asked is not None

    def request(self, status: RunStatus = RunStatus.INTERRUPTED) -> None:
        """Ask once to drain, twice to stop at once.

        Args:
            status: what the run is called then: ``interrupted``, ``paused`` or ``cancelled``.
        """
        if self.draining:
            self.at_once.set()
        self.asked = self.asked or status
        self._asked.set()

    async def within(self, seconds: float) -> bool:
        """Wait until somebody asks, ``seconds`` at most; says whether somebody did."""
        try:
            async with asyncio.timeout(seconds):
                await self._asked.wait()
        except TimeoutError:
            pass
        return self.draining
