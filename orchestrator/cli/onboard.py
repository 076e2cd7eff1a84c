"""orchestrator onboard"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.group import command
from orchestrator.cli.options import executing, execution_from, handing_over
from orchestrator.cli.running import migrate, read
from orchestrator.cli.settings import Settings
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.actions.execution import Watch
    from orchestrator.actions.onboarding.readiness import Readiness

#: Options that say what a tenant is; they are its keys in tenants.yaml.
_KEYS = ("server", "schema", "database", "file", "url", "tags", "target")


@click.command()
@click.argument("tenant", required=False)
@click.option("--server", metavar="NAME", help="The server that it is on.")
@click.option("--schema", metavar="NAME", help="Its schema (default: its id).")
@click.option("--database", metavar="NAME", help="Its database, where it has one of its own (default: its id).")
@click.option("--file", metavar="FILE", help="Its SQLite file.")
@click.option("--url", metavar="URL", help="Address of a server of its own.")
@click.option("--isolation", type=click.Choice(["schema", "database", "file"]), help="What it has of its own.")
@click.option("--tags", metavar="A,B", help="What waves and --tag select it by.")
@click.option("--target", metavar="REV", help="What it is migrated to, now and later.")
@click.option("--seed", metavar="NAME", help="The rows it begins with (default: as tenants.yaml says; '' for none).")
@click.option("--from", "listed", metavar="FILE|-", help="Tenants listed in a CSV, YAML or JSON file.")
@click.option("--adopt", is_flag=True, help="Take in what is there already, once its shape is found right.")
@click.option("--prepare", is_flag=True, help="Make nobody, but what the next ones are made from: for a deploy.")
@click.option("--undo", is_flag=True, help="Take away what an onboarding has left that did not end.")
@executing
@handing_over
@command
def onboard(
    settings: Settings,
    tenant: str | None,
    listed: str | None,
    seed: str | None,
    adopt: bool,
    prepare: bool,
    undo: bool,
    **given: Any,
) -> int:
    """Create TENANT, migrate it, give it its first rows, and write it down in the fleet.

    Given again, the same command finishes what was cut off.
    """
    execution = execution_from(given)
    if execution.handed_over and (prepare or undo):
        raise UsageError("--prepare and --undo are done here", hint="leave --executor out")
    entry = {key: given[key] for key in (*_KEYS, "isolation") if given.get(key) is not None}
    if prepare:
        if tenant is not None or listed is not None:
            raise UsageError(
                "--prepare makes nobody", hint="leave the tenant out; --server says where the next come to"
            )
        return _prepare(settings, entry)
    if (tenant is None) == (listed is None):
        raise UsageError("name one tenant, or give a list of them", hint="orchestrator onboard TENANT, or --from FILE")
    if listed is not None and entry:
        named = ", ".join(f"--{key}" for key in entry)
        raise UsageError(f"{named}: with --from, that is said in the file", hint="give it as a column there")
    if undo and adopt:
        raise UsageError("--undo takes away, --adopt takes in", hint="leave one of them out")
    _refuse_password(entry.get("url"))
    entries = [{"id": tenant, **entry}] if tenant is not None else _read(str(listed))
    origin = "the command line" if listed is None else "stdin" if listed == "-" else listed
    fleet = settings.fleet(may_be_empty=True)

    def work(watch: Watch) -> Any:
        if undo:
            from orchestrator.actions.onboarding.undo import undo as take_back

            return take_back(fleet, *entries, origin=origin, expand=listed is None, execution=execution, watch=watch)
        from orchestrator.actions.onboard import onboard

        return onboard(
            fleet,
            *entries,
            seed=seed,
            adopt=adopt,
            origin=origin,
            expand=listed is None,
            execution=execution,
            watch=watch,
        )

    return migrate(settings, work, execution)


def _prepare(settings: Settings, entry: dict[str, Any]) -> int:
    from orchestrator.cli.render import print_json

    fleet = settings.fleet(may_be_empty=True)

    async def work() -> Readiness:
        from orchestrator.actions.onboarding.desk import onboarding

        async with onboarding(fleet, refill=False) as desk:
            return await desk.prepare(**entry)

    ready = read(work())
    if settings.json:
        print_json(ready)
        return 0
    click.echo(f"server {ready.server}: each new {ready.isolation} is made by {ready.way}")
    for way, why in ready.closed.items():
        click.echo(f"  not by {way}: {why}")
    if ready.stock is not None:
        click.echo(f"  {ready.stock.ready} are ready in the pool")
    return 0


def _refuse_password(address: str | None) -> None:
    """What is typed stands in the shell's history, and the fleet is written as it was typed."""
    from orchestrator.fleet.urls import has_password

    if address is not None and has_password(address):
        raise UsageError(
            "--url has a password in it, which would stand in tenants.yaml for all who read that",
            hint="write ${ACME_PASSWORD} in its place, the whole in single quotes, and set that variable",
        )


def _read(name: str) -> list[dict[str, Any]]:
    from orchestrator.fleet.newcomers import read_entries

    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--from {name}: {error}", hint="give a CSV, YAML or JSON file") from error
    return read_entries(text, name)
