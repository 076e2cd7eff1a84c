"""What stands before a statement's first word."""

from __future__ import annotations

import re

import pytest

from orchestrator.databases.postgresql.concurrently import LEADING

_FIRST = re.compile(LEADING + r"(\w+)", re.DOTALL)


@pytest.mark.parametrize(
    "before",
    ["", " \n\t", "-- a\n", "--\n--b\n ", "/**/", "/***/", "/*/ */", "/* a */ -- b\n/* c */", "/* /* */ */", "/* ' */"],
)
def test_first_word(before: str) -> None:
    """Space and comments, also one within another, are no part of the statement."""
    found = _FIRST.match(f"{before}CREATE")
    assert found is not None
    assert found[1] == "CREATE"


def test_open_comment() -> None:
    """What a comment that does not end hides is no statement."""
    assert _FIRST.match("/* /* */ CREATE") is None


def test_many_comments() -> None:
    """Comments are read in one way only: in each of all ways, forty of them would take for ever."""
    assert _FIRST.match("/* a */ " * 40 + "(") is None
