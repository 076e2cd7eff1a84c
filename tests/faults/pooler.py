"""A real PgBouncer before a server, for as long as a test needs it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from orchestrator.databases.server_binaries import server_account

#: Seconds that it may take to end.
_PATIENCE = 20.0


@contextmanager
def pgbouncer(server: str, mode: str) -> Iterator[str]:
    """Start one.

    Args:
        server: address of what is behind it.
        mode: its ``pool_mode``.

    Yields:
        The address ``server`` by way of it.
    """
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.fail("these tests need PgBouncer: apt-get install pgbouncer")
    parts = urlsplit(server)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # Not pytest's own directory: PgBouncer refuses root, and nobody else may enter there.
    with tempfile.TemporaryDirectory(prefix="orc-pgbouncer-", dir="/tmp") as directory:
        users, settings = Path(directory, "users.txt"), Path(directory, "pgbouncer.ini")
        users.write_text(f'"{parts.username}" ""\n', encoding="utf-8")
        settings.write_text(
            f"[databases]\n* = host={parts.hostname} port={parts.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {users}\npool_mode = {mode}\n",
            encoding="utf-8",
        )
        account = server_account()
        command = [program, *(["-u", account.pw_name] if account is not None else []), settings]
        if account is not None:
            for path in (directory, users, settings):
                os.chown(path, account.pw_uid, account.pw_gid)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            assert process.stderr is not None
            said = next((line for line in process.stderr if b"process up" in line), None)
            assert said is not None, f"PgBouncer ended with exit code {process.wait(_PATIENCE)}"
            yield parts._replace(netloc=f"{parts.username}@127.0.0.1:{port}").geturl()
        finally:
            process.terminate()
            process.communicate(timeout=_PATIENCE)
