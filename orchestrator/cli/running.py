"""Run a use case on an event loop, with the signals that operators send.

asyncio is imported where it is used: ``--help`` imports this module, and would take half as long again.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.cli.settings import Settings

if TYPE_CHECKING:
    from orchestrator.actions.execution import Watch
    from orchestrator.rollout.result import RunResult
    from orchestrator.rollout.stop import Stop

_T = TypeVar("_T")


def read(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a reading use case; an interrupt ends it."""
    import asyncio

    results: list[_T] = []

    async def kept() -> None:
        # Not returned: taking its signal handler back, asyncio.run makes a text of the task with its result in it
        # (CPython's signal._int_to_enum does, of what it cannot name), and ten thousand tenants are a long one.
        results.append(await work)

    asyncio.run(kept())
    return results[0]


def carry_out(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a use case that has something to clear away: SIGTERM, too, lets it do that.

    Raises:
        SystemExit: 143, after SIGTERM.
    """
    import asyncio

    ended: list[int] = []

    async def kept() -> _T:
        task = asyncio.current_task()
        assert task is not None

        def received() -> None:
            ended.append(signal.SIGTERM)
            task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, received)
        return await work

    try:
        return asyncio.run(kept())
    except asyncio.CancelledError:
        if not ended:
            raise
        click.echo("SIGTERM: ended, and cleared away", err=True)
        raise SystemExit(128 + ended[0]) from None


def migrate(settings: Settings, work: Callable[[Watch], Coroutine[Any, Any, RunResult]]) -> int:
    """Run a migrating use case and show its result.

    The first SIGINT or SIGTERM lets running tenants finish, the second cuts them off; either way the journal is
    complete.

    Returns:
        The exit code.
    """
    import asyncio

    from orchestrator.cli.observing import observing
    from orchestrator.cli.render import show_run

    async def run() -> RunResult:
        from orchestrator.actions.execution import Watch
        from orchestrator.rollout.stop import Stop

        stop = Stop()
        with observing(settings) as observer:
            _listen(stop)
            return await work(Watch(observer, stop))

    result = asyncio.run(run())
    show_run(settings, result)
    if result.run.status == "interrupted" and _received:
        return 128 + _received[0]
    return 0 if result.satisfied else 1


#: Signals received, in order; a process runs one migrating command.
_received: list[int] = []


def _listen(stop: Stop) -> None:
    import asyncio

    loop = asyncio.get_running_loop()

    def received(number: signal.Signals) -> None:
        _received.append(number)
        stop.request()
        text = (
            "cutting off what is running"
            if stop.at_once.is_set()
            else "no new tenant starts; waiting for those that run (once more to cut them off)"
        )
        click.echo(f"{number.name}: {text}", err=True)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, received, number)
