"""stdout and stderr that nobody reads, or that cannot be written: the work goes on, and its answer is the exit code.

`orchestrator drift | head -1` closes the pipe in the middle of the answer. What is raised then would take the place of
the exit code (click ends such a command with 1), and in a run it would come into the middle of that.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

from orchestrator.errors import OrchestratorError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

#: Numbers of the two files.
_STDOUT, _STDERR = 1, 2


class OutputLost(OrchestratorError):
    """What was to be told could not be written to stdout."""


class _Kept(io.FileIO):
    """A file that takes everything; what could not be written is remembered."""

    #: Why something was lost.
    lost: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.lose(error)
            return memoryview(data).nbytes

    def lose(self, error: OSError) -> None:
        """Write to nowhere from now on; what is still in buffers goes there, too, and the processes that we start."""
        self.lost = self.lost or error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        if nowhere != self.fileno():
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)


class _Closed(_Kept):
    """A file that was closed before we began."""

    def write(self, data: ReadableBuffer, /) -> int:
        self.lost = OSError(errno.EBADF, "it is closed")
        return memoryview(data).nbytes


_kept: dict[int, _Kept] = {}


def keep() -> None:
    """Put such files in the place of stdout and stderr."""
    sys.stdout, sys.stderr = _wrapped(sys.stdout, _STDOUT), _wrapped(sys.stderr, _STDERR)


def _wrapped(stream: TextIO | None, number: int) -> TextIO:
    closed = stream is None
    if closed:
        # Python has no stream where its file was closed; the next file that is opened would get its number.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        if nowhere != number:
            os.dup2(nowhere, number)
            os.close(nowhere)
    raw = _kept[number] = _Closed(number, "w", closefd=False) if closed else _Kept(number, "w", closefd=False)
    encoding, errors = ("utf-8", "replace") if stream is None else (stream.encoding, stream.errors)
    # PYTHONUNBUFFERED, and stderr as ever, are told line by line.
    at_once = number == _STDERR or getattr(stream, "line_buffering", False) or getattr(stream, "write_through", False)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=encoding, errors=errors, line_buffering=at_once)


def nobody_reads() -> bool:
    """Whether what is written to stdout goes nowhere: whoever tells something again and again may end."""
    return _STDOUT in _kept and _kept[_STDOUT].lost is not None


def require_told() -> None:
    """Make sure that all was written to stdout, or that whoever read it wanted no more.

    Raises:
        OutputLost: the disk is full, or stdout is closed, for example.
    """
    sys.stdout.flush()
    lost = _kept[_STDOUT].lost if _STDOUT in _kept else None
    if lost is not None and lost.errno != errno.EPIPE:
        raise OutputLost(
            f"what was to be told could not be written to stdout: {lost.strerror}",
            hint="write it elsewhere; to be told nothing: > /dev/null",
        )
