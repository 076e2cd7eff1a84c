"""A shell command of the operator's, with a JSON document on its stdin."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from orchestrator.fleet.masking import mask

#: Characters of its output that are told, from the end.
_TOLD = 500


async def refusal(command: str, directory: Path, document: Mapping[str, Any]) -> str | None:
    """Run a command to its end.

    Args:
        command: for the shell.
        directory: where it runs.
        document: what JSON can hold.

    Returns:
        Its exit code and the end of its output, masked, in a line; ``None`` when it exited with 0.
    """
    process = await asyncio.create_subprocess_shell(
        command,
        cwd=directory,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        told, _ = await process.communicate(json.dumps(document).encode())
    except BaseException:
        # The shell's children, too: they hold its output open.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    if process.returncode == 0:
        return None
    text = mask(told.decode(errors="replace").strip()[-_TOLD:])
    return f"exit code {process.returncode}" + (f": {text}" if text else "")
