"""Many tenants in one process, although ``alembic.op`` and ``alembic.context`` are process globals.

Both modules forward every call to one object, their ``_proxy``. Left alone, two tasks overwrite each other's and
migrate the wrong tenant while reporting success. Here the proxy is a dispatcher that looks the object up in a
ContextVar, so that each task finds its own; SQLAlchemy hands the task's context to the greenlet that migrations run in.

This leans on how Alembic's ``ModuleClsProxy`` is built (1.16 to 1.20 agree). So it is proved at start-up by
:func:`self_check`, and where the proof fails, tenants are migrated one at a time with Alembic's own proxies.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Any

import alembic.context
import alembic.op
from alembic.operations import Operations
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from sqlalchemy.util import await_only, greenlet_spawn

_environment: ContextVar[EnvironmentContext] = ContextVar("orchestrator_environment")
_operations: ContextVar[Operations] = ContextVar("orchestrator_operations")

#: A module attribute that is not there.
_ABSENT: Any = object()


class _Dispatcher:
    """Stands where Alembic keeps its one proxy, and forwards to the current task's."""

    def __init__(self, variable: ContextVar[Any], module: str) -> None:
        self._variable = variable
        self._module = module

    def __getattr__(self, name: str) -> Any:
        current = self._variable.get(None)
        if current is None:
            raise NameError(f"{self._module}.{name}() was called outside of a tenant's migration")
        return getattr(current, name)


class TaskEnvironment(EnvironmentContext):
    """An EnvironmentContext that belongs to the current task instead of to the process.

    Alembic's own ``_install_proxy`` does nothing here: the modules it would write to are registered for the exact class
    EnvironmentContext, not for its subclasses.
    """

    def __enter__(self) -> TaskEnvironment:
        self._token = _environment.set(self)
        return self

    def __exit__(self, *_: Any, **__: Any) -> None:
        _environment.reset(self._token)

    def run_migrations(self, **kw: Any) -> None:
        """Run them with ``alembic.op`` bound to this task."""
        with speaking(Operations(self.get_context())):
            self.get_context().run_migrations(**kw)


@contextmanager
def speaking(operations: Operations) -> Iterator[None]:
    """Let ``alembic.op`` mean ``operations`` in this task."""
    token = _operations.set(operations)
    try:
        yield
    finally:
        _operations.reset(token)


#: Held by the tenant whose turn it is, where tenants go one at a time.
_turn = Lock()
#: Seconds between two looks whether it is free.
_POLL = 0.005


@asynccontextmanager
async def turn() -> AsyncIterator[None]:
    """Wait until no other tenant of the process is migrated, whatever run and event loop it belongs to."""
    while not _turn.acquire(blocking=False):  # noqa: ASYNC110  nothing of asyncio is shared by two loops
        await asyncio.sleep(_POLL)
    try:
        yield
    finally:
        _turn.release()


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let Alembic install its own proxies for a while, and put back what was there before (a surrounding command's)."""
    # These names alone: what env.py registers meanwhile (Operations.register_operation) has to stay.
    names = ("_proxy", "config", "script", "__getattr__")
    before = [
        (module.__dict__, {name: module.__dict__.get(name, _ABSENT) for name in names})
        for module in (alembic.op, alembic.context)
    ]
    try:
        yield
    finally:
        for namespace, saved in before:
            for name, value in saved.items():
                namespace.pop(name, None)
                if value is not _ABSENT:
                    namespace[name] = value


class _Installation:
    """The dispatchers in Alembic's modules, for as long as anybody uses them: two runs of one process may overlap."""

    def __init__(self) -> None:
        self._users = 0
        self._undo = ExitStack()

    def __enter__(self) -> None:
        if self._users == 0:
            self._undo.enter_context(_dispatching())
        self._users += 1

    def __exit__(self, *_: object) -> None:
        self._users -= 1
        if self._users == 0:
            self._undo.close()


_installation = _Installation()


def installed() -> AbstractContextManager[None]:
    """Put the dispatchers in place; the last one to leave puts back what was there before."""
    return _installation


@contextmanager
def _dispatching() -> Iterator[None]:
    def attribute(name: str) -> Any:
        # `from alembic import context; context.config`: an attribute, which no dispatcher sees.
        current = _environment.get(None)
        if name in {"config", "script"} and current is not None:
            return getattr(current, name)
        raise AttributeError(f"module 'alembic.context' has no attribute {name!r}")

    with (
        _replaced(alembic.op.__dict__, "_proxy", _Dispatcher(_operations, "alembic.op")),
        _replaced(alembic.context.__dict__, "_proxy", _Dispatcher(_environment, "alembic.context")),
        _replaced(alembic.context.__dict__, "__getattr__", attribute),
        # A surrounding command's own, which would be found first.
        _replaced(alembic.context.__dict__, "config", _ABSENT),
        _replaced(alembic.context.__dict__, "script", _ABSENT),
    ):
        yield


async def self_check() -> bool:
    """Whether two interleaved tasks each find their own ``alembic.op`` and ``alembic.context``.

    Renders one statement per task into a buffer of its own, switching tasks between every two steps; no database.
    """
    turns = [asyncio.Event(), asyncio.Event()]
    kept_apart: list[bool] = []

    def render(buffer: io.StringIO, number: int) -> None:
        environment = TaskEnvironment(None, None)  # type: ignore[arg-type]
        with environment:
            environment._migration_context = MigrationContext.configure(
                dialect_name="sqlite", opts={"as_sql": True, "output_buffer": buffer, "fn": steps(number)}
            )
            await_only(take_turns(number))
            own = alembic.context.get_context() is environment._migration_context
            environment.run_migrations()
        text = buffer.getvalue()
        kept_apart.append(own and f"SELECT {number}" in text and f"SELECT {1 - number}" not in text)

    def steps(number: int) -> Callable[..., list[Any]]:
        def run(_heads: Any, _context: Any) -> list[Any]:
            await_only(take_turns(number))
            alembic.op.execute(f"SELECT {number}")
            return []

        return run

    async def take_turns(number: int) -> None:
        turns[1 - number].set()
        await turns[number].wait()
        turns[number].clear()

    async def task(number: int) -> None:
        try:
            await greenlet_spawn(render, io.StringIO(), number)
        finally:
            turns[1 - number].set()

    try:
        with installed():
            await asyncio.gather(task(0), task(1))
    except Exception:
        # Whatever a changed Alembic raises here, the answer is the same: not safe.
        return False
    return kept_apart == [True, True]


@contextmanager
def _replaced(namespace: dict[str, Any], name: str, value: Any) -> Iterator[None]:
    before = namespace.get(name, _ABSENT)
    _put(namespace, name, value)
    try:
        yield
    finally:
        _put(namespace, name, before)


def _put(namespace: dict[str, Any], name: str, value: Any) -> None:
    if value is _ABSENT:
        namespace.pop(name, None)
    else:
        namespace[name] = value
