"""How this process begins and ends: what Python spends on a short life is as much as a small fleet takes."""

from __future__ import annotations

import atexit
import gc
import os
import sys

#: New objects between two looks for garbage. At Python's 700, importing SQLAlchemy and Alembic alone causes hundreds,
#: and nothing is found.
_BETWEEN_COLLECTIONS = 100_000


def begin() -> None:
    """Look for garbage less often."""
    gc.set_threshold(_BETWEEN_COLLECTIONS, 50, 1000)


def end(code: object) -> None:
    """End the process without taking it apart: freeing every module takes a third of what ``status`` takes.

    What programs rely on still happens: the functions registered with ``atexit`` and the flushing of both streams.
    Returns, for Python to end the process in its own way, where other threads still run, where a developer has asked
    to be told of what is left open, and where a stream is broken.

    Args:
        code: as in SystemExit.
    """
    # Nobody who has not imported it has started a thread.
    threading = sys.modules.get("threading")
    alone = threading is None or threading.active_count() == 1
    if not alone or sys.flags.dev_mode or sys.warnoptions or not isinstance(code, int):
        return
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return
    os._exit(code)
