"""Ask the engine or the journal until there is an answer: while their server is away, nothing can be decided."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from orchestrator.errors import JournalError

#: Seconds until somebody is asked again that gave no answer.
AGAIN = 0.5

T = TypeVar("T")


async def surely(asked: Callable[[], Awaitable[T]], log: logging.Logger) -> T:
    """What ``asked`` comes to, however often it has to be called.

    Args:
        asked: asks; nothing is lost where it is called twice.
        log: told that there was no answer.
    """
    from dbos import error as errors
    from sqlalchemy.exc import SQLAlchemyError

    while True:
        try:
            return await asked()
        # Not only what the driver says: a pool whose connections are all waiting raises, and so does the engine itself.
        except (JournalError, SQLAlchemyError, errors.DBOSException) as error:
            log.warning("%s; asked again", str(error).partition("\n")[0])
            await asyncio.sleep(AGAIN)
