"""Workers of a run: tasks that take one tenant after the other, and are waited for or cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from orchestrator.rollout.stop import Stop


async def until_done(workers: Sequence[asyncio.Task[None]], stop: Stop) -> None:
    """Wait for the workers, or cut them off when the run is to stop at once, or when one of them has raised.

    Raises:
        Exception: what a worker has raised.
    """
    cut = asyncio.create_task(stop.at_once.wait())
    left: set[asyncio.Task[Any]] = set(workers)
    try:
        while left and not cut.done() and not any(_has_failed(worker) for worker in workers):
            await asyncio.wait({*left, cut}, return_when=asyncio.FIRST_COMPLETED)
            left = {worker for worker in left if not worker.done()}
    finally:
        for task in (cut, *left):
            task.cancel()
        ended = await asyncio.gather(*workers, return_exceptions=True)
    for error in ended:
        if isinstance(error, BaseException) and not isinstance(error, asyncio.CancelledError):
            raise error


def _has_failed(worker: asyncio.Task[None]) -> bool:
    return worker.done() and not worker.cancelled() and worker.exception() is not None
