"""Give a new tenant the rows that it begins with: once, in one transaction with the note of it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from orchestrator.databases.claims import Marker
from orchestrator.databases.failures import Failure, describe
from orchestrator.databases.port.database import Session
from orchestrator.errors import OrchestratorError, UsageError
from orchestrator.fleet.callables import reference
from orchestrator.fleet.onboarding import Seed
from orchestrator.fleet.tenant import Tenant

#: What to do about a seed that raised.
_HINT = "mend the seed, then go on: nothing of it stays, and what was made before it is kept"


class NotSeeded(OrchestratorError):
    """A new tenant did not get its rows; it has none of them.

    Args:
        failure: why.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message, hint=failure.hint)
        self.failure = failure


async def read_seed(seed: Seed) -> str | Callable[..., Any]:
    """What a seed is: the text of its file, or the function.

    Raises:
        OrchestratorError: there is no such file, or no such function.
    """
    if seed.python is not None:
        return await asyncio.to_thread(reference, seed.python)
    assert seed.sql is not None
    try:
        return await asyncio.to_thread(seed.sql.read_text, "utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the seed {seed.sql} cannot be read: {error}", hint="see onboarding: in tenants.yaml"
        ) from error


async def sow(session: Session, tenant: Tenant, name: str, what: str | Callable[..., Any], marker: Marker) -> Marker:
    """Run a seed, and say on the tenant's place that it was: in one transaction, where the dialect has marks in those.

    Args:
        session: on the tenant, with its lock.
        tenant: it is at its target.
        name: the seed's.
        what: as :func:`read_seed` gives it.
        marker: what is written on the tenant's place.

    Returns:
        What is written there now.

    Raises:
        NotSeeded: it raised.
    """
    done = replace(marker, seeded=name, ready=True)
    try:
        async with session.connection.begin():
            await session.mark(replace(marker, sowing=True))
            await _run(session, tenant, what)
            if session.marks_in_transaction:
                await session.mark(done)
        if not session.marks_in_transaction:
            # Cut off before this, it is found to be sown still, and made anew: nobody has it yet.
            await session.mark(done)
    except Exception as error:
        failure = describe(error)
        message = f"seed {name}: {failure.message}"
        raise NotSeeded(replace(failure, type="seed", message=message, hint=_HINT)) from error
    return done


async def _run(session: Session, tenant: Tenant, what: str | Callable[..., Any]) -> None:
    if isinstance(what, str):
        await session.script(what)
    elif inspect.iscoroutinefunction(what):
        await what(session.connection, tenant)
    else:
        function = what

        def call(connection: Connection) -> None:
            function(connection, tenant)

        await session.connection.run_sync(call)
    if not session.connection.in_transaction():
        raise UsageError(
            "it has ended the transaction that it was run in, and what it did up to there stays",
            hint="take commit() and rollback() out of it",
        )
