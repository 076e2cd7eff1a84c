"""Long work on a thread of its own, which is waited for even when whoever asked for it is cancelled.

The default executor has as few threads as the machine has processors, and secrets are read on them. And a thread cannot
be cancelled: left alone, it would go on writing after the tenant's lock was given back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

_T = TypeVar("_T")


async def on_own_thread(work: Callable[[], _T], cut: Callable[[], None]) -> _T:
    """Do ``work`` on a thread of its own; the thread has ended when this returns or raises.

    Args:
        work: blocks.
        cut: has ``work`` end soon, from another thread; called when the task is cancelled.
    """
    own = ThreadPoolExecutor(1, "orchestrator-backup")
    working = asyncio.get_running_loop().run_in_executor(own, work)
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        cut()
        while not working.done():
            # Cancelled once more, it is no less at work.
            with suppress(asyncio.CancelledError):
                await asyncio.wait({working})
        if not working.cancelled():
            working.exception()  # looked at, so that nobody is told that it was not
        raise
    finally:
        own.shutdown(wait=working.done())
