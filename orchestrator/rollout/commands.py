"""A shell command of the operator's, with a JSON document on its stdin."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from orchestrator.fleet.masking import mask

#: Bytes of its output that are told, from the end.
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
    # Files, not pipes: what it leaves running in the background may hold them open for ever.
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as told:
        given.write(json.dumps(document).encode())
        given.seek(0)
        try:
            process = await asyncio.create_subprocess_shell(
                command, cwd=directory, stdin=given, stdout=told, stderr=told, start_new_session=True
            )
        except OSError as error:
            return f"cannot be run: {error}"
        try:
            await process.wait()
        except BaseException:
            # The shell's children, too.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            raise
        if process.returncode == 0:
            return None
        told.seek(max(0, told.seek(0, os.SEEK_END) - _TOLD))
        text = mask(told.read().decode(errors="replace").strip())
    return f"exit code {process.returncode}" + (f": {text}" if text else "")
