"""Places in the history in an order in which one tenant can pass them, from older to newer. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.history.graph import Graph


def chains(graph: Graph, places: Iterable[tuple[str, ...]]) -> list[list[tuple[str, ...]]]:
    """Deal ``places`` to as few lines as is easily seen, each from older to newer.

    Args:
        graph: the shared directory.
        places: sets of heads, all of them known to the directory.

    Returns:
        Lines; whatever is applied at one place of a line is applied at the next one, too.
    """
    applied = {heads: graph.closure(heads) for heads in places}
    found: list[list[tuple[str, ...]]] = []
    for heads in sorted(applied, key=lambda heads: (len(applied[heads]), heads)):
        line = next((line for line in found if applied[line[-1]] <= applied[heads]), None)
        if line is None:
            found.append([heads])
        else:
            line.append(heads)
    return found
