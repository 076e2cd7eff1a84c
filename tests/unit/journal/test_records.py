"""Records: run ids, actors, and whether a run's process is still there."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.journal import process
from orchestrator.journal.records import Actor, alive, new_run_id
from tests.unit.journal.samples import MOMENT, a_run


def _git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _put_on_path(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str | None) -> None:
    directory.mkdir()
    if script is not None:
        (directory / "git").write_text(script, encoding="utf-8")
        (directory / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(directory))


def _me(**changes: object) -> Actor:
    me = Actor("alice", socket.gethostname(), os.getpid(), process.process_identity(os.getpid()), None)
    return replace(me, **changes)  # type: ignore[arg-type]


def test_a_run_id_tells_its_second_and_can_be_typed() -> None:
    """UTC to the second and five unmistakable letters or digits."""
    before = datetime.now(UTC).replace(microsecond=0)
    run_id = new_run_id()
    moment, suffix = run_id.rsplit("-", 1)
    assert before <= datetime.strptime(moment, "%Y%m%d-%H%M%S").replace(tzinfo=UTC) <= datetime.now(UTC)
    assert re.fullmatch("[2-9bcdfghjkmnpqrstvwxz]{5}", suffix)


def test_ids_of_one_second_differ() -> None:
    """Two machines that start at the same moment do not write into one run."""
    assert len({new_run_id() for _ in range(100)}) == 100


def test_the_actor_is_this_process_at_this_commit(tmp_path: Path) -> None:
    """Also from a directory below the repository's own."""
    _git(tmp_path, "init", "-q")
    _git(tmp_path, "commit", "-q", "--allow-empty", "-m", "first")
    (tmp_path / "deep").mkdir()
    actor = Actor.current(tmp_path / "deep")
    assert (actor.host, actor.pid) == (socket.gethostname(), os.getpid())
    assert actor.user
    assert actor.git_commit == _git(tmp_path, "rev-parse", "HEAD")


def test_no_commit_outside_a_repository_or_before_the_first_one(tmp_path: Path) -> None:
    """git prints the word HEAD then; that is no commit."""
    assert process.git_commit(tmp_path) is None
    _git(tmp_path, "init", "-q")
    assert process.git_commit(tmp_path) is None
    assert process.git_commit(tmp_path / "missing") is None


@pytest.mark.parametrize("script", [None, "#!/bin/sh\nexec /bin/sleep 60\n", "#!/bin/sh\nprintf '\\377'\n"])
def test_a_run_does_not_need_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None) -> None:
    """Missing, hanging or talking nonsense: the run goes on without a commit."""
    _put_on_path(tmp_path / "bin", monkeypatch, script)
    monkeypatch.setattr(process, "GIT_TIMEOUT", 0.1)
    assert process.git_commit(tmp_path) is None


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers run under user ids that no password file knows."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    assert process.current_user() == "4000000"


def test_this_process_is_alive() -> None:
    """However old its heartbeat is: it may be busy."""
    assert alive(a_run(actor=_me(), heartbeat_at=None), MOMENT)


def test_a_killed_process_is_not_alive() -> None:
    """Not even while its parent has not asked for its exit code: a zombie does nothing any more."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    run = a_run(actor=_me(pid=child.pid, process_started=process.process_identity(child.pid)), heartbeat_at=MOMENT)
    assert alive(run, MOMENT)
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not alive(run, MOMENT)
    child.communicate()
    assert not alive(run, MOMENT)


def test_a_reused_process_number_is_not_the_run() -> None:
    """The number is this process's, the start is another's."""
    started = f"{process.process_realm()}/1"
    assert not alive(a_run(actor=_me(process_started=started), heartbeat_at=MOMENT), MOMENT)


@pytest.mark.parametrize(
    "elsewhere",
    [{"host": "another.example.org"}, {"process_started": "another-boot/pid:[1]/1"}, {"process_started": None}],
)
def test_a_process_out_of_sight_is_judged_by_its_heartbeat(elsewhere: dict[str, str | None]) -> None:
    """On another host, in another container of this host, or before a reboot."""
    run = a_run(actor=_me(**elsewhere), heartbeat_at=MOMENT)
    assert alive(run, MOMENT + timedelta(seconds=29))
    assert not alive(run, MOMENT + timedelta(seconds=30))
    assert not alive(replace(run, heartbeat_at=None), MOMENT)


def test_without_proc_the_number_has_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS tells no start; a number that nobody has is certainly gone."""
    monkeypatch.setattr(process, "process_realm", lambda: None)
    child = subprocess.Popen([sys.executable, "-c", ""])
    run = a_run(actor=_me(process_started=None, pid=child.pid))
    assert alive(run, MOMENT)
    child.wait()
    assert not alive(run, MOMENT)


def test_records_are_light() -> None:
    """Neither SQLAlchemy nor Alembic is imported for a value."""
    code = "import sys, orchestrator.journal.records; print({'alembic', 'sqlalchemy'} & set(sys.modules))"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
