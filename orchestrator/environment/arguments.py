"""What plain Alembic was told beside its command: the ``-x`` arguments, and where the fleet is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from alembic import context

from orchestrator.errors import UsageError
from orchestrator.fleet.selection import Selection

#: How an edited revision is accepted, before the command.
ACCEPT = "-x accept-edited="
#: How tenants are named to plain Alembic, for hints.
USAGE = "-x tenant=PATTERN, -x tag=TAG or -x server=NAME before the command, or -x all=true"


@dataclass(frozen=True, slots=True)
class Whom:
    """The tenants that ``-x`` means."""

    selection: Selection
    #: ``-x all=true``: the whole fleet, on purpose.
    everyone: bool

    @property
    def anybody_named(self) -> bool:
        """Something was said of tenants at all."""
        return self.everyone or not self.selection.is_empty


def whom() -> Whom:
    """Read ``-x tenant=``, ``tag=``, ``server=`` and ``all=``; other ``-x`` arguments are the migrations' own."""
    given = _given("tenant", "tag", "server", "all")
    everyone = any(value.lower() in {"", "1", "true", "yes"} for value in given["all"])
    return Whom(Selection(tuple(given["tenant"]), tuple(given["tag"]), servers=tuple(given["server"])), everyone)


def accepted() -> tuple[str, ...]:
    """Read ``-x accept-edited=``: revisions that may be other than they were when tenants were migrated with them.

    Raises:
        UsageError: one has no revision.
    """
    revisions = tuple(_given("accept-edited")["accept-edited"])
    if not all(revisions):
        raise UsageError("-x accept-edited does not say which revision", hint=f"{ACCEPT}REV before the command")
    return revisions


def _given(*keys: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {key: [] for key in keys}
    for argument in context.get_x_argument():
        key, _, value = argument.partition("=")
        if key in found:
            found[key].append(value)
    return found


def fleet_file() -> Path:
    """tenants.yaml beside alembic.ini, or wherever ORCHESTRATOR_CONFIG says."""
    named = os.environ.get("ORCHESTRATOR_CONFIG")
    if named:
        return Path(named)
    here = context.config.config_file_name or context.config.toml_file_name
    return Path(here or ".").resolve().parent / "tenants.yaml"
