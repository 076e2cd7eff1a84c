"""What a preflight found, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestrator.cli.render import print_table, tenant_count

if TYPE_CHECKING:
    from orchestrator.actions.preflight import Offender, Preflight, Probed
    from orchestrator.databases.probing import Probe

#: Tenants told of one probe; all of them are in the JSON.
_TOLD = 10


def show_preflight(found: Preflight) -> None:
    """Who would fail and why, then what nobody looked at and why."""
    count = len(found.probes)
    checks = f"{count} check" if count == 1 else f"{count} checks"
    ends = [
        f"{tenant_count(len(tenants))} {what}"
        for tenants, what in ((found.failing, "would fail"), (found.unanswered, "gave no answer"))
        if tenants
    ]
    click.echo(
        f"\npreflight: {checks} on {tenant_count(found.tenants)}: {', '.join(ends) or 'nothing stands against it'}"
    )
    rows = [row for probed in found.probes for row in _rows(probed)]
    if rows:
        click.echo()
        print_table(("REVISION", "CHECK", "TENANT", "WHY"), rows)
    later = [each for each in found.not_probed if each.what.not_there_yet]
    unseen = [each for each in found.not_probed if not each.what.not_there_yet]
    if unseen:
        click.echo()
        print_table(
            ("REVISION", "NOT PROBED", "TENANTS", "WHY"),
            [(each.what.revision, each.what.subject, str(each.tenants), each.what.reason) for each in unseen],
        )
    if later:
        click.echo(f"\n{len(later)} more have nothing to look at yet: pending revisions make their tables or columns")


def _rows(probed: Probed) -> list[tuple[str, str, str, str]]:
    probe = probed.probe
    check = f"{probe.kind.value} {probe.subject}"
    told = [(each.tenant, _why(each, probe)) for each in probed.fails]
    told += [(tenant, f"no answer: {failure.message}") for tenant, failure in probed.unanswered]
    rows = [(probe.revision, check, tenant, why) for tenant, why in told[:_TOLD]]
    if len(told) > _TOLD:
        rows.append((probe.revision, check, "...", f"and {len(told) - _TOLD} more tenants: --json has them all"))
    return rows


def _why(offender: Offender, probe: Probe) -> str:
    unit = "key" if probe.kind == "unique" else "row"
    count = f"more than {offender.rows}" if offender.more else str(offender.rows)
    shown = f": {'; '.join(offender.values)}" if offender.values else ""
    return f"{count} {unit if count == '1' else f'{unit}s'}: {probe.message}{shown}"
