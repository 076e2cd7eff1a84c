"""orchestrator tenants list, orchestrator tenants validate, orchestrator tenants show"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.group import command
from orchestrator.cli.options import selecting, selection_from
from orchestrator.cli.render import print_json, print_table
from orchestrator.cli.running import read
from orchestrator.cli.settings import Settings

if TYPE_CHECKING:
    from orchestrator.fleet.fleet import Fleet
    from orchestrator.fleet.tenant import Tenant


@click.group()
@command
def tenants(settings: Settings) -> None:
    """The fleet as read from tenants.yaml and all its sources."""


@tenants.command("list")
@selecting
@command
def list_(settings: Settings, **given: Any) -> int:
    """List the selected tenants and where their tables are."""
    chosen = selection_from(given).choose(_whole(settings.fleet()).tenants)
    if settings.json:
        print_json({"tenants": [_as_json(tenant) for tenant in chosen]})
    else:
        print_table(
            ("TENANT", "SERVER", "ISOLATION", "PLACE", "TARGET", "TAGS"),
            [
                (
                    tenant.id,
                    tenant.server,
                    tenant.isolation.value,
                    tenant.place,
                    _target(tenant),
                    ", ".join(tenant.tags),
                )
                for tenant in chosen
            ],
        )
    return 0


@tenants.command()
@command
def validate(settings: Settings) -> int:
    """Read tenants.yaml and all sources, and say whether they are right."""
    from orchestrator.actions.linting.chosen import check_rules
    from orchestrator.actions.nobody import warn_of_nobody

    declared = settings.fleet()
    fleet = _whole(declared)
    check_rules(fleet)
    warnings = warn_of_nobody(declared, fleet, fleet.waves)
    if settings.json:
        counts = {"tenants": len(fleet.tenants), "servers": len(fleet.servers)}
        print_json({"valid": True, **counts, "warnings": list(warnings)})
    else:
        click.echo(f"{settings.path} is valid; tenants: {len(fleet.tenants)}, servers: {len(fleet.servers)}")
    return 0


@tenants.command()
@click.argument("tenant")
@command
def show(settings: Settings, tenant: str) -> int:
    """Show everything that is known of TENANT; its server's address has its secrets masked."""
    from orchestrator.fleet.selection import Selection

    fleet = _whole(settings.fleet())
    found = Selection(listed=(tenant,)).choose(fleet.tenants)[0]
    facts = {**_as_json(found), "url": str(fleet.server_of(found).url)}
    if settings.json:
        print_json(facts)
    else:
        for name, value in facts.items():
            if value not in (None, []):
                click.echo(f"{name:<10} {', '.join(value) if isinstance(value, list) else value}")
    return 0


def _whole(declared: Fleet) -> Fleet:
    from orchestrator.actions.servers import opened_servers

    async def whole() -> Fleet:
        async with opened_servers(declared) as servers:
            return await servers.fleet()

    return read(whole())


def _as_json(tenant: Tenant) -> dict[str, Any]:
    return {
        "tenant": tenant.id,
        "server": tenant.server,
        "isolation": tenant.isolation.value,
        "schema": tenant.schema,
        "database": tenant.database,
        "file": tenant.file,
        "tags": list(tenant.tags),
        "target": tenant.target,
        "pin": tenant.pin,
        "reason": tenant.reason,
        "until": tenant.until.isoformat() if tenant.until is not None else None,
    }


def _target(tenant: Tenant) -> str:
    return f"pinned at {tenant.pin}" if tenant.pin is not None else tenant.target
