"""The command line on a terminal of its own, with somebody there to be asked."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

from tests.command_line import Project

#: Seconds a command in a terminal may take.
PATIENCE = 60


def in_terminal(
    project: Project,
    *args: str,
    answer: str | None = None,
    env: Mapping[str, str] | None = None,
    asked: Callable[[], None] = lambda: None,
) -> tuple[int, str]:
    """Run ``orchestrator ARGS`` on a terminal of its own, typing ``answer`` when asked, once ``asked`` is done.

    Returns:
        The exit code and everything that the terminal got.
    """
    ours, theirs = pty.openpty()
    variables = {"TERM": "xterm", "COLUMNS": "120", **project.workspace.environment(env)}
    # As on an operator's machine: neither a build server nor somebody who wants no colours.
    kept = {name: value for name, value in variables.items() if name not in {"CI", "NO_COLOR"} or name in (env or {})}
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", *args],
        cwd=project.workspace.path, env=kept, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    screen = ""
    deadline = time.monotonic() + PATIENCE
    try:
        while chunk := _read(ours, deadline - time.monotonic()):
            screen += chunk
            if answer is not None and "[y/N]" in screen:
                asked()
                os.write(ours, f"{answer}\n".encode())
                answer = None
        return process.wait(PATIENCE), screen.replace("\r\n", "\n")
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _read(terminal: int, seconds: float) -> str:
    """What comes next; nothing at the end."""
    assert select.select([terminal], [], [], max(seconds, 0))[0], "the command does not end"
    try:
        return os.read(terminal, 65536).decode()
    except OSError:  # Linux's way of saying that nobody holds the other end any more
        return ""
