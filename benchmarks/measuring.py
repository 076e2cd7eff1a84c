"""Run commands and measure them, taking turns, so that what else the machine does meets all of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.verdicts import Sample, Subject

_LAUNCHER = Path(__file__).with_name("launch.py")
#: Seconds that one run may take: the slowest peer needs minutes for thousands of tenants.
_TIMEOUT = 3600.0
#: Lines of a failed command's output that are shown.
_TAIL = 12


#: A program and its arguments.
Command = Sequence[str | Path]


class RunError(Exception):
    """A measured command failed, or did not do the work."""


def nothing() -> None:
    """Nothing to prepare, nothing to check."""


@dataclass(frozen=True, slots=True)
class Task:
    """One command to measure."""

    #: Who does the work: ``orchestrator``, ``psql``, ...
    name: str
    command: Command
    #: Where it is run.
    directory: Path
    #: How many tenants it is for.
    tenants: int
    #: The same program with little or nothing to do: what its start-up takes.
    idle: Command | None = None
    #: How many tenants that is for.
    idle_tenants: int = 0
    #: Brings the databases to the state that every run starts from. Not timed.
    reset: Callable[[], None] = nothing
    #: Removes what a run left on disk. Not timed; also done before an idle run.
    tidy: Callable[[], None] = nothing
    #: Raises :class:`RunError` where the work was not done. Not timed.
    check: Callable[[], None] = nothing
    #: Most repetitions, for what is slow and steady.
    at_most: int | None = None
    #: Variables beside the harness's own.
    environment: Mapping[str, str] = field(default_factory=dict)


def take_turns(
    tasks: Sequence[Task], repetitions: int, idle_runs: int = 0, say: Callable[[str], None] = print
) -> list[Subject]:
    """Measure ``tasks``, one run of each after the other, ``repetitions`` times.

    Args:
        tasks: who is compared.
        repetitions: timed runs of each, unless a task wants fewer.
        idle_runs: runs of each with little or nothing to do, before the others.
        say: narrates.

    Returns:
        What was found, in the order of ``tasks``. One that fails is not run again, and says why.
    """
    samples: dict[str, list[Sample]] = {task.name: [] for task in tasks}
    idle: dict[str, list[Sample]] = {task.name: [] for task in tasks}
    problems: dict[str, str] = {}
    for turn in range(-1, repetitions):
        for task in tasks:
            if task.name in problems or turn >= (task.at_most or repetitions):
                continue
            try:
                if turn < 0:
                    idle[task.name] = _run_idle(task, idle_runs)
                    continue
                samples[task.name].append(_run(task))
            except RunError as error:
                problems[task.name] = str(error)
                say(f"  {task.name} FAILED: {error}")
                continue
            say(f"  {task.name}: {samples[task.name][-1].wall_s:.2f} s for {task.tenants}")
    return [
        Subject(
            task.name,
            task.tenants,
            () if task.name in problems else tuple(samples[task.name]),
            tuple(idle[task.name]),
            task.idle_tenants,
            problems.get(task.name),
        )
        for task in tasks
    ]


def _run(task: Task) -> Sample:
    task.tidy()
    task.reset()
    sample = measure(task.command, task.directory, task.environment)
    task.check()
    return sample


def _run_idle(task: Task, runs: int) -> list[Sample]:
    if task.idle is None or not runs:
        return []
    found = []
    for number in range(runs):
        if not number or task.idle_tenants:
            task.reset()
        task.tidy()
        found.append(measure(task.idle, task.directory, task.environment))
    return found


def measure(command: Command, directory: Path, environment: Mapping[str, str] | None = None) -> Sample:
    """Run ``command`` to its end.

    Args:
        command: a program and its arguments.
        directory: where it runs.
        environment: variables beside ours.

    Raises:
        RunError: it failed or took more than an hour; the end of its output is in the message.
    """
    with tempfile.TemporaryDirectory(prefix="orc-bench-run-") as scratch:
        result, output = Path(scratch, "result.json"), Path(scratch, "output")
        launch = [sys.executable, "-I", "-S", _LAUNCHER, result, *command]
        with output.open("wb") as sink:
            process = subprocess.Popen(
                [str(part) for part in launch],
                cwd=directory,
                env={**plain_environment(), **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                # A group of its own, so that all of it can be ended together.
                start_new_session=True,
            )
            try:
                process.wait(_TIMEOUT)
            except BaseException as error:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                if isinstance(error, subprocess.TimeoutExpired):
                    raise RunError(f"not done after {_TIMEOUT:.0f} s") from None
                raise
        return _sample(result, output)


def plain_environment() -> dict[str, str]:
    """Ours without what would steer libpq, the orchestrator, Django or Python."""
    steering = ("PG", "ORCHESTRATOR_", "DJANGO_", "PYTHON", "ALEMBIC_")
    return {name: value for name, value in os.environ.items() if not name.startswith(steering)}


def _sample(result: Path, output: Path) -> Sample:
    tail = "\n".join(output.read_text(errors="replace").splitlines()[-_TAIL:])
    try:
        document = json.loads(result.read_text())
    except FileNotFoundError:
        raise RunError(f"could not be started\n{tail}") from None
    if document.pop("exit_code") != 0:
        raise RunError(f"failed\n{tail}")
    return Sample(**document)
