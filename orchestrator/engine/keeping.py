"""What the engine keeps of a piece of work that is over: what it came to, or broke of; without anybody's secrets."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Awaitable
from typing import Any

from orchestrator.fleet.secrets import mask

log = logging.getLogger("orchestrator.worker")


class Broken(Exception):
    """A piece of work has raised what nobody had foreseen: its class and message, masked."""


async def kept(work: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    """What ``work`` comes to, masked.

    Raises:
        Broken: it raised; the whole of it was logged.
    """
    from dbos import error as errors

    try:
        done: dict[str, Any] = masked(await work)
    except errors.DBOSException:
        raise
    except Exception as error:
        log.error("%s", mask(traceback.format_exc().rstrip()))  # noqa: TRY400  that one would not mask it
        raise Broken(mask(f"{type(error).__name__}: {error}")) from None
    return done


def masked(value: Any) -> Any:
    """``value``, of which all text is masked; of what JSON can hold."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {name: masked(each) for name, each in value.items()}
    if isinstance(value, list):
        return [masked(each) for each in value]
    return value
