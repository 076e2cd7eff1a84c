"""A command whose answer is not read to its end, or cannot be written: the exit code is still its answer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.projects import files, make_project
from tests.workspace import Workspace


@pytest.fixture
def behind(tmp_path: Path) -> Workspace:
    """A project with one SQLite tenant that is not there yet, so that ``check`` says no."""
    (tmp_path / "data").mkdir()
    make_project(tmp_path, {"r1": "pass"}, files(tmp_path / "data", "acme"))
    return Workspace(tmp_path)


def sent(workspace: Workspace, where: str, *args: str) -> tuple[int, str]:
    """Run ``orchestrator ARGS`` in a shell with its stdout going ``where``; its exit code and stderr."""
    command = [sys.executable, "-m", "orchestrator", *args]
    # The reader has ended before anything is written.
    script = {"nobody": 'exec 3> >(exec true); wait $!; exec "$@" >&3', "full": 'exec "$@" >/dev/full'}
    line = script.get(where, 'exec "$@" >&-')
    done = subprocess.run(
        ["bash", "-c", line, "bash", *command],
        check=False, cwd=workspace.path, env=workspace.environment(None), stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("args", "code"), [(("check",), 3), (("status", "--csv"), 0), (("status", "--watch"), 0), (("runs", "list"), 0)]
)
def test_who_reads_no_further_has_the_answer(behind: Workspace, args: tuple[str, ...], code: int) -> None:
    """``orchestrator check | head -1`` is 3 where the gate says no; what tells again and again comes to its end."""
    assert sent(behind, "nobody", *args) == (code, "")


@pytest.mark.parametrize(("where", "why"), [("full", "No space left on device"), ("closed", "it is closed")])
def test_an_answer_that_cannot_be_written_is_an_error(behind: Workspace, where: str, why: str) -> None:
    """Exit code 2 with the reason, in whatever form it was to be told; a run ends as it ended all the same."""
    for args in (("check",), ("status", "--json")):
        code, told = sent(behind, where, *args)
        assert (code, "Traceback" in told) == (2, False), told
        assert told.startswith(f"error: what was to be told could not be written to stdout: {why}"), told
    code, told = sent(behind, where, "upgrade", "--provision")
    assert (code, f"warning: what was to be told could not be written to stdout: {why}" in told) == (0, True), told
