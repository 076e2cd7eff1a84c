"""What of tenants.yaml finds nobody: sources without a tenant, waves that select none. So looks a mistyped word."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from orchestrator.errors import SelectionError
from orchestrator.fleet.fleet import Fleet, Wave
from orchestrator.fleet.tenant import Tenant

log = logging.getLogger("orchestrator.fleet")


def warn_of_nobody(declared: Fleet, whole: Fleet, waves: Sequence[Wave] | None = ()) -> tuple[str, ...]:
    """Say on the log what finds nobody. No error: a source or a wave may be empty today.

    Args:
        declared: as loaded, its sources unread.
        whole: the same with its sources read.
        waves: those that count; ``None`` for the fleet's.

    Returns:
        What was said, for documents.
    """
    found = (*_sources(declared, whole), *_waves(whole.tenants, whole.waves if waves is None else waves))
    for message in found:
        log.warning("%s", message)
    return found


def _sources(declared: Fleet, whole: Fleet) -> Iterator[str]:
    known = {id(source) for source in whole.origins.values()}
    for source in declared.sources:
        if id(source) not in known:
            yield f"{source} finds no tenant; if it should, look for a mistyped word in it"


def _waves(tenants: Sequence[Tenant], waves: Sequence[Wave]) -> Iterator[str]:
    for wave in waves if tenants else ():
        if wave.select.filter(tenants):
            continue
        try:
            wave.select.choose(tenants)
        except SelectionError as error:
            gates = ", ".join(_gates(wave))
            passed = f"; nobody waits for its {gates}" if gates else ""
            yield f"wave {wave.name} selects nobody{passed}: {error.message} ({error.hint})"


def _gates(wave: Wave) -> Iterator[str]:
    """What stands between a wave and the next one, and does not where the wave is empty."""
    if wave.approve is not None:
        yield "approval"
    if wave.verify:
        yield "checks"
    if wave.bake:
        yield "bake"
