"""The shortest entry of tenants.yaml that means a tenant."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator.errors import ConfigurationError
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.resolve import Refused, Resolver
from orchestrator.fleet.schema import TenantEntry
from orchestrator.fleet.tenant import Isolation, Limits, Tenant


def entry_of(tenant: Tenant, fleet: Fleet) -> dict[str, object]:
    """The keys that tenants.yaml needs to mean ``tenant``, without those that the fleet's defaults say anyway.

    Args:
        tenant: a tenant on one of the fleet's servers.
        fleet: the servers and defaults that the entry is to be read with.

    Raises:
        ConfigurationError: no entry means this tenant.
    """
    declared = {name: server for name, server in fleet.servers.items() if not server.own}
    resolver = Resolver(declared, fleet.defaults)

    def means_it(entry: dict[str, Any]) -> bool:
        try:
            return resolver.tenant(TenantEntry.model_validate(entry)) == tenant
        except (ValidationError, Refused):
            return False

    entry = _whole(tenant, fleet)
    if not means_it(entry):
        message = f"tenant `{tenant.id}` cannot be written into tenants.yaml as it is"
        raise ConfigurationError(message, hint=f"its server has to be one of {fleet.path}, its place a nameable one")
    # A key falls away where the rules that read the file put the same in its place.
    for key in [key for key in entry if key not in ("id", "url")]:
        shorter = {name: value for name, value in entry.items() if name != key}
        if means_it(shorter):
            entry = shorter
    return entry


def _whole(tenant: Tenant, fleet: Fleet) -> dict[str, Any]:
    server = fleet.servers.get(tenant.server)
    has_own = server is not None and server.own
    entry: dict[str, Any] = {"id": tenant.id}
    if server is not None and has_own:
        entry["url"] = server.url.text
    else:
        entry["server"] = tenant.server
    entry |= {"isolation": str(tenant.isolation), "schema": tenant.schema, "database": tenant.database}
    if tenant.isolation is Isolation.FILE and not has_own:
        entry["file"] = _relative(tenant.file or "", fleet.root)
    entry |= {"tags": list(tenant.tags), "target": tenant.target}
    entry |= {"pin": tenant.pin, "reason": tenant.reason, "until": tenant.until}
    for name in Limits.__slots__:
        seconds = getattr(tenant.limits, name)
        entry[name] = int(seconds) if isinstance(seconds, float) and seconds.is_integer() else seconds
    return {key: value for key, value in entry.items() if value is not None}


def _relative(file: str, root: Path) -> str:
    path = Path(file)
    return str(path.relative_to(root)) if path.is_relative_to(root) else file


def kept_entry(tenant: Tenant, fleet: Fleet) -> dict[str, Any]:
    """The tenant's entry as plain JSON, for whoever is to write it down again one day; defaults may be others by then.

    Args:
        tenant: whom.
        fleet: that it is in.

    Returns:
        Its keys; none where they cannot be kept: an address of its own may be a secret, and may run a command.
    """
    if fleet.servers[tenant.server].own:
        return {}
    entry = _whole(tenant, fleet)
    return {key: value.isoformat() if isinstance(value, date) else value for key, value in entry.items()}
