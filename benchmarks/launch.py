"""Run one command and write down what it took: ``python -I -S launch.py RESULT COMMAND...``.

A process of its own, and a small one: Linux counts what a process held before its exec into its peak
(``setmax_mm_hiwater_rss`` in the kernel's exec_mmap), so that a child of the harness would inherit the harness's.
It imports nothing from this project, for the same reason.
"""

import json
import os
import sys
import time


def main() -> int:
    """Write ``{"exit_code", "wall_s", "cpu_s", "peak_kib"}`` of ``COMMAND`` into the file ``RESULT``."""
    result, *command = sys.argv[1:]
    started = time.perf_counter()
    child = os.posix_spawnp(command[0], command, os.environ)
    # Of the child and of all descendants that it waited for; the peak is that of the largest among them (getrusage(2)).
    _, status, usage = os.wait4(child, 0)
    wall = time.perf_counter() - started
    document = {
        "exit_code": os.waitstatus_to_exitcode(status),
        "wall_s": wall,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_kib": usage.ru_maxrss // (1024 if sys.platform == "darwin" else 1),
    }
    with open(result, "w", encoding="utf-8") as file:  # noqa: PTH123 - pathlib would double what this process holds
        json.dump(document, file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
