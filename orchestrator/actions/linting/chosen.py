"""The rules that tenants.yaml chooses: there is no use in turning one off that there is not."""

from __future__ import annotations

from orchestrator.databases.squawk import KNOWN, unknown_rule
from orchestrator.errors import ConfigurationError
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.nearest import did_you_mean
from orchestrator.history.rules import RULES, SQUAWK_RULE, is_rule


def check_rules(fleet: Fleet) -> None:
    """Refuse rules in tenants.yaml that there are not; which ones squawk has is known where it is installed.

    Args:
        fleet: whose rules.

    Raises:
        ConfigurationError: with what was meant.
    """
    for name in fleet.lint_rules:
        if not is_rule(name):
            raise _none(fleet, name, did_you_mean(name, RULES), "they are listed in docs/cli.md, orchestrator lint")
    theirs = [name.removeprefix(SQUAWK_RULE) for name in fleet.lint_rules if name.startswith(SQUAWK_RULE)]
    if (unknown := unknown_rule(theirs)) is not None:
        near = did_you_mean(unknown, KNOWN)
        meant = None if near is None else f"{SQUAWK_RULE}{near}"
        raise _none(fleet, f"{SQUAWK_RULE}{unknown}", meant, "they are listed at https://squawkhq.com/docs/rules")


def _none(fleet: Fleet, name: str, near: str | None, listed: str) -> ConfigurationError:
    hint = f"did you mean `{near}`?" if near else listed
    return ConfigurationError(f"lint.rules: there is no rule `{name}`", file=str(fleet.path), hint=hint)
