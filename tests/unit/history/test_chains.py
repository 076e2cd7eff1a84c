"""Places in the history dealt to lines that one tenant can pass."""

from __future__ import annotations

from orchestrator.history.chains import chains
from orchestrator.history.graph import Graph

#: a - b - d (merge) - e, and a - c - d.
PARENTS = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c"), "e": ("d",)}
GRAPH = Graph(PARENTS, PARENTS)


def test_one_line_from_older_to_newer() -> None:
    """What is applied at one place is applied at the next one; base comes first."""
    assert chains(GRAPH, [("e",), ("b",), (), ("b", "c"), ("a",)]) == [[(), ("a",), ("b",), ("b", "c"), ("e",)]]


def test_branches_have_lines_of_their_own() -> None:
    """From one branch no path leads to the other."""
    assert chains(GRAPH, [("b",), ("c",), ("d",)]) == [[("b",), ("d",)], [("c",)]]


def test_nowhere() -> None:
    """No places, no lines."""
    assert chains(GRAPH, []) == []
