"""Options that several commands share, and what they mean."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.actions.execution import Execution
    from orchestrator.fleet.selection import Selection

_F = TypeVar("_F", bound=Callable[..., Any])


def _with(options: list[Callable[[Any], Any]]) -> Callable[[_F], _F]:
    def decorate(command: _F) -> _F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


#: Which tenants a command means.
selecting = _with(
    [
        click.option(
            "-t", "--tenant", "patterns", multiple=True, metavar="PATTERN", help="A tenant, or a glob (eu-*)."
        ),
        click.option("--tag", "tags", multiple=True, metavar="TAG", help="Tenants with this tag."),
        click.option("--server", "servers", multiple=True, metavar="NAME", help="Tenants on this server."),
        click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave these out."),
        click.option("--tenants-from", metavar="FILE|-", help="Tenants listed in a file, one on each line."),
        click.option("--shard", metavar="I/N", help="The I-th of N parts of the fleet."),
        click.option("--sample", type=click.IntRange(min=1), metavar="N", help="N tenants, always the same."),
    ]
)

#: How a run is carried out.
executing = _with(
    [
        click.option(
            "--jobs",
            type=click.IntRange(min=1),
            metavar="N",
            help="Tenants at once, over all (32 in this process; workers know only the servers' limits).",
        ),
        click.option("--max-failures", metavar="N|N%", help="Failures tolerated before no new tenant starts."),
        click.option("--continue-on-error", is_flag=True, help="Go on whatever fails."),
        click.option("--wave", metavar="NAME", help="Only the tenants of this wave."),
        click.option("--waves", metavar="1,10%,...", help="So many tenants first, then so many, then the rest."),
        click.option(
            "--lock-wait", default="10s", show_default=True, help="Wait this long for a tenant locked elsewhere."
        ),
        click.option("--lock-timeout", metavar="TIME", help="A statement waits no longer than this for a lock."),
        click.option("--statement-timeout", metavar="TIME", help="A statement runs no longer than this."),
        click.option(
            "--idle-in-transaction-timeout", metavar="TIME", help="A transaction is idle no longer than this."
        ),
        click.option("--no-replay", is_flag=True, help="Run Alembic for every tenant, also for those that are alike."),
        click.option(
            "--verify",
            type=click.Choice(["sample", "all"]),
            default="sample",
            show_default=True,
            help="Whose tables to compare after a replay.",
        ),
        click.option(
            "--retry-partial",
            is_flag=True,
            help="Run again what was cut off outside a transaction, from its beginning.",
        ),
        click.option(
            "--accept-edited",
            multiple=True,
            metavar="REV",
            help="Take this revision as it is now, though tenants were migrated with another text of it.",
        ),
    ]
)

#: Who attempts the tenants.
handing_over = _with(
    [
        click.option(
            "--executor",
            type=click.Choice(["local", "dbos"]),
            default="local",
            show_default=True,
            help="Who attempts the tenants: this process, or workers (orchestrator worker).",
        ),
        click.option("--detach", is_flag=True, help="Leave the run to the workers, and do not wait for it."),
    ]
)

#: How many at once, for what has no revisions to run.
at_once = _with(
    [
        click.option(
            "--jobs", type=click.IntRange(min=1), default=32, show_default=True, help="Tenants at once, over all."
        ),
        click.option(
            "--lock-wait", default="10s", show_default=True, help="Wait this long for a tenant locked elsewhere."
        ),
        click.option("--lock-timeout", metavar="TIME", help="Wait no longer than this for a lock on a table."),
    ]
)

#: Save what there is before it is touched.
backing_up = click.option(
    "--backup", metavar="DIR", help="Back each tenant up into a file in DIR, right before it is migrated."
)

#: Make what is missing.
provisioning = click.option("--provision", is_flag=True, help="Create missing schemas, databases and files.")

#: Mean everyone, on purpose.
everyone = click.option("--all", "everyone", is_flag=True, help="Mean the whole fleet.")


def selection_from(given: dict[str, Any]) -> Selection:
    """Take the options of :data:`selecting` out of ``given``."""
    from orchestrator.fleet.selection import Selection, parse_shard

    listed = given.pop("tenants_from")
    shard = given.pop("shard")
    return Selection(
        patterns=given.pop("patterns"),
        tags=given.pop("tags"),
        servers=given.pop("servers"),
        exclude=given.pop("exclude"),
        listed=None if listed is None else _listed(listed),
        shard=None if shard is None else parse_shard(shard),
        sample=given.pop("sample"),
    )


def execution_from(given: dict[str, Any]) -> Execution:
    """Take the options of :data:`executing` out of ``given``."""
    from orchestrator.actions.execution import Execution
    from orchestrator.fleet.fleet import FailureBudget
    from orchestrator.fleet.kinds import Budget
    from orchestrator.fleet.tenant import Limits

    budget = given.pop("max_failures")
    backup = given.pop("backup", None)

    def duration(name: str) -> float | None:
        return _duration(given, name)

    wait = duration("lock_wait")
    executor, detach = given.pop("executor", "local"), given.pop("detach", False)
    if detach and executor == "local":
        raise UsageError("only workers can be left alone with a run", hint="--executor dbos --detach")
    return Execution(
        executor=None if executor == "local" else executor,
        detach=detach,
        jobs=given.pop("jobs"),
        max_failures=None
        if budget is None
        else FailureBudget(*_validated(Budget, budget, "--max-failures", "3 or 5%")),
        continue_on_error=given.pop("continue_on_error"),
        wave=given.pop("wave"),
        waves=given.pop("waves"),
        lock_wait=10.0 if wait is None else wait,
        limits=Limits(duration("lock_timeout"), duration("statement_timeout"), duration("idle_in_transaction_timeout")),
        replay=not given.pop("no_replay"),
        verify_all=given.pop("verify") == "all",
        retry_partial=given.pop("retry_partial"),
        accept_edited=given.pop("accept_edited"),
        backup=None if backup is None else Path(backup).absolute(),
    )


def at_once_from(given: dict[str, Any]) -> Execution:
    """Take the options of :data:`at_once` out of ``given``."""
    from orchestrator.actions.execution import Execution
    from orchestrator.fleet.tenant import Limits

    wait = _duration(given, "lock_wait")
    limits = Limits(lock_timeout=_duration(given, "lock_timeout"))
    return Execution(jobs=given.pop("jobs"), lock_wait=10.0 if wait is None else wait, limits=limits)


def duration_of(text: str, option: str, form: str) -> float:
    """Seconds that the text of an option means.

    Args:
        text: as typed.
        option: its name, for messages.
        form: how it is to be typed, for messages.
    """
    from orchestrator.fleet.kinds import Duration

    return float(_validated(Duration, text, option, form))


def _duration(given: dict[str, Any], name: str) -> float | None:
    text = given.pop(name)
    option = f"--{name.replace('_', '-')}"
    return None if text is None else duration_of(text, option, "10s, 1m or a number of seconds")


def _validated(kind: Any, text: str, option: str, form: str) -> Any:
    """Read an option's text as tenants.yaml would read it."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(int(text) if text.isdecimal() else text)
    except ValidationError as error:
        raise UsageError(f"{option} {text}: {error.errors()[0]['msg']}", hint=f"{option} takes {form}") from error


def _listed(name: str) -> tuple[str, ...]:
    from orchestrator.fleet.selection import listed_ids

    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"--tenants-from {name}: {error}", hint="give a text file with one tenant on each line"
        ) from error
    return listed_ids(text)
