"""What holds for every command, wherever it stands on the command line: before the command's name or after it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from orchestrator.fleet.fleet import Fleet

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(slots=True)
class Settings:
    """The common options."""

    config: str | None = None
    json: bool = False
    log_format: str = "text"
    verbose: bool = False
    yes: bool = False
    #: A run was carried out: how that ended is the exit code, whether or not it could be told.
    ran: bool = False

    @property
    def path(self) -> Path:
        """tenants.yaml: ``--config``, ORCHESTRATOR_CONFIG, or the one in this directory."""
        return Path(self.config or os.environ.get("ORCHESTRATOR_CONFIG") or "tenants.yaml")

    @property
    def on_terminal(self) -> bool:
        """Somebody can be asked, and can watch."""
        return sys.stdin.isatty() and sys.stderr.isatty() and not os.environ.get("CI")

    def fleet(self, *, may_be_empty: bool = False) -> Fleet:
        """Load tenants.yaml."""
        from orchestrator.fleet.load import load

        return load(self.path, may_be_empty=may_be_empty)


def common_options(command: _F) -> _F:
    """Give a command, or the group, the options that every one has."""
    options = [
        click.option("--config", metavar="FILE", help="The fleet's file (default: tenants.yaml)."),
        click.option("--json", is_flag=True, help="Print one JSON document on stdout and nothing else there."),
        click.option("--log-format", type=click.Choice(["text", "json"]), help="Form of the narration on stderr."),
        click.option("-v", "--verbose", is_flag=True, help="Narrate every revision."),
        click.option("--yes", is_flag=True, help="Answer questions with yes."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def take_common(context: click.Context, given: dict[str, Any]) -> Settings:
    """Move the common options out of ``given`` into the settings of this invocation."""
    settings = context.ensure_object(Settings)
    for name in ("config", "json", "log_format", "verbose", "yes"):
        value = given.pop(name)
        if value:
            setattr(settings, name, value)
    return settings
