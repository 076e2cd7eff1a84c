"""What env.py calls: ``for_each_tenant``. The edge at which plain Alembic enters, as the command line is for people.

Asked by the orchestrator, it only hands over how one tenant is migrated. Run by plain Alembic, it makes the request
that the command and its ``-x`` arguments say, and carries it out by the very same way.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

from alembic import context
from alembic.util import CommandError

from orchestrator.errors import OrchestratorError
from orchestrator.migration.loop import COLLECTOR, Migrate, TenantLoop

__all__ = ["for_each_tenant"]


def for_each_tenant(migrate: Migrate, *, version_table: str = "alembic_version") -> None:
    """Migrate every tenant that the command means. The last line of env.py.

    Args:
        migrate: called with a connection in the tenant's scope and the tenant; configures Alembic and runs the
            migrations. The connection is ``None`` when SQL is rendered offline (``--sql``).
        version_table: name of the version table in each tenant's scope.

    Raises:
        CommandError: plain Alembic runs env.py and something is wrong; Alembic prints it and leaves with an error.
    """
    loop = TenantLoop(migrate, context.config, version_table)
    collect = context.config.attributes.get(COLLECTOR)
    if collect is not None:
        collect(loop)
        return
    from orchestrator.environment.plain import carry_out

    try:
        _run(carry_out(loop))
    except OrchestratorError as error:
        raise CommandError(f"{error.message}\n  hint: {error.hint}" if error.hint else error.message) from error


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end; in a thread of its own where the caller is already inside an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        inside_a_loop = False
    else:
        inside_a_loop = True
    if not inside_a_loop:
        asyncio.run(work)
        return
    failed: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(work)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="orchestrator for_each_tenant")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
