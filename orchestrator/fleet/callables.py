"""Calls the user's own functions that name tenants: ``module:function`` and entry points."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import sys
import threading
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from importlib.metadata import entry_points
from typing import Any, cast

from orchestrator.errors import ConfigurationError
from orchestrator.fleet.masking import mask
from orchestrator.fleet.nearest import did_you_mean
from orchestrator.fleet.sources import ENTRY_POINTS, EntryPointSource, PythonSource, Row


async def call(source: PythonSource | EntryPointSource) -> list[Row]:
    """Call the source's function and return its rows; a sync one runs in a thread, so the event loop goes on.

    Raises:
        ConfigurationError: it cannot be found or imported, it raises, or it returns no rows.
    """
    function = await asyncio.to_thread(_found, source)
    try:
        result = await asyncio.to_thread(_listed, function)
        if isinstance(result, Awaitable):
            result = await result
        if isinstance(result, AsyncIterable):
            result = [row async for row in result]
        elif _is_rows(result):
            result = list(result)
    except Exception as error:
        raise _failed(source, "raised", error) from error
    if not isinstance(result, list):
        message = f"{source} returned {type(result).__name__}, not rows"
        raise ConfigurationError(message, hint='return a list of rows like {"id": "acme"}')
    return result


async def called(source: PythonSource, argument: Any) -> Any:
    """Call a function of the user's with one argument; a sync one runs in a thread, so the event loop goes on.

    Raises:
        ConfigurationError: it cannot be found or imported, or it raises.
    """
    function: Callable[..., Any] = await asyncio.to_thread(_found, source)
    try:
        result = await _in_thread(function, argument)
        return await result if isinstance(result, Awaitable) else result
    except (Exception, SystemExit) as error:
        raise _failed(source, "raised", error) from error


async def _in_thread(function: Callable[..., Any], argument: Any) -> Any:
    """Call it in a thread that keeps no process from ending: nothing can stop a function that hangs."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    results: list[Any] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            results.append(function(argument))
        except BaseException as error:
            errors.append(error)
        with suppress(RuntimeError):  # nobody waits any more
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=call, daemon=True).start()
    await done.wait()
    if errors:
        raise errors[0]
    return results[0]


def reference(source: PythonSource) -> Callable[..., Any]:
    """The function that ``source`` names; importing its module may take its time.

    Raises:
        ConfigurationError: it cannot be found or imported.
    """
    return _found(source)


def _found(source: PythonSource | EntryPointSource) -> Callable[[], Any]:
    try:
        found = _entry_point(source) if isinstance(source, EntryPointSource) else _reference(source)
    except ConfigurationError:
        raise
    except (Exception, SystemExit) as error:  # a module may do anything while it is imported
        raise _failed(source, "cannot be imported:", error) from error
    if not callable(found):
        raise ConfigurationError(f"{source} is not a callable but {type(found).__name__}", hint="name a function")
    return cast("Callable[[], Any]", found)


def _reference(source: PythonSource) -> Any:
    module_name, _, names = source.callable.partition(":")
    # Like Alembic's prepend_sys_path: the project's modules lie beside tenants.yaml. It stays, functions import late.
    if source.root is not None and str(source.root) not in sys.path:
        sys.path.insert(0, str(source.root))
    found: Any = importlib.import_module(module_name)
    for name in names.split("."):
        if not hasattr(found, name):
            near = did_you_mean(name, [known for known in dir(found) if not known.startswith("_")])
            hint = f"did you mean `{near}`?" if near else f"define it in {module_name}"
            raise ConfigurationError(f"{source}: {module_name} has no `{name}`", hint=hint)
        found = getattr(found, name)
    return found


def _entry_point(source: EntryPointSource) -> Any:
    known = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if source.name not in known:
        near = did_you_mean(source.name, known)
        hint = f"did you mean `{near}`?" if near else f"install the package that has it under {ENTRY_POINTS}"
        raise ConfigurationError(f"{source} is not installed", hint=hint)
    return partial(known[source.name].load(), **source.options)


def _listed(function: Callable[[], Any]) -> Any:
    """Call, and run through a generator too, here in the thread."""
    result = function()
    return list(result) if inspect.isgenerator(result) else result


def _is_rows(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)


def _failed(source: PythonSource | EntryPointSource, how: str, error: BaseException) -> ConfigurationError:
    return ConfigurationError(
        mask(f"{source} {how} {type(error).__name__}: {error}"), hint="run it by hand: python -c 'import ...'"
    )
