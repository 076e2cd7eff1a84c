"""How the benchmarks run commands: real ones, small."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.measuring import RunError, Task, measure, take_turns

_PYTHON = [sys.executable, "-I", "-S", "-c"]


def quiet(text: str) -> None:
    """Say nothing."""


def test_memory_is_the_commands_own(tmp_path: Path) -> None:
    """What this process holds is not taken for the command's, and what the command holds is seen."""
    ballast = bytearray(200 * 2**20)
    ballast[::4096] = b"x" * len(ballast[::4096])
    small = measure([*_PYTHON, "pass"], tmp_path)
    large = measure([*_PYTHON, "x = b'x' * (100 * 2**20)"], tmp_path)
    assert small.peak_kib < 50 * 1024 < 100 * 1024 < large.peak_kib < 200 * 1024


def test_processor_time_is_counted_with_children(tmp_path: Path) -> None:
    """Waiting is wall time and no processor time; what a shell's children do counts."""
    work = "import time\nend = time.process_time() + 0.1\nwhile time.process_time() < end: pass"
    busy = measure(["sh", "-c", '"$1" -I -S -c "$2"; true', "sh", sys.executable, work], tmp_path)
    assert busy.cpu_s >= 0.1
    assert busy.wall_s >= 0.1


def test_a_failure_is_told(tmp_path: Path) -> None:
    """A command that fails or cannot be started is no measurement; the end of its output is shown."""
    with pytest.raises(RunError, match=r"(?s)failed\nthis is why"):
        measure([*_PYTHON, "print('this is why'); raise SystemExit(3)"], tmp_path)
    with pytest.raises(RunError, match="could not be started"):
        measure([tmp_path / "nothing-here"], tmp_path)


def test_turns_are_taken(tmp_path: Path) -> None:
    """Ours, a peer, ours again; reset before each run, check after it; fewer turns for who wants fewer."""
    order: list[str] = []
    command = [*_PYTHON, "pass"]

    def task(name: str) -> Task:
        return Task(
            name,
            command,
            tmp_path,
            1,
            idle=command,
            reset=lambda: order.append(f"reset {name}"),
            check=lambda: order.append(name),
        )

    found = take_turns([task("a"), replace(task("b"), at_most=1)], 2, say=quiet)
    assert order == ["reset a", "a", "reset b", "b", "reset a", "a"]
    assert [(each.name, len(each.samples), len(each.idle)) for each in found] == [("a", 2, 0), ("b", 1, 0)]


def test_idle_runs_that_change_something_are_each_reset(tmp_path: Path) -> None:
    """Runs with nothing to do share one beginning; runs for a few tenants have one each."""
    resets: list[str] = []
    task = Task("a", [*_PYTHON, "pass"], tmp_path, 9, idle=[*_PYTHON, "pass"], reset=lambda: resets.append("a"))
    (found,) = take_turns([task], 0, idle_runs=2, say=quiet)
    assert (len(found.idle), len(resets)) == (2, 1)
    take_turns([replace(task, idle_tenants=3)], 0, idle_runs=2, say=quiet)
    assert len(resets) == 3


def test_who_leaves_work_undone_has_no_result(tmp_path: Path) -> None:
    """A quick run that did not do the work is a failure, and the others go on."""

    def refuse() -> None:
        raise RunError("1 of 3 tenants are not at b0001")

    lazy = Task("lazy", [*_PYTHON, "pass"], tmp_path, 3, check=refuse)
    found = take_turns([lazy, replace(lazy, name="good", check=lambda: None)], 2, say=quiet)
    assert [(len(each.samples), each.problem) for each in found] == [(0, "1 of 3 tenants are not at b0001"), (2, None)]
