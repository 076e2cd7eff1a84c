"""Run a use case on an event loop, with the signals that operators send.

asyncio is imported where it is used: ``--help`` imports this module, and would take half as long again.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.cli.settings import Settings
from orchestrator.cli.stdout import kept_clean

if TYPE_CHECKING:
    from orchestrator.actions.execution import Execution, Watch
    from orchestrator.rollout.result import RunResult
    from orchestrator.rollout.stop import Stop

_T = TypeVar("_T")


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run what a command does; what it has to say is printed afterwards, and is then all that is on stdout."""
    import asyncio

    with kept_clean():
        return asyncio.run(work)


def read(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a reading use case; an interrupt ends it."""
    results: list[_T] = []

    async def kept() -> None:
        # Not returned: taking its signal handler back, asyncio.run makes a text of the task with its result in it
        # (CPython's signal._int_to_enum does, of what it cannot name), and ten thousand tenants are a long one.
        results.append(await work)

    _run(kept())
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
        return _run(kept())
    except asyncio.CancelledError:
        if not ended:
            raise
        click.echo("SIGTERM: ended, and cleared away", err=True)
        raise SystemExit(128 + ended[0]) from None


def migrate(
    settings: Settings, work: Callable[[Watch], Coroutine[Any, Any, RunResult]], execution: Execution | None = None
) -> int:
    """Run a migrating use case and show its result.

    The first SIGINT or SIGTERM lets running tenants finish, the second cuts them off; either way the journal is
    complete. Where workers have the run, it ends the looking on alone.

    Args:
        settings: the common options.
        work: the use case.
        execution: how it is carried out.

    Returns:
        The exit code.
    """
    from orchestrator.cli.observing import observing
    from orchestrator.cli.render import show_run

    async def run() -> RunResult:
        from orchestrator.actions.execution import Watch
        from orchestrator.rollout.stop import Stop

        stop = Stop()
        with observing(settings) as observer:
            listen(stop, leaving=elsewhere)
            return await work(Watch(observer, stop))

    elsewhere = execution is not None and execution.handed_over
    result = _run(run())
    settings.ran = True
    if elsewhere and result.run.finished_at is None:
        return _left(settings, result, asked=execution is not None and execution.detach)
    show_run(settings, result)
    if result.run.status == "interrupted" and _received:
        return 128 + _received[0]
    return 0 if result.satisfied else 1


def follow(settings: Settings, work: Callable[[Watch], Coroutine[Any, Any, RunResult]]) -> tuple[RunResult, int | None]:
    """Look on at a run that others carry out.

    Returns:
        The run, and the exit code where it was left before its end.
    """
    from orchestrator.cli.observing import observing

    async def run() -> RunResult:
        from orchestrator.actions.execution import Watch
        from orchestrator.rollout.stop import Stop

        stop = Stop()
        with observing(settings) as observer:
            listen(stop, leaving=True)
            return await work(Watch(observer, stop))

    result = _run(run())
    return result, 128 + _received[0] if _received and result.run.finished_at is None else None


def _left(settings: Settings, result: RunResult, *, asked: bool) -> int:
    """Tell of a run that goes on without us, or that nobody has any more."""
    from orchestrator.cli.hints import typed
    from orchestrator.cli.render import print_json
    from orchestrator.rollout.next_commands import retry_of

    run = result.run.id
    if settings.json:
        print_json(result)
    elif asked or _received:
        click.echo(typed(f"run {run} is with the workers; look on with: orchestrator runs show {run} --follow"))
    else:
        way = typed(retry_of(result.run))
        click.echo(f"run {run} is no longer with the workers, and has no end; go on with: {way}")
    return 0 if asked else 128 + _received[0] if _received else 1


def serve(stop: Stop) -> list[int]:
    """Have signals end a service: the first lets it finish what it is at. Returns where they are listed."""
    listen(stop)
    return _received


#: Signals received, in order; a process runs one migrating command.
_received: list[int] = []


def listen(stop: Stop, *, leaving: bool = False) -> None:
    """Have SIGINT and SIGTERM request ``stop``, in the running event loop.

    Args:
        stop: of what is under way.
        leaving: whether that is only looked on at.
    """
    import asyncio

    loop = asyncio.get_running_loop()

    def received(number: signal.Signals) -> None:
        _received.append(number)
        stop.request()
        if leaving:
            text = "the run goes on without you; orchestrator runs pause and runs cancel end it"
        elif stop.at_once.is_set():
            text = "cutting off what is running"
        else:
            text = "no new tenant starts; waiting for those that run (once more to cut them off)"
        click.echo(f"{number.name}: {text}", err=True)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, received, number)
