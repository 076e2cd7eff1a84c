"""Change a file that others read and change, too: whole or not at all, and one after the other."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator.errors import ConfigurationError

#: Seconds to wait for others that change the file. One change takes a part of a second.
_PATIENCE = 60.0
_POLL = 0.01
#: Times that a file is read again because somebody who knows no lock (an editor) has saved it meanwhile.
_TRIES = 10


def change(path: Path, edit: Callable[[bytes], bytes]) -> bool:
    """Replace what ``path`` holds by what ``edit`` makes of it.

    Whoever reads the file finds what it held before or all of the new content, also after a crash. Its mode, owner and
    extended attributes stay; of a link, the file that it leads to is replaced. Calls for one file wait for each other;
    what an editor has saved meanwhile is read, and edited anew. Blocks: call it in a thread from async code.

    Args:
        path: the file, which has to be there.
        edit: makes the new content of the old one; may be called several times.

    Returns:
        Whether it has changed.

    Raises:
        ConfigurationError: it cannot be read or written; it is as it was.
    """
    file = str(path)
    try:
        target = path.resolve(strict=True)
        with _locked(target, file):
            for _ in range(_TRIES):
                old = target.read_bytes()
                new = edit(old)
                if new == old:
                    return False
                _require_writable(target)
                if _replaced(target, old, new):
                    return True
    except (OSError, RuntimeError) as error:  # links that lead to each other
        reason = getattr(error, "strerror", None) or str(error)
        hint = f"see who may write there, and how full the disk is: ls -l {path}; df {path.parent}"
        raise ConfigurationError(f"cannot be changed, and is as it was: {reason}", file=file, hint=hint) from error
    raise ConfigurationError("somebody else saves it all the time", file=file, hint="close it elsewhere, and try again")


@contextmanager
def _locked(target: Path, file: str) -> Iterator[None]:
    """Hold a lock that other processes and threads wait for; its file is there only as long as somebody holds it."""
    lock = target.with_name(f".{target.name}.lock")
    give_up = time.monotonic() + _PATIENCE
    while True:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(lock, descriptor):
                break
            os.close(descriptor)  # its holder has taken it away: this one locks nothing any more
        except BlockingIOError:
            os.close(descriptor)
            if time.monotonic() > give_up:
                hint = f"see who it is: fuser {lock}"
                message = f"another process has been changing it for {_PATIENCE:.0f} s"
                raise ConfigurationError(message, file=file, hint=hint) from None
            time.sleep(_POLL)
        except BaseException:
            os.close(descriptor)
            raise
    try:
        yield
    finally:
        with suppress(OSError):
            lock.unlink()
        os.close(descriptor)


def _is_still(lock: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(lock.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _require_writable(target: Path) -> None:
    # A new file could take its place all the same: whoever made it read-only means that, too.
    with target.open("r+b"):
        pass


def _replaced(target: Path, old: bytes, new: bytes) -> bool:
    """Put ``new`` in the place of ``old``; ``False`` where that is no longer what is there."""
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".new", dir=target.parent)
    made = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(new)
            file.flush()
            _make_alike(target, file.fileno())
            os.fsync(file.fileno())
        if target.read_bytes() != old:
            return False
        made.replace(target)
    finally:
        made.unlink(missing_ok=True)
    directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return True


def _make_alike(target: Path, descriptor: int) -> None:
    was, is_now = target.stat(), os.fstat(descriptor)
    if (was.st_uid, was.st_gid) != (is_now.st_uid, is_now.st_gid):
        os.fchown(descriptor, was.st_uid, was.st_gid)
    os.fchmod(descriptor, was.st_mode & 0o7777)
    for name in os.listxattr(target):
        with suppress(OSError):  # some belong to the system, which sets them itself
            os.setxattr(descriptor, name, os.getxattr(target, name))
