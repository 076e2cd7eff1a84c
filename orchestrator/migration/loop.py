"""What env.py says about one tenant: the function it hands to ``for_each_tenant``, collected by running env.py once."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from sqlalchemy import Connection

from orchestrator.errors import ConfigurationError, OrchestratorError
from orchestrator.fleet.tenant import Tenant
from orchestrator.history.directory import History
from orchestrator.migration.seam import one_at_a_time

#: Key in ``Config.attributes`` under which ``for_each_tenant`` finds who asks; absent when plain Alembic runs env.py.
COLLECTOR = "orchestrator.collector"

#: Runs in threads of their own, each with its event loop, would take each other's proxies.
_alone = threading.Lock()

Migrate = Callable[[Connection | None, Tenant], None]


@dataclass(frozen=True, slots=True)
class TenantLoop:
    """env.py's part of the work."""

    #: Configures Alembic for one tenant and runs the migrations; the connection is ``None`` when rendering SQL offline.
    migrate: Migrate
    #: The configuration that env.py was run with: what plain Alembic was given (``-x``, ``-c``, ``-n``) is in it.
    config: Config
    #: Name of the version table, in each tenant's scope.
    version_table: str = "alembic_version"


def load_loop(history: History) -> TenantLoop:
    """Run env.py once and take what it passes to ``for_each_tenant``.

    Raises:
        ConfigurationError: env.py cannot be run, or never calls ``for_each_tenant``.
    """
    found: list[TenantLoop] = []
    attributes = history.config.attributes
    attributes[COLLECTOR] = found.append
    try:
        # An env.py without the loop would migrate something of its own here: let it find nothing to do.
        # Another run of this process may be under way: its dispatchers are to be there again afterwards.
        with (
            _alone,
            one_at_a_time(),
            EnvironmentContext(history.config, history.script, fn=lambda *_: [], dont_mutate=True),
        ):
            history.script.run_env()
    except OrchestratorError:
        raise
    except (Exception, SystemExit) as error:
        if not found:
            raise ConfigurationError(
                f"env.py cannot be run: {type(error).__name__}: {error}",
                file=history.script.env_py_location,
                line=_line(error, history.script.env_py_location),
                hint="mend it; it must end in for_each_tenant(migrate), see docs/env.md",
            ) from error
        raise
    finally:
        del attributes[COLLECTOR]
    if len(found) != 1:
        raise ConfigurationError(
            f"env.py calls for_each_tenant {len(found)} times; it must call it once",
            file=history.script.env_py_location,
            hint="put the tenant loop in with: orchestrator init --adopt " + str(history.script.dir),
        )
    return found[0]


def _line(error: BaseException, file: str) -> int | None:
    if isinstance(error, SyntaxError):
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return lines[-1] if lines else None
