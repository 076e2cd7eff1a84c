"""Waves as they are given on the command line, in place of those of tenants.yaml."""

from __future__ import annotations

from orchestrator.errors import UsageError
from orchestrator.fleet.fleet import Wave

#: Whom no wave takes; may be said, at the end.
_REST = "rest"


def waves_from(text: str) -> tuple[Wave, ...]:
    """The waves that ``1,10%,rest`` stands for: one tenant, then 10 % of all, then those that are left.

    Args:
        text: numbers of tenants and percentages, separated by commas.

    Raises:
        UsageError: one of them is neither.
    """
    parts = [part.strip() for part in text.split(",")]
    if parts[-1] == _REST:
        parts.pop()
    if not parts or len(set(parts)) < len(parts):
        raise UsageError(f"--waves {text}: each wave has to be another number", hint="for example: --waves 1,10%,rest")
    return tuple(_wave(part, text) for part in parts)


def _wave(part: str, text: str) -> Wave:
    number = part.removesuffix("%")
    try:
        if part.endswith("%"):
            if 0 < float(number) <= 100:
                return Wave(part, percent=float(number))
        elif int(number) > 0:
            return Wave(part, count=int(number))
    except ValueError:
        pass
    raise UsageError(
        f"--waves {text}: `{part}` is neither a number of tenants nor a percentage",
        hint="for example: --waves 1,10%,rest; other waves are written in tenants.yaml",
    )
