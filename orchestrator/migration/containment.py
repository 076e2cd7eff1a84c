"""Which exceptions end one tenant's migration, and which are somebody's wish to end the run.

``except Exception`` lets through what interpreters and event loops use for themselves, and a migration may raise that
as well: ``sys.exit()`` in a helper, a cancelled task of its own, a library's class that derives from BaseException. The
event loop would take it for its own, and every other tenant would pay for it.
"""

from __future__ import annotations

import asyncio
import signal


def is_its_own(error: BaseException) -> bool:
    """Whether ``error``, caught around a migration, is the migration's, and to be contained.

    Args:
        error: what was raised, in the task that migrates.

    Returns:
        False for the cancellation of this very task, and for a Ctrl-C: Python raises KeyboardInterrupt for one only
        where nobody else handles SIGINT (https://docs.python.org/3/library/signal.html), as the command line and
        ``asyncio.run`` do.
    """
    if isinstance(error, KeyboardInterrupt):
        return signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        task = asyncio.current_task()
        return task is not None and not task.cancelling()
    return True
