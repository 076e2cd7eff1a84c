"""orchestrator pool fill, orchestrator pool drop"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestrator.cli.group import command
from orchestrator.cli.hints import typed
from orchestrator.cli.render import print_json
from orchestrator.cli.running import read
from orchestrator.cli.settings import Settings

if TYPE_CHECKING:
    from orchestrator.actions.pool import Filled, Pools

_server = click.option("--server", "servers", metavar="NAME", multiple=True, help="Only this server (repeatable).")


@click.group()
@command
def pool(settings: Settings) -> None:
    """Databases that are ready before anybody comes."""


@pool.command()
@_server
@command
def fill(settings: Settings, servers: tuple[str, ...]) -> int:
    """Make databases ready, as many as tenants.yaml asks for, and drop old ones: for a deploy, or from time to time."""
    from orchestrator.actions.pool import fill_pools

    return _show(settings, read(fill_pools(settings.fleet(may_be_empty=True), servers)))


@pool.command()
@_server
@command
def drop(settings: Settings, servers: tuple[str, ...]) -> int:
    """Drop the databases that are ready; none of them is anybody's."""
    from orchestrator.actions.pool import drop_pools

    return _show(settings, read(drop_pools(settings.fleet(may_be_empty=True), servers)))


def _show(settings: Settings, found: Pools) -> int:
    for each in found.servers:
        if each.error is not None:
            click.echo(f"error: {each.error}", err=True)
            if each.hint is not None:
                click.echo(f"  hint: {typed(each.hint)}", err=True)
        elif not settings.json:
            click.echo(_told(each))
    if settings.json:
        print_json(found)
    return 0 if found.satisfied else 1


def _told(each: Filled) -> str:
    done = [f"{count} {what}" for count, what in ((each.made, "made"), (each.dropped, "dropped")) if count]
    told = f" ({', '.join(done)})" if done else ""
    return f"server {each.server}: {each.ready} ready{told}"
