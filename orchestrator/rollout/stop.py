"""How a run is told to end early: first to drain, then at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from orchestrator.statuses import RunStatus

_T = TypeVar("_T")


class CutOff(Exception):
    """What was waited for did not end before the run was to stop at once."""


@dataclass(slots=True, eq=False)
class Stop:
    """Shared by a run and whoever may stop it. The first signal lets running tenants finish, the second does not."""

    #: Set when running tenants are to be cut off.
    at_once: asyncio.Event = field(default_factory=asyncio.Event)
    #: What the run is to be called that was ended early; ``None`` while nobody asked for it.
    asked: RunStatus | None = None
    _asked: asyncio.Event = field(default_factory=asyncio.Event)
    _signalled: bool = False

    @property
    def draining(self) -> bool:
        """No new tenant starts."""
        return self.asked is not None

    def request(self, status: RunStatus = RunStatus.INTERRUPTED) -> None:
        """Ask to drain; to be interrupted twice, to stop at once.

        Args:
            status: what the run is called then: ``interrupted``, ``paused`` or ``cancelled``, which is final.
        """
        if status is RunStatus.INTERRUPTED:
            if self._signalled:
                self.at_once.set()
            self._signalled = True
        if self.asked is not RunStatus.CANCELLED:
            self.asked = status
        self._asked.set()

    async def within(self, seconds: float) -> bool:
        """Wait until somebody asks, ``seconds`` at most; says whether somebody did."""
        try:
            async with asyncio.timeout(seconds):
                await self._asked.wait()
        except TimeoutError:
            pass
        return self.draining

    async def unless_cut(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do ``work`` to its end.

        Raises:
            CutOff: the run is to stop at once; ``work`` was cancelled.
        """
        working, cut = asyncio.ensure_future(work), asyncio.ensure_future(self.at_once.wait())
        try:
            await asyncio.wait({working, cut}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise CutOff
            return working.result()
        finally:
            for task in (working, cut):
                task.cancel()
            await asyncio.gather(working, cut, return_exceptions=True)
