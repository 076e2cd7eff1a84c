"""Keep stdout for what a command has to say itself: env.py, revisions and hooks print there, too."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

_STDOUT, _STDERR = 1, 2


@contextlib.contextmanager
def kept_clean() -> Iterator[None]:
    """Let all that is written to stdout meanwhile go to stderr: by the users' code, and by programs that it starts."""
    with _programs_too(), contextlib.redirect_stdout(sys.stderr):
        yield


@contextlib.contextmanager
def _programs_too() -> Iterator[None]:
    """The same for whoever has the descriptor: a program that a revision starts, a stream that was kept from before."""
    stdout = sys.stdout
    if (_descriptor(stdout), _descriptor(sys.stderr)) != (_STDOUT, _STDERR):
        yield
        return
    stdout.flush()
    kept = os.dup(_STDOUT)
    os.dup2(_STDERR, _STDOUT)
    try:
        yield
    finally:
        # What somebody has written into the stream goes where it was to go, before that is stdout again.
        with contextlib.suppress(OSError):
            stdout.flush()
        os.dup2(kept, _STDOUT)
        os.close(kept)


def _descriptor(stream: object) -> int | None:
    """Of a stream; ``None`` of one that is closed, or that has none, as in tests."""
    try:
        return stream.fileno() if hasattr(stream, "fileno") else None
    except (OSError, ValueError):
        return None
