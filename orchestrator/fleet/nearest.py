"""The word that somebody most likely meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The one of ``known`` that ``word`` most likely was to be, whatever its case; ``None`` when none is near."""
    candidates = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), candidates, n=1, cutoff=0.6)
    return candidates[near[0]] if near else None
