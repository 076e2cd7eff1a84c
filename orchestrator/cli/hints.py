"""Commands in hints as they are to be typed here: with the ``--config`` that this command was given.

Without it, what is pasted would go on with the fleet of the tenants.yaml that happens to be there.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from functools import cache
from typing import Any

import click

from orchestrator.cli.settings import Settings

#: Keys of JSON documents whose texts are to be typed.
_KEYS = frozenset({"hint", "retry"})
#: Commands that have no fleet yet.
_WITHOUT = frozenset({"init", "demo"})


def typed(text: str, config: str | None = None) -> str:
    """``text`` with the fleet's file in every command of ours that it names.

    Args:
        text: a hint, or a line with one.
        config: as it was given; ``None`` for that of the command that is under way, if any.
    """
    config = config or _given()
    if config is None:
        return text
    return _commands().sub(lambda found: f"{found[0]}--config {shlex.quote(config)} ", text)


def typed_in(document: Any) -> Any:
    """A document of ``--json`` with its hints so."""
    return document if _given() is None else _walked(document)


def _walked(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            key: typed(each) if key in _KEYS and isinstance(each, str) else _walked(each) for key, each in value.items()
        }
    return [_walked(each) for each in value] if isinstance(value, list | tuple) else value


def _given() -> str | None:
    context = click.get_current_context(silent=True)
    settings = None if context is None else context.find_object(Settings)
    return None if settings is None else settings.config


@cache
def _commands() -> re.Pattern[str]:
    from orchestrator.cli.group import COMMANDS

    names = "|".join(name for name in COMMANDS if name not in _WITHOUT)
    # Not a file called so, nor a sentence about us: what is typed has a command's name next.
    return re.compile(rf"(?<![\w./-])orchestrator (?=(?:{names})(?![\w/-]))")
