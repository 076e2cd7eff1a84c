"""How much rules weigh, and the comments that excuse from them."""

from __future__ import annotations

import pytest

from orchestrator.history.hazards import HazardKind
from orchestrator.history.ignores import ignores
from orchestrator.history.rules import RULES, is_rule, severity_of
from orchestrator.statuses import Severity

OFF, WARNING, ERROR = Severity.OFF, Severity.WARNING, Severity.ERROR


def test_every_kind_is_a_rule() -> None:
    """There is one list: whatever plan can tell, lint can be told to look for."""
    assert RULES.keys() == set(HazardKind)
    assert all(is_rule(kind.value) for kind in HazardKind)
    assert is_rule("squawk/ban-drop-column")
    assert not is_rule("squawk/")
    assert not is_rule("no_downgrades")


@pytest.mark.parametrize(
    ("rule", "chosen", "severity"),
    [
        ("no_message", {}, WARNING),
        ("no_message", {"no_message": ERROR}, ERROR),
        ("squawk/adding-required-field", {}, ERROR),
        ("squawk/prefer-text-field", {}, WARNING),
        ("squawk/syntax-error", {}, ERROR),
        ("squawk/require-lock-timeout", {}, OFF),
        # What something else sees to comes back by its own name only.
        ("squawk/require-lock-timeout", {"squawk": ERROR}, OFF),
        ("squawk/require-lock-timeout", {"squawk/require-lock-timeout": WARNING}, WARNING),
        ("squawk/prefer-text-field", {"squawk": ERROR}, ERROR),
        ("squawk/adding-required-field", {"squawk": WARNING}, WARNING),
        ("squawk/adding-required-field", {"squawk": WARNING, "squawk/adding-required-field": OFF}, OFF),
    ],
)
def test_severity(rule: str, chosen: dict[str, Severity], severity: Severity) -> None:
    """The rule's own word in tenants.yaml, then squawk's, then the default."""
    assert severity_of(rule, chosen) is severity


def test_ignores() -> None:
    """Comments count wherever they stand; texts that look like one do not."""
    source = '''"""# orchestrator: ignore no_message: a docstring"""
# orchestrator: ignore no_downgrade: restored from backups
x = 1  #orchestrator:ignore squawk/ban-drop-column : nobody reads: it
text = "# orchestrator: ignore no_message: a text"
'''
    first, second = ignores(source)
    assert (first.rule, first.reason, first.line, first.fault) == ("no_downgrade", "restored from backups", 2, None)
    assert (second.rule, second.reason) == ("squawk/ban-drop-column", "nobody reads: it")
    assert first.covers("no_downgrade")
    assert not first.covers("irreversible")


def test_all_of_squawk() -> None:
    """`squawk` is all of its rules, and nothing else."""
    (ignore,) = ignores("# orchestrator: ignore squawk: reviewed with the DBAs\n")
    assert ignore.covers("squawk/ban-drop-column")
    assert not ignore.covers("no_message")


@pytest.mark.parametrize(
    ("comment", "fault"),
    [
        ("ignore no_downgrade", "no reason"),
        ("ignore no_downgrade:   ", "no reason"),
        ("ignore", "names no rule"),
        ("ignore no_such_rule: because", "no rule no_such_rule"),
        ("ignore edited: it was me", "cannot be ignored"),
    ],
)
def test_ignores_that_excuse_from_nothing(comment: str, fault: str) -> None:
    """Without a reason, or for no rule, a comment covers nothing and says what is wrong with it."""
    (ignore,) = ignores(f"# orchestrator: {comment}\n")
    assert ignore.fault is not None
    assert fault in ignore.fault
    assert not ignore.covers(ignore.rule)
