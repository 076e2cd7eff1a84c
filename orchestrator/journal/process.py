"""Which process is this, is that one still there, and which commit is checked out: what a run's actor is made of."""

from __future__ import annotations

import getpass
import os
import re
import subprocess
from pathlib import Path

#: Seconds ``git`` may take to name the commit; a run never waits longer for it.
GIT_TIMEOUT = 2.0

_COMMIT = re.compile(r"[0-9a-f]{40,64}")


def current_user() -> str:
    """The user this process runs as: from the environment, else the password database, else the bare number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container with a user id that has no name
        return str(os.getuid())


def git_commit(root: Path) -> str | None:
    """The commit checked out at ``root``; ``None`` where that is no repository, or git is missing or slow."""
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "--verify", "HEAD"],
            cwd=root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT,
            check=True,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    commit = answer.stdout.strip()
    return commit if _COMMIT.fullmatch(commit) else None


def process_realm() -> str | None:
    """What process numbers are unique within: this boot of this kernel, and this process namespace.

    ``None`` where there is no /proc (only Linux has one). See proc_sys_kernel(5) for boot_id and pid_namespaces(7).
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def process_start(pid: int) -> str | None:
    """When the kernel says ``pid`` began, in clock ticks since the boot; ``None`` when it is gone, or is a zombie.

    Field 22 of /proc/PID/stat, see proc_pid_stat(5). The second field may hold spaces and brackets, so fields are
    counted from behind its last closing bracket.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def process_identity(pid: int) -> str | None:
    """A mark that a later process with the same number does not have; ``None`` where the system offers none."""
    realm, start = process_realm(), process_start(pid)
    return f"{realm}/{start}" if realm and start else None


def process_exists(pid: int) -> bool:
    """Whether some process has this number now."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is there and belongs to somebody else
        return True
    return True
